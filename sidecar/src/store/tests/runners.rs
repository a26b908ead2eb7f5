//! Runners, images, webhooks and draining, and what pruning leaves of everything.

use super::{Database, deliver, delivery, runner, webhook};
use crate::store::{
    AuditRecord, ImageRecord, JobFilter, Peak, RunnerHistory, RunnerRecord, StoreOutcome,
    WebhookRecord,
};
use edgerunner_scheduler::model::JobState;

pub(super) async fn a_later_record_of_a_runner_keeps_what_it_leaves_out(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let credential = Some("github".to_owned());
    let registered = RunnerRecord { registration_id: Some(7), credential, ..runner("a") };
    store.save_runner(registered).await.unwrap();
    store.save_runner(RunnerRecord { online_at: Some(6), ..runner("a") }).await.unwrap();
    // Idle once more.
    store.save_runner(RunnerRecord { online_at: Some(8), ..runner("a") }).await.unwrap();
    store.save_runner(runner("a")).await.unwrap();
    store.save_runner_log("a".into(), "it broke".into()).await.unwrap();
    let gone = RunnerRecord { phase: "gone".into(), gone_at: Some(9), ..runner("a") };
    store.save_runner(runner("b")).await.unwrap();
    assert_eq!(store.present_runners().await.unwrap().len(), 2);
    store.save_runner(gone).await.unwrap();
    assert_eq!(store.present_runners().await.unwrap(), [runner("b")]);
    let recent = store.recent_runners(10).await.unwrap();
    let a = recent.iter().find(|it| it.runner.name == "a").unwrap();
    assert_eq!((a.runner.registration_id, a.log.as_deref()), (Some(7), Some("it broke")));
    assert_eq!((a.runner.credential.as_deref(), a.runner.online_at), (Some("github"), Some(6)));
}

pub(super) async fn the_peak_of_a_runner_never_falls(database: &impl Database) {
    let (store, _closed) = database.open().await;
    // A later process has measured less.
    let peaks =
        [(None, None), (Some(5), None), (Some(9), Some(3)), (Some(7), None), (None, Some(1))];
    for (memory_bytes, cpu_millis) in peaks {
        let peak = Peak { memory_bytes, cpu_millis };
        store.save_runner(RunnerRecord { peak, ..runner("a") }).await.unwrap();
    }
    let end = Some("done".to_owned());
    store.save_runner(RunnerRecord { end: end.clone(), ..runner("a") }).await.unwrap();
    let found = store.runner("a".into()).await.unwrap().unwrap().runner;
    assert_eq!(found.peak, Peak { memory_bytes: Some(9), cpu_millis: Some(3) });
    assert_eq!(found.end, end);
}

pub(super) async fn failed_runners_are_kept_for_investigation(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let failed = RunnerRecord { failed: true, ..runner("failed") };
    store.save_runner(runner("done")).await.unwrap();
    store.save_runner(failed.clone()).await.unwrap();
    store.save_runner_log("failed".into(), "it broke".into()).await.unwrap();
    assert_eq!(store.failed_runners(9).await.unwrap(), [failed]);
    let found = store.runner("failed".into()).await.unwrap().unwrap();
    assert_eq!(found.log.as_deref(), Some("it broke"));
    store.save_runner_log("failed".into(), "it broke twice".into()).await.unwrap();
    let found = store.runner("failed".into()).await.unwrap().unwrap();
    assert_eq!(found.log.as_deref(), Some("it broke twice"));
    assert_eq!(store.runner("nobody".into()).await.unwrap(), None);
}

pub(super) async fn the_log_of_an_unknown_runner_is_not_stored(database: &impl Database) {
    let (store, _closed) = database.open().await;
    store.save_runner_log("a".into(), "it broke".into()).await.unwrap();
    store.save_runner(runner("a")).await.unwrap();
    let found = store.runner("a".into()).await.unwrap();
    assert_eq!(found, Some(RunnerHistory { runner: runner("a"), log: None }));
}

pub(super) async fn the_times_of_a_webhook_only_move_forward(database: &impl Database) {
    let (store, _closed) = database.open().await;
    for (seen_at, settled_until) in [(5, 0), (6, 4), (7, 0), (1, 2)] {
        store.save_webhook(webhook("orgs/acme/hooks/1", seen_at, settled_until)).await.unwrap();
    }
    let app = |app_id| WebhookRecord { app_id, ..webhook("app/hook", 1, 0) };
    store.save_webhook(app(1)).await.unwrap();
    store.save_webhook(app(2)).await.unwrap();
    let known = [app(1), app(2), webhook("orgs/acme/hooks/1", 7, 4)];
    assert_eq!(store.webhooks().await.unwrap(), known);
    store.prune(5 + 35 * 24 * 3_600_000).await.unwrap();
    assert_eq!(store.webhooks().await.unwrap(), known[2..]);
}

pub(super) async fn changes_are_listed_newest_first_and_pruned_after_400_days(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    let change = |at, who: &str| AuditRecord {
        at,
        who: who.into(),
        address: "192.0.2.1".into(),
        action: "drain".into(),
        target: "gpu".into(),
        outcome: "done".into(),
    };
    let days = 86_400_000;
    let all = [change(0, "ann"), change(days, "ben"), change(days, "cy")];
    for change in &all {
        store.save_audit(change.clone()).await.unwrap();
    }
    let newest_first: Vec<_> = all.iter().rev().cloned().collect();
    assert_eq!(store.audit(9).await.unwrap(), newest_first);
    assert_eq!(store.audit(1).await.unwrap(), newest_first[..1]);
    store.prune(400 * days + 1).await.unwrap();
    assert_eq!(store.audit(9).await.unwrap(), newest_first[..2]);
}

pub(super) async fn pruning_deletes_what_is_old_and_over_and_nothing_else(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    deliver(&store, delivery("b", 2, JobState::Completed)).await.unwrap();
    store.save_runner(RunnerRecord { gone_at: Some(9), ..runner("gone") }).await.unwrap();
    store.save_runner(runner("here")).await.unwrap();
    for name in ["gone", "here"] {
        store.save_runner_log(name.into(), "its log".into()).await.unwrap();
    }
    let days = 86_400_000;
    store.prune(8 * days).await.unwrap();
    assert_eq!(store.jobs(JobFilter::default(), 10).await.unwrap().len(), 2);
    // Its delivery is forgotten, the job is not: a repeated one is stale.
    let again = deliver(&store, delivery("b", 2, JobState::Completed)).await.unwrap();
    assert_eq!(again, StoreOutcome::Stale);
    store.prune(40 * days).await.unwrap();
    let left: Vec<u64> = store
        .jobs(JobFilter::default(), 10)
        .await
        .unwrap()
        .iter()
        .map(|it| it.record.job.key.id)
        .collect();
    assert_eq!(left, [1]);
    let here = RunnerHistory { runner: runner("here"), log: Some("its log".into()) };
    assert_eq!(store.recent_runners(10).await.unwrap(), [here]);
    // A new runner of that name does not inherit the log of the old one.
    store.save_runner(runner("gone")).await.unwrap();
    assert_eq!(store.runner("gone".into()).await.unwrap().unwrap().log, None);
}

pub(super) async fn images_are_kept_until_they_are_gone(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let image = |engine: &str, id: &str, pulled_at| {
        let (engine, id) = (engine.to_owned(), id.to_owned());
        ImageRecord { engine, id, name: "runner:latest".into(), pulled_at }
    };
    for image in [image("e1", "b", 2), image("e1", "a", 3), image("e2", "a", 1)] {
        store.save_image(image.clone()).await.unwrap();
        store.save_image(image).await.unwrap();
    }
    let all = [image("e2", "a", 1), image("e1", "b", 2), image("e1", "a", 3)];
    assert_eq!(store.images().await.unwrap(), all);
    store.forget_image("e1".into(), "a".into()).await.unwrap();
    store.forget_image("e3".into(), "a".into()).await.unwrap();
    assert_eq!(store.images().await.unwrap(), all[..2]);
}

pub(super) async fn draining_is_kept_until_the_pool_is_resumed(database: &impl Database) {
    let (store, closed) = database.open().await;
    let gpu = || Some("gpu".to_owned());
    for (pool, draining) in [(gpu(), true), (gpu(), true), (None, true)] {
        store.save_draining(pool, draining).await.unwrap();
    }
    drop(store);
    closed.wait().await;
    let (store, _closed) = database.open().await;
    assert_eq!(store.draining().await.unwrap(), [None, gpu()]);
    store.save_draining(gpu(), false).await.unwrap();
    assert_eq!(store.draining().await.unwrap(), [None]);
    store.save_draining(gpu(), true).await.unwrap();
    store.save_draining(None, false).await.unwrap();
    assert_eq!(store.draining().await.unwrap(), []);
}
