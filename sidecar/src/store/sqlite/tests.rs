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
    Closed, JobFilter, Peak, RunnerRecord, Store, StoreOutcome,
    tests::{deliver, delivery, queued, runner, webhook},
};
use edgerunner_scheduler::{
    model::{Host, JobKey, JobState, Visibility},
    plan::Waiting,
};

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edgerunner.db");
    (directory, path)
}

fn open(path: &Path) -> (Store, Closed) {
    Store::open(path, Host::default(), |_| {}).unwrap()
}

#[tokio::test]
async fn writes_of_concurrent_calls_share_commits() {
    let (_directory, path) = directory();
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&commits);
    let on_commit = move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let (store, _closed) = Store::open(&path, Host::default(), on_commit).unwrap();
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

/// A database as the version with this schema made it, to be filled by `insert`.
fn database_of_version(version: usize, path: &Path, insert: &str) {
    let connection = Connection::open(path).unwrap();
    for migration in &migrations::MIGRATIONS[..version] {
        connection.execute_batch(migration).unwrap();
    }
    connection.execute_batch(insert).unwrap();
    connection.pragma_update(None, "application_id", 0x6564_6765).unwrap();
    connection.pragma_update(None, "user_version", version).unwrap();
}

/// A job that says on which server it is, one that does not, and runners that took the first, no
/// job, and none any more.
const OLD_ROWS: &str = "
INSERT INTO jobs (id, run_attempt, state, run_id, repository, organization, enterprise, name,
    workflow_name, head_branch, html_url, labels, conclusion, runner_name, delivery, queued_ms,
    changed_ms)
VALUES (1, 1, 0, 9, 'acme/app', 'acme', '', 'build', 'CI', 'main', '', '[\"linux\"]', '', '',
    'delivery-1', 1000, 1000),
    (2, 1, 1, 9, 'acme/app', 'acme', '', 'test', 'CI', 'main',
    'https://GHE.example.com:8443/acme/app/actions/runs/9/job/2', '[]', '', 'b', 'delivery-2',
    1000, 1000);
INSERT INTO deliveries (id, received_ms, hook, hook_id, hook_target_type, hook_target_id, state,
    job_id, run_attempt)
VALUES ('delivery-1', 1000, '', 1, 'repository', 2, 0, 1, 1),
    ('delivery-2', 1000, '', 1, 'repository', 2, 1, 2, 1);
INSERT INTO runners (name, pool, target, phase, created_ms, job_id, job_run_attempt, gone_ms)
VALUES ('a', 'default', 'repo:acme/app', 'provisioning', 5, NULL, NULL, NULL),
    ('b', 'default', 'repo:acme/app', 'busy', 5, 2, 1, NULL),
    ('c', 'default', 'repo:acme/app', 'gone', 5, NULL, NULL, 6);
";

fn keys() -> [JobKey; 2] {
    let (default, named) = (Host::new("github.com"), Host::new("ghe.example.com:8443"));
    [JobKey::new(1, 1).on(default), JobKey::new(2, 1).on(named)]
}

#[tokio::test]
async fn a_database_of_the_first_version_is_upgraded() {
    let (_directory, path) = directory();
    database_of_version(1, &path, OLD_ROWS);
    let connection = Connection::open(&path).unwrap();
    connection.execute("UPDATE runners SET log = 'it broke' WHERE name = 'b'", []).unwrap();
    drop(connection);
    let (store, _closed) = Store::open(&path, Host::new("github.com"), |_| {}).unwrap();
    let [key, _] = keys();
    store.save_waiting(vec![(key, Waiting::Recovering)]).await.unwrap();
    let record = store.job(key).await.unwrap().unwrap();
    let found = (record.job.delivery.as_str(), record.waiting.as_deref());
    assert_eq!(found, ("delivery-1", Some("recovering")));
    // It counts as public until GitHub reports more.
    assert_eq!((record.job.visibility, record.job.from_fork), (Visibility::Unknown, None));
    let c = store.runner("c".into()).await.unwrap().unwrap().runner;
    assert_eq!((c.end, c.peak), (None, Peak::default()));
    let again = deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
    assert_eq!(again, StoreOutcome::Duplicate);
    store.save_webhook(webhook("orgs/acme/hooks/1", 5, 0)).await.unwrap();
    assert_eq!(store.runner("b".into()).await.unwrap().unwrap().log.as_deref(), Some("it broke"));
    store.save_runner(RunnerRecord { failed: true, ..runner("a") }).await.unwrap();
    let present = store.present_runners().await.unwrap();
    assert!(present.iter().find(|it| it.name == "a").unwrap().failed);
}

#[tokio::test]
async fn rows_without_a_host_get_that_of_their_page_or_of_the_default_server() {
    let (_directory, path) = directory();
    let hooks = "INSERT INTO hooks VALUES ('orgs/acme/hooks/1', 0, 5, 4);";
    database_of_version(7, &path, &format!("{OLD_ROWS}{hooks}"));
    let (store, _closed) = Store::open(&path, Host::new("github.com"), |_| {}).unwrap();
    let open: Vec<_> = store.open_jobs().await.unwrap().iter().map(|it| it.job.key).collect();
    assert_eq!(open, keys());
    let delivered = store.recent_deliveries(9).await.unwrap();
    assert_eq!(delivered.iter().map(|it| it.key).collect::<Vec<_>>(), keys());
    let mut runners = Vec::new();
    for name in ["a", "b", "c"] {
        runners.push(store.runner(name.into()).await.unwrap().unwrap().runner.host);
    }
    // Where a runner without a job was registered is for `restore` to find out.
    assert_eq!(runners, [Host::default(), keys()[1].host, keys()[0].host]);
    assert_eq!(store.webhooks().await.unwrap(), [webhook("orgs/acme/hooks/1", 5, 4)]);
    // An event about an old job moves the old row forward.
    let [key, _] = keys();
    let mut started = delivery("delivery-3", 1, JobState::InProgress);
    started.job.key = key;
    assert_eq!(deliver(&store, started).await.unwrap(), StoreOutcome::Advanced);
    assert_eq!(store.open_jobs().await.unwrap().len(), 2);
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
    damage_the_middle(&path);
    assert_rejected(&path, "damaged");
}

/// The search of a large database may end after it was opened.
#[tokio::test]
async fn damage_that_is_found_later_is_reported() {
    let (_directory, path) = directory();
    let (store, _closed) = open(&path);
    store.searched().await.unwrap();
    for job in 1..200 {
        let id = format!("delivery-{job}");
        deliver(&store, delivery(&id, job, JobState::Queued)).await.unwrap();
    }
    let other = Connection::open(&path).unwrap();
    other.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    drop(other);
    damage_the_middle(&path);
    let error = Search::start(&path).unwrap().ended().await.unwrap_err().to_string();
    assert!(error.contains("damaged"), "{error}");
}

fn damage_the_middle(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 2048].fill(0xff);
    fs::write(path, bytes).unwrap();
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

#[tokio::test]
async fn the_log_shrinks_once_a_reader_that_made_it_grow_is_gone() {
    let (_directory, path) = directory();
    let (store, _closed) = open(&path);
    let size = || fs::metadata(log(&path)).unwrap().len();
    let mut job = 0;
    let mut write_until = async |reached: &dyn Fn(u64) -> bool| {
        while !reached(size()) {
            job += 1;
            assert!(job < 100, "{} bytes", size());
            let mut delivery = delivery(&job.to_string(), job, JobState::Queued);
            delivery.details.name = "n".repeat(1_000_000);
            deliver(&store, delivery).await.unwrap();
        }
    };
    let reader = Connection::open(&path).unwrap();
    reader.execute_batch("BEGIN; SELECT * FROM jobs;").unwrap();
    write_until(&|size| size > 2 * schema::LOG_BYTES_MAX).await;
    drop(reader);
    write_until(&|size| size <= schema::LOG_BYTES_MAX).await;
}

#[tokio::test]
async fn pruning_lets_other_writes_through() {
    let (_directory, path) = directory();
    let commits = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&commits);
    let on_commit = move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    };
    let (store, _closed) = Store::open(&path, Host::default(), on_commit).unwrap();
    let all: Vec<_> =
        (1..=2_000).map(|job| delivery(&job.to_string(), job, JobState::Completed)).collect();
    store.deliver(all.into()).await.unwrap();
    let before = commits.load(Ordering::Relaxed);
    store.prune(40 * 86_400_000).await.unwrap();
    assert!(commits.load(Ordering::Relaxed) - before >= 8);
    assert!(store.jobs(JobFilter::default(), 10).await.unwrap().is_empty());
    assert!(store.recent_deliveries(10).await.unwrap().is_empty());
}

/// What runs at every start, every sweep and every hour is not to read all that is kept.
#[tokio::test]
async fn frequent_queries_use_an_index() {
    let (_directory, path) = directory();
    drop(open(&path));
    let connection = Connection::open(&path).unwrap();
    for (query, index) in [
        ("SELECT * FROM runners WHERE gone_ms IS NULL ORDER BY created_ms", "runners_present"),
        ("SELECT name FROM runners WHERE gone_ms < 5 ORDER BY gone_ms LIMIT 9", "runners_gone"),
        ("SELECT * FROM jobs WHERE state < 2 ORDER BY queued_ms, id", "jobs_open"),
        (
            "SELECT rowid FROM jobs WHERE state = 2 AND changed_ms < 5 ORDER BY changed_ms LIMIT 9",
            "jobs_by_change",
        ),
    ] {
        let plan: String = connection
            .query_row(&format!("EXPLAIN QUERY PLAN {query}"), [], |row| row.get("detail"))
            .unwrap();
        assert!(plan.contains(index), "{query}: {plan}");
    }
}

#[tokio::test]
async fn a_database_that_is_in_use_is_not_opened_again() {
    let (_directory, path) = directory();
    let (store, closed) = open(&path);
    let refused = Store::open(&path, Host::default(), |_| {}).err().expect("it opened");
    assert!(refused.is_in_use(), "{refused}");
    drop(store);
    closed.wait().await;
    open(&path);
}

fn assert_rejected(path: &Path, why: &str) {
    // An empty log is as good as none.
    let read = || (fs::read(path).ok(), fs::read(log(path)).unwrap_or_default());
    let before = read();
    let error = Store::open(path, Host::default(), |_| {}).err().expect("it opened").to_string();
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
