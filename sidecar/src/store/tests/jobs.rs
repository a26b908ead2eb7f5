//! Deliveries, and the jobs that they move forward.

use std::{
    pin::pin,
    task::{Context, Waker},
};

use super::{Database, deliver, delivery, queued, runner};
use crate::store::{
    Delivery, JobFilter, JobHistory, JobUpdate, QueueTime, RunnerRecord, Store, StoreOutcome,
};
use edgerunner_scheduler::{
    model::{Host, Job, JobKey, JobState, RunOrigin, Visibility},
    plan::{NoMatch, Waiting},
};

pub(super) async fn a_delivery_is_stored_once_and_survives_reopening(database: &impl Database) {
    let (store, closed) = database.open().await;
    let first = delivery("a", 1, JobState::Queued);
    assert_eq!(deliver(&store, first.clone()).await.unwrap(), StoreOutcome::Advanced);
    assert_eq!(deliver(&store, first.clone()).await.unwrap(), StoreOutcome::Duplicate);
    drop(store);
    closed.wait().await;

    let (store, _closed) = database.open().await;
    assert_eq!(deliver(&store, first.clone()).await.unwrap(), StoreOutcome::Duplicate);
    assert_eq!(store.open_jobs().await.unwrap(), [queued(first)]);
}

pub(super) async fn a_jobs_state_only_moves_forward_and_known_facts_stay(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let key = JobKey::new(1, 1);
    let steps = [
        ("a", JobState::Queued, StoreOutcome::Advanced),
        ("b", JobState::Completed, StoreOutcome::Advanced),
        ("c", JobState::InProgress, StoreOutcome::Stale),
        ("d", JobState::Queued, StoreOutcome::Stale),
    ];
    for (id, state, outcome) in steps {
        assert_eq!(deliver(&store, delivery(id, 1, state)).await.unwrap(), outcome, "{id}");
    }
    let record = store.job(key).await.unwrap().unwrap();
    assert_eq!(record.state, JobState::Completed);
    assert_eq!(record.job.labels, ["self-hosted"]);
    assert_eq!(record.job.delivery, "a");
    // No runner had it.
    assert_eq!((record.started_at, record.completed_at), (None, Some(1_000)));
    assert!(store.open_jobs().await.unwrap().is_empty());
}

pub(super) async fn where_the_code_of_a_job_comes_from_is_kept(database: &impl Database) {
    let (store, closed) = database.open().await;
    let key = JobKey::new(1, 1);
    let origin = async |store: &Store| {
        let Job { visibility, run_id, from_fork, .. } = store.job(key).await.unwrap().unwrap().job;
        (visibility, run_id, from_fork)
    };
    let named = |id, state, visibility, from_fork| {
        let mut delivery = delivery(id, 1, state);
        (delivery.job.visibility, delivery.job.from_fork) = (visibility, from_fork);
        delivery
    };
    use Visibility::{Internal, Private, Public, Unknown};
    deliver(&store, named("a", JobState::Queued, Unknown, None)).await.unwrap();
    assert_eq!(origin(&store).await, (Unknown, 9, None));
    let found = RunOrigin { visibility: Private, from_fork: true };
    store.save_origins(vec![(key, found)]).await.unwrap();
    assert_eq!(origin(&store).await, (Private, 9, Some(true)));
    // A later delivery says less, and another look-up too.
    deliver(&store, named("b", JobState::InProgress, Unknown, None)).await.unwrap();
    let found = RunOrigin { visibility: Unknown, from_fork: true };
    store.save_origins(vec![(key, found)]).await.unwrap();
    assert_eq!(origin(&store).await, (Private, 9, Some(true)));
    // It has become public since.
    deliver(&store, named("c", JobState::Completed, Public, Some(false))).await.unwrap();
    assert_eq!(origin(&store).await, (Public, 9, Some(true)));
    deliver(&store, delivery("d", 2, JobState::Queued)).await.unwrap();
    let mut listed = delivery("e", 3, JobState::Queued);
    (listed.job.visibility, listed.job.from_fork) = (Internal, Some(false));
    deliver(&store, listed.clone()).await.unwrap();
    drop(store);
    closed.wait().await;
    let (store, _closed) = database.open().await;
    assert_eq!(store.job(JobKey::new(3, 1)).await.unwrap().unwrap().job, listed.job);
}

pub(super) async fn a_job_whose_repository_was_renamed_is_shown_with_the_new_name(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    let named = |id, state, owner: &str, name: &str| {
        let mut delivery = delivery(id, 1, state);
        delivery.job.repository = format!("{owner}/{name}");
        delivery.job.organization = owner.into();
        delivery.details.html_url = format!("https://github.com/{owner}/{name}/actions/runs/1");
        delivery
    };
    deliver(&store, named("a", JobState::Queued, "acme", "app")).await.unwrap();
    deliver(&store, named("b", JobState::InProgress, "globex", "new")).await.unwrap();
    // One that is late has the old name.
    deliver(&store, named("c", JobState::Queued, "acme", "app")).await.unwrap();
    let record = store.job(JobKey::new(1, 1)).await.unwrap().unwrap();
    assert_eq!((&*record.job.repository, &*record.job.organization), ("globex/new", "globex"));
    assert_eq!(record.details.html_url, "https://github.com/globex/new/actions/runs/1");
}

pub(super) async fn a_job_has_a_start_only_if_a_runner_had_it(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let update = |id, runner: &str| JobUpdate {
        key: JobKey::new(id, 1),
        state: JobState::Completed,
        runner_name: runner.into(),
        conclusion: "cancelled".into(),
        found_at: 2_000,
    };
    let named =
        |id: &str, job, state| Delivery { runner_name: "r".into(), ..delivery(id, job, state) };
    for job in 1..=5 {
        deliver(&store, delivery(&job.to_string(), job, JobState::Queued)).await.unwrap();
    }
    deliver(&store, delivery("a", 1, JobState::Completed)).await.unwrap();
    deliver(&store, named("b", 2, JobState::Completed)).await.unwrap();
    deliver(&store, delivery("c", 3, JobState::InProgress)).await.unwrap();
    deliver(&store, delivery("d", 3, JobState::Completed)).await.unwrap();
    store.advance_job(update(4, "")).await.unwrap();
    store.advance_job(update(5, "r")).await.unwrap();
    for (id, started) in
        [(1, None), (2, Some(1_000)), (3, Some(1_000)), (4, None), (5, Some(2_000))]
    {
        let record = store.job(JobKey::new(id, 1)).await.unwrap().unwrap();
        assert_eq!(record.started_at, started, "{id}");
        assert!(record.completed_at.is_some());
    }
}

pub(super) async fn jobs_of_the_same_id_on_two_servers_are_two_jobs(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let keys = ["ghe.example.com", "github.com"].map(|it| JobKey::new(1, 1).on(Host::new(it)));
    for key in keys {
        for (id, state) in [("a", JobState::Queued), ("b", JobState::InProgress)] {
            let mut delivery = delivery(&format!("{id}-{}", key.host), 1, state);
            delivery.job.key = key;
            let stored = deliver(&store, delivery.clone()).await.unwrap();
            assert_eq!(stored, StoreOutcome::Advanced, "{delivery:?}");
            assert_eq!(deliver(&store, delivery).await.unwrap(), StoreOutcome::Duplicate);
        }
    }
    let [first, second] = keys;
    let update = JobUpdate {
        key: first,
        state: JobState::Completed,
        runner_name: String::new(),
        conclusion: "success".into(),
        found_at: 5_000,
    };
    store.advance_job(update).await.unwrap();
    let states = async |key| store.job(key).await.unwrap().map(|it| it.state);
    assert_eq!(states(first).await, Some(JobState::Completed));
    assert_eq!(states(second).await, Some(JobState::InProgress));
    assert_eq!(states(JobKey::new(1, 1)).await, None);
    assert_eq!(store.job_attempts(1).await.unwrap().len(), 2);
    // Each repository of the name is one to poll.
    assert_eq!(store.latest_jobs(0).await.unwrap().len(), 2);
    let delivered = store.recent_deliveries(9).await.unwrap();
    assert_eq!(delivered.len(), 4);
    assert!(delivered.iter().all(|it| !it.stale), "{delivered:?}");
}

pub(super) async fn an_update_moves_a_job_forward_and_never_back(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let key = JobKey::new(1, 1);
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let update = |state| JobUpdate {
        key,
        state,
        runner_name: "r".into(),
        conclusion: "success".into(),
        found_at: 2_000,
    };
    store.advance_job(update(JobState::Completed)).await.unwrap();
    store.advance_job(JobUpdate { found_at: 9, ..update(JobState::InProgress) }).await.unwrap();
    let record = store.job(key).await.unwrap().unwrap();
    assert_eq!((record.state, record.completed_at), (JobState::Completed, Some(2_000)));
    assert_eq!((record.runner_name.as_str(), record.conclusion.as_str()), ("r", "success"));
}

pub(super) async fn a_write_is_carried_out_even_if_its_caller_is_gone(database: &impl Database) {
    let (store, closed) = database.open().await;
    {
        let abandoned = pin!(deliver(&store, delivery("a", 1, JobState::Queued)));
        // One poll queues the write; then the future is dropped.
        let _ = abandoned.poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(store);
    closed.wait().await;
    let (store, _closed) = database.open().await;
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
}

pub(super) async fn the_reason_why_a_job_waits_is_kept_until_it_moves_forward(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    let waiting = async |job| {
        let found = store.job(JobKey::new(job, 1)).await.unwrap().unwrap();
        found.waiting.zip(found.waiting_message)
    };
    for job in [1, 2] {
        let id = format!("delivery-{job}");
        deliver(&store, delivery(&id, job, JobState::Queued)).await.unwrap();
    }
    let reason = Waiting::PoolMax { max: 5 };
    let reasons = [1, 2].map(|id| (JobKey::new(id, 1), reason.clone()));
    store.save_waiting(reasons.to_vec()).await.unwrap();
    let expected = Some(("pool_max".to_owned(), reason.to_string()));
    assert_eq!((waiting(1).await, waiting(2).await), (expected.clone(), expected));

    deliver(&store, delivery("delivery-3", 1, JobState::InProgress)).await.unwrap();
    let update = JobUpdate {
        key: JobKey::new(2, 1),
        state: JobState::Completed,
        runner_name: String::new(),
        conclusion: "gone".into(),
        found_at: 7,
    };
    store.advance_job(update).await.unwrap();
    // Planned before the job moved, written after it.
    store.save_waiting(reasons.to_vec()).await.unwrap();
    assert_eq!((waiting(1).await, waiting(2).await), (None, None));
}

pub(super) async fn stored_deliveries_and_jobs_show_where_to_look_for_more(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    for (id, at, repository) in [(1, 10, "acme/app"), (2, 30, "Acme/App"), (3, 20, "acme/lib")] {
        let mut next = delivery(&format!("delivery-{id}"), id, JobState::Queued);
        next.received_at = at;
        next.job.repository = repository.into();
        deliver(&store, next).await.unwrap();
    }
    let has = async |id: &str, since| store.has_delivery(id.into(), since).await.unwrap();
    assert!(has("delivery-1", 10).await);
    assert!(!has("delivery-1", 11).await && !has("delivery-4", 0).await);
    let latest = async |since| {
        let jobs = store.latest_jobs(since).await.unwrap();
        jobs.into_iter().map(|(job, at)| (job.repository, at)).collect::<Vec<_>>()
    };
    assert_eq!(latest(0).await, [("Acme/App".to_owned(), 30), ("acme/lib".to_owned(), 20)]);
    assert_eq!(latest(25).await, [("Acme/App".to_owned(), 30)]);
}

pub(super) async fn jobs_are_found_with_what_their_runners_did(database: &impl Database) {
    let (store, _closed) = database.open().await;
    for (id, job, state) in [
        ("a", 1, JobState::Queued),
        ("b", 2, JobState::Queued),
        ("c", 2, JobState::InProgress),
        ("d", 3, JobState::Completed),
    ] {
        let mut next = delivery(id, job, state);
        next.job.run_id = 8 + job % 2;
        if state != JobState::Queued {
            (next.runner_name, next.received_at) = ("r".into(), 5_000);
        }
        deliver(&store, next).await.unwrap();
    }
    store.save_runner(RunnerRecord { started_at: Some(6), ..runner("r") }).await.unwrap();
    // In a later phase.
    let node = Some("build-1".to_owned());
    store.save_runner(RunnerRecord { started_at: Some(7), node, ..runner("r") }).await.unwrap();
    let ids =
        |jobs: Vec<JobHistory>| jobs.iter().map(|it| it.record.job.key.id).collect::<Vec<_>>();
    for (state, expected) in
        [(JobState::Queued, 1), (JobState::InProgress, 2), (JobState::Completed, 3)]
    {
        assert_eq!(ids(store.jobs_in(state, 9).await.unwrap()), [expected]);
        assert!(store.jobs_in(state, 0).await.unwrap().is_empty());
    }
    assert_eq!(ids(store.jobs_of_run(9).await.unwrap()), [1, 3]);
    // Numbers that no database has are no error.
    assert!(store.jobs_of_run(u64::MAX).await.unwrap().is_empty());
    assert!(store.job_attempts(u64::MAX).await.unwrap().is_empty());
    let found = store.job_attempts(2).await.unwrap().remove(0);
    assert_eq!((found.pool.as_deref(), found.launched_at), (Some("default"), Some(5)));
    assert_eq!((found.node.as_deref(), found.container_at), (Some("build-1"), Some(6)));
    assert_eq!(store.job_attempts(1).await.unwrap()[0].launched_at, None);
    let waited = QueueTime { started_at: 5_000, waited_ms: 4_000 };
    assert_eq!(store.queue_times(0).await.unwrap(), [waited, waited]);
    assert!(store.queue_times(5_001).await.unwrap().is_empty());
}

pub(super) async fn the_latest_deliveries_show_whether_they_were_stale(database: &impl Database) {
    let (store, _closed) = database.open().await;
    let states = [("a", JobState::Queued), ("b", JobState::Completed), ("c", JobState::InProgress)];
    for (at, (id, state)) in states.into_iter().enumerate() {
        let received_at = at as u64;
        deliver(&store, Delivery { received_at, ..delivery(id, 1, state) }).await.unwrap();
    }
    let latest = store.recent_deliveries(2).await.unwrap();
    let latest: Vec<_> = latest.iter().map(|it| (it.id.as_str(), it.stale)).collect();
    assert_eq!(latest, [("c", true), ("b", false)]);
}

pub(super) async fn jobs_are_filtered_by_state_repository_pool_and_label(database: &impl Database) {
    let (store, _closed) = database.open().await;
    // Job 1 changes last, although it was stored first.
    for (at, (id, job, state, repository, runner_name)) in [
        ("a", 1, JobState::Queued, "Acme/App", ""),
        ("b", 2, JobState::Queued, "acme/app", ""),
        ("c", 3, JobState::InProgress, "acme/lib", "r"),
        ("d", 4, JobState::Queued, "acme/lib", ""),
        ("e", 1, JobState::Completed, "acme/app", "r"),
        ("f", 5, JobState::Queued, "acme/lib", ""),
    ]
    .into_iter()
    .enumerate()
    {
        let mut next = delivery(id, job, state);
        (next.received_at, next.job.queued_at) = (at as u64, at as u64);
        (next.job.repository, next.runner_name) = (repository.into(), runner_name.into());
        if job == 4 {
            next.job.labels.push("GPU, large".into());
        }
        deliver(&store, next).await.unwrap();
    }
    store.save_runner(runner("r")).await.unwrap();
    let labels = vec!["ubuntu-latest".to_owned()];
    let other = Waiting::NoPool(NoMatch::NotSelfHosted { labels });
    store.save_waiting(vec![(JobKey::new(2, 1), other)]).await.unwrap();
    let jobs = async |state, repository: Option<&str>, pool: Option<&str>, limit| {
        let (repository, pool) = (repository.map(str::to_owned), pool.map(str::to_owned));
        let filter = JobFilter { state, repository, pool, label: None };
        let found = store.jobs(filter, limit).await.unwrap();
        found.iter().map(|it| it.record.job.key.id).collect::<Vec<_>>()
    };
    assert_eq!(jobs(None, None, None, 9).await, [5, 1, 4, 3, 2]);
    assert_eq!(jobs(None, None, None, 2).await, [5, 1]);
    // That of other runners comes last, although it is the oldest.
    assert_eq!(jobs(Some(JobState::Queued), None, None, 9).await, [4, 5, 2]);
    assert_eq!(jobs(Some(JobState::InProgress), None, None, 9).await, [3]);
    assert_eq!(jobs(None, Some("ACME/app"), None, 9).await, [1, 2]);
    assert_eq!(jobs(None, None, Some("default"), 9).await, [1, 3]);
    assert_eq!(jobs(Some(JobState::Completed), Some("acme/app"), Some("default"), 9).await, [1]);
    assert!(jobs(None, None, Some("gpu"), 9).await.is_empty());
    for (label, state, expected) in [
        ("gpu, LARGE", None, &[4][..]),
        ("gpu, large", Some(JobState::Queued), &[4]),
        ("gpu, large", Some(JobState::Completed), &[]),
        ("gpu", None, &[]),
    ] {
        let filter = JobFilter { state, label: Some(label.into()), ..JobFilter::default() };
        let found = store.jobs(filter, 9).await.unwrap();
        let found: Vec<u64> = found.iter().map(|it| it.record.job.key.id).collect();
        assert_eq!(found, expected, "{label}");
    }
    let waiting = store.jobs_in(JobState::Queued, 9).await.unwrap();
    let waiting: Vec<u64> = waiting.iter().map(|it| it.record.job.key.id).collect();
    assert_eq!(waiting, [4, 5], "jobs of other runners do not wait");
}
