//! Copies from SQLite to Postgres.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{Database as _, Postgres, delivery, runner, webhook};
use crate::store::*;
use edgerunner_scheduler::model::{Host, JobKey, JobState};

/// A SQLite database with everything in it that there can be, closed.
async fn full() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edgerunner.db");
    let (store, closed) = Store::open(&path, Host::default(), |_| {}).unwrap();
    let states = [JobState::Queued, JobState::InProgress, JobState::Completed];
    let mut all = Vec::new();
    for job in 1..=300 {
        for state in &states[..=job as usize % 3] {
            let mut next = delivery(&format!("{job}-{}", state.as_str()), job, *state);
            next.received_at = 1_000 * job + *state as u64;
            next.job.key =
                next.job.key.on(Host::new(["github.com", "ghe.example.com"][job as usize % 2]));
            next.job.repository = format!("acme/app-{}", job % 7);
            next.job.labels = vec!["self-hosted".into(), "größe:\u{1f600}".into()];
            next.details.created_at = job.is_multiple_of(2).then_some(job);
            next.job.run_id = job / 4;
            next.job.from_fork = [None, Some(true), Some(false)][job as usize % 3];
            next.details.name = "a\0 name".into();
            if *state != JobState::Queued {
                next.runner_name = format!("runner-{job}");
            }
            all.push(next);
        }
    }
    // An id that is the largest there can be.
    all.push(delivery("last", i64::MAX as u64, JobState::Queued));
    store.deliver(all.into()).await.unwrap();
    let waiting = (JobKey::new(i64::MAX as u64, 1), Waiting::Recovering);
    store.save_waiting(vec![waiting]).await.unwrap();
    for job in 1..=300_u64 {
        let record = RunnerRecord {
            started_at: job.is_multiple_of(2).then_some(job),
            online_at: job.is_multiple_of(4).then_some(job),
            credential: job.is_multiple_of(2).then(|| "github".into()),
            registration_id: Some(job),
            job: Some(JobKey::new(job, 1).on(Host::new("github.com"))),
            host: Host::new("github.com"),
            why: job.is_multiple_of(5).then(|| "it failed".into()),
            failed: job.is_multiple_of(5),
            gone_at: job.is_multiple_of(3).then_some(job),
            end: job.is_multiple_of(5).then(|| "exited".into()),
            peak: Peak { memory_bytes: job.is_multiple_of(2).then_some(job), cpu_millis: Some(7) },
            node: job.is_multiple_of(7).then(|| "node".into()),
            ..runner(&format!("runner-{job}"))
        };
        store.save_runner(RunnerRecord { created_at: job, ..record }).await.unwrap();
    }
    store.save_runner_log("runner-5".into(), "its\0 log".into()).await.unwrap();
    store.save_draining(None, true).await.unwrap();
    store.save_draining(Some("gpu".into()), true).await.unwrap();
    let (engine, id, name) = ("e1".into(), "sha256:01".into(), "runner:1".into());
    store.save_image(ImageRecord { engine, id, name, pulled_at: 8 }).await.unwrap();
    store.save_webhook(webhook("orgs/acme/hooks/1", 7, 6)).await.unwrap();
    let (who, address) = ("ann".into(), "192.0.2.1".into());
    let (action, target, outcome) = ("drain".into(), "gpu".into(), "done".into());
    let change = AuditRecord { at: 9, who, address, action, target, outcome };
    store.save_audit(change).await.unwrap();
    drop(store);
    closed.wait().await;
    (directory, path)
}

/// The answers to everything that can be asked.
async fn reads(store: &Store) -> Vec<String> {
    let host = Host::new("github.com");
    let mut all = vec![
        format!("{:?}", store.open_jobs().await.unwrap()),
        format!("{:?}", store.latest_jobs(0).await.unwrap()),
        format!("{:?}", store.jobs(JobFilter::default(), 1_000).await.unwrap()),
        format!("{:?}", store.job_attempts(7).await.unwrap()),
        format!("{:?}", store.jobs_of_run(7).await.unwrap()),
        format!("{:?}", store.queue_times(0).await.unwrap()),
        format!("{:?}", store.has_delivery("9-queued".into(), 0).await.unwrap()),
        format!("{:?}", store.recent_deliveries(1_000).await.unwrap()),
        format!("{:?}", store.deliveries_of(JobKey::new(8, 1).on(host)).await.unwrap()),
        format!("{:?}", store.runner("runner-5".into()).await.unwrap()),
        format!("{:?}", store.present_runners().await.unwrap()),
        format!("{:?}", store.recent_runners(1_000).await.unwrap()),
        format!("{:?}", store.failed_runners(1_000).await.unwrap()),
        format!("{:?}", store.draining().await.unwrap()),
        format!("{:?}", store.images().await.unwrap()),
        format!("{:?}", store.audit(1_000).await.unwrap()),
        format!("{:?}", store.webhooks().await.unwrap()),
    ];
    for state in [JobState::Queued, JobState::InProgress, JobState::Completed] {
        all.push(format!("{:?}", store.jobs_in(state, 1_000).await.unwrap()));
    }
    // What Postgres cannot store.
    all.iter().map(|text| text.replace("\\0", "")).collect()
}

#[tokio::test]
async fn a_copy_has_everything_and_the_original_stays_as_it_was() {
    let (_directory, path) = full().await;
    let before = fs::read(&path).unwrap();
    let target = Postgres::new();
    let copied = copy(&path, &target.0).await.unwrap();
    let expected = [
        ("deliveries", 601),
        ("jobs", 301),
        ("runners", 300),
        ("runner_logs", 1),
        ("draining", 2),
        ("images", 1),
        ("audit", 1),
        ("hooks", 1),
    ];
    assert_eq!(copied, expected);
    assert!(fs::read(&path).unwrap() == before, "the original was changed");
    let (sqlite, _closed) = Store::open(&path, Host::default(), |_| {}).unwrap();
    let (postgres, _closed) = target.open().await;
    let (original, copy) = (reads(&sqlite).await, reads(&postgres).await);
    for (original, copy) in original.iter().zip(&copy) {
        assert_eq!(original, copy);
    }
    // A job goes on where it was.
    let mut next = delivery("3-in_progress", 3, JobState::InProgress);
    next.job.key = next.job.key.on(Host::new("ghe.example.com"));
    let outcomes = postgres.deliver([next].into()).await.unwrap();
    assert_eq!(outcomes, [StoreOutcome::Advanced]);
}

#[tokio::test]
async fn nothing_is_copied_into_a_database_that_is_not_empty_or_in_use() {
    let (_directory, path) = full().await;
    let target = Postgres::new();
    let (store, _closed) = target.open().await;
    let server = edgerunner_testkit::Postgres::shared();
    let refused = async || copy(&path, &target.0).await.unwrap_err().to_string();

    let database = target.0.url.hosts[0].get_dbname().unwrap();
    let seen = "INSERT INTO edgerunner.sidecars VALUES ('a', 'host', '1', now(), now(), '{}')";
    server.sql(database, seen).unwrap();
    assert!(refused().await.contains("a sidecar uses this database"), "{}", refused().await);
    server.sql(database, "DELETE FROM edgerunner.sidecars").unwrap();

    store.save_draining(None, true).await.unwrap();
    assert!(refused().await.contains("there are records"), "{}", refused().await);
    assert!(store.open_jobs().await.unwrap().is_empty());
    store.save_draining(None, false).await.unwrap();
    assert_eq!(copy(&path, &target.0).await.unwrap().len(), 8);
}

#[tokio::test]
async fn a_database_that_cannot_be_copied_is_refused() {
    let target = Postgres::new();
    let refused = async |path: &Path| copy(path, &target.0).await.unwrap_err();
    let missing = Path::new("/no/such/edgerunner.db");
    assert!(refused(missing).await.to_string().contains("no such file"));

    let (_directory, path) = full().await;
    let (store, closed) = Store::open(&path, Host::default(), |_| {}).unwrap();
    let error = refused(&path).await;
    assert!(error.is_in_use(), "{error}");
    drop(store);
    closed.wait().await;

    let connection = rusqlite::Connection::open(&path).unwrap();
    let schema = |row: &rusqlite::Row<'_>| row.get(0);
    let current: i64 = connection.query_row("PRAGMA user_version", [], schema).unwrap();
    connection.pragma_update(None, "user_version", current - 1).unwrap();
    drop(connection);
    let error = refused(&path).await.to_string();
    assert!(error.contains("run `edgerunner serve` of this version"), "{error}");

    // Of a failed copy nothing is left.
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", current).unwrap();
    connection.execute("UPDATE jobs SET state = 100000 WHERE id = 9", []).unwrap();
    drop(connection);
    let error = refused(&path).await.to_string();
    assert!(error.contains("nothing was changed"), "{error}");
    let (postgres, _closed) = target.open().await;
    assert!(postgres.recent_deliveries(9).await.unwrap().is_empty());
}
