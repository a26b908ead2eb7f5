//! What only SQLite can do: shared commits, migrations, rejected files, backups.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use rusqlite::Connection;
use tempfile::TempDir;

use super::*;
use crate::store::{
    Closed, RunnerRecord, Store, StoreOutcome,
    tests::{deliver, delivery, queued, runner, webhook},
};
use edgerunner_scheduler::{
    model::{JobKey, JobState},
    plan::Waiting,
};

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edgerunner.db");
    (directory, path)
}

fn open(path: &Path) -> (Store, Closed) {
    Store::open(path, |_| {}).unwrap()
}

#[tokio::test]
async fn writes_of_concurrent_calls_share_commits() {
    let (_directory, path) = directory();
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&commits);
    let on_commit = move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let (store, _closed) = Store::open(&path, on_commit).unwrap();
    // A long transaction elsewhere blocks the writer, which has taken one write, until the
    // others are queued.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let first = tokio::spawn({
        let store = store.clone();
        async move { deliver(&store, delivery("0", 1_000, JobState::Queued)).await }
    });
    tokio::task::yield_now().await;
    while store.queue.len() > 0 {
        tokio::task::yield_now().await;
    }
    let calls: Vec<_> = (1..=500)
        .map(|job| {
            let store = store.clone();
            let delivery = delivery(&job.to_string(), job, JobState::Queued);
            tokio::spawn(async move { deliver(&store, delivery).await })
        })
        .collect();
    while store.queue.len() < 500 {
        tokio::task::yield_now().await;
    }
    let frames_before = fs::metadata(log(&path)).unwrap().len();
    other.execute_batch("COMMIT").unwrap();
    for call in [first].into_iter().chain(calls) {
        assert_eq!(call.await.unwrap().unwrap(), StoreOutcome::Advanced);
    }
    // Every commit writes each page that it touched, 4 KiB and a header, to the log:
    // alone, 500 of them would write several pages each.
    let written = fs::metadata(log(&path)).unwrap().len() - frames_before;
    assert!(written < 500 * 4096, "{written} bytes");
    assert_eq!(commits.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_database_of_an_earlier_version_is_upgraded() {
    let (_directory, path) = directory();
    let (store, closed) = open(&path);
    deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
    store.save_runner(runner("b")).await.unwrap();
    drop(store);
    closed.wait().await;
    // As the first version made it.
    let connection = Connection::open(&path).unwrap();
    connection
        .execute_batch(
            "ALTER TABLE jobs DROP COLUMN waiting;
             ALTER TABLE jobs DROP COLUMN waiting_message;
             DROP TABLE hooks;
             ALTER TABLE jobs DROP COLUMN created_ms;
             ALTER TABLE runners DROP COLUMN started_ms;
             DROP INDEX runners_failed;
             ALTER TABLE runners DROP COLUMN failed;
             DROP TABLE runner_logs;
             ALTER TABLE runners ADD COLUMN log TEXT;
             UPDATE runners SET log = 'it broke';
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let (store, _closed) = open(&path);
    let key = JobKey { id: 1, run_attempt: 1 };
    store.save_waiting(vec![(key, Waiting::Recovering)]).await.unwrap();
    let record = store.job(key).await.unwrap().unwrap();
    let found = (record.job.delivery.as_str(), record.waiting.as_deref());
    assert_eq!(found, ("delivery-1", Some("recovering")));
    let again = deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
    assert_eq!(again, StoreOutcome::Duplicate);
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
    store.save_webhook(webhook("orgs/acme/hooks/1", 5, 0)).await.unwrap();
    let b = store.runner("b".into()).await.unwrap().unwrap();
    assert_eq!((b.runner, b.log.as_deref()), (runner("b"), Some("it broke")));
    store.save_runner(RunnerRecord { failed: true, ..runner("a") }).await.unwrap();
    let present = store.present_runners().await.unwrap();
    assert!(present.iter().find(|it| it.name == "a").unwrap().failed);
}

#[tokio::test]
async fn an_unusable_database_is_rejected_and_left_unchanged() {
    let (_directory, path) = directory();

    fs::write(&path, b"this is no database, only some text that is long enough to be checked")
        .unwrap();
    assert_rejected(&path, "damaged");

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (id)").unwrap();
    assert_rejected(&path, "another program");

    fs::remove_file(&path).unwrap();
    let (store, closed) = open(&path);
    drop(store);
    closed.wait().await;
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(connection);
    assert_rejected(&path, "newer edgerunner");

    assert_rejected(&path.join("no/such/place"), "store");
}

/// Damage in the middle of a page is found too, not only a file that is no database.
#[tokio::test]
async fn a_damaged_page_is_found() {
    let (_directory, path) = directory();
    let (store, closed) = open(&path);
    for job in 1..200 {
        let id = format!("delivery-{job}");
        deliver(&store, delivery(&id, job, JobState::Queued)).await.unwrap();
    }
    drop(store);
    closed.wait().await;
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 2048].fill(0xff);
    fs::write(&path, bytes).unwrap();
    assert_rejected(&path, "damaged");
}

/// The log that a killed process left is not merged into a damaged database.
#[tokio::test]
async fn a_damaged_database_with_a_log_is_left_unchanged() {
    let (_directory, path) = directory();
    let (store, _closed) = open(&path);
    deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
    // The first page, as the tables were made, would hide the damage if it were in the log.
    let other = Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    deliver(&store, delivery("delivery-2", 2, JobState::Queued)).await.unwrap();
    assert!(fs::metadata(log(&path)).unwrap().len() > 0);
    let (_directory, copy) = directory();
    fs::copy(log(&path), log(&copy)).unwrap();
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..4096].fill(0xff);
    fs::write(&copy, bytes).unwrap();
    assert_rejected(&copy, "damaged");
}

fn assert_rejected(path: &Path, why: &str) {
    // An empty log is as good as none.
    let read = || (fs::read(path).ok(), fs::read(log(path)).unwrap_or_default());
    let before = read();
    let error = Store::open(path, |_| {}).err().expect("it opened").to_string();
    assert!(error.contains(why), "{error}");
    assert!(read() == before, "the files were changed");
}

fn log(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[tokio::test]
async fn a_backup_holds_everything_stored_and_leaves_the_store_alone() {
    let (directory, path) = directory();
    let (store, _closed) = open(&path);
    let first = delivery("a", 1, JobState::Queued);
    deliver(&store, first.clone()).await.unwrap();
    let copy = directory.path().join("copy.db");
    assert!(back_up(&path, &copy).unwrap() > 0);
    deliver(&store, delivery("b", 2, JobState::Queued)).await.unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 2);

    let (restored, _closed) = open(&copy);
    assert_eq!(restored.open_jobs().await.unwrap(), [queued(first)]);
    let error = back_up(&path, &copy).unwrap_err().to_string();
    assert!(error.contains("file already exists; choose another name"), "{error}");
}

#[test]
fn a_failed_backup_leaves_no_file() {
    let (directory, path) = directory();
    let copy = directory.path().join("copy.db");
    let error = back_up(&path, &copy).unwrap_err().to_string();
    assert!(error.contains("store.path"), "{error}");
    assert!(!copy.exists() && !path.exists());
    fs::write(&path, "no database at all, but long enough to be checked").unwrap();
    assert!(back_up(&path, &copy).is_err());
    assert!(!copy.exists());
}
