use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("edgerunner.db");
    (directory, path)
}

fn delivery(id: &str, job: u64, state: JobState) -> Delivery {
    Delivery {
        hook: String::new(),
        hook_id: 1,
        hook_target_type: "repository".into(),
        hook_target_id: 2,
        received_at: 1_000,
        job: JobRecord {
            key: JobKey { id: job, run_attempt: 1 },
            state,
            run_id: 9,
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            name: "build".into(),
            workflow_name: "CI".into(),
            head_branch: "main".into(),
            html_url: String::new(),
            labels: match state {
                JobState::Completed => Vec::new(),
                _ => vec!["self-hosted".into()],
            },
            conclusion: String::new(),
            runner_name: String::new(),
            delivery: id.into(),
            created_at: None,
            queued_at: 1_000,
            started_at: None,
            completed_at: None,
            waiting: None,
            waiting_message: None,
        },
    }
}

async fn deliver(store: &Store, delivery: Delivery) -> Result<Stored, Error> {
    store.deliver([delivery].into()).await.map(|stored| stored[0])
}

fn runner(name: &str) -> RunnerRecord {
    RunnerRecord {
        name: name.into(),
        pool: "default".into(),
        target: "repo:acme/app".into(),
        phase: "provisioning".into(),
        created_at: 5,
        started_at: None,
        registration_id: None,
        job: None,
        why: None,
        failed: false,
        log: None,
        gone_at: None,
    }
}

#[tokio::test]
async fn a_delivery_is_stored_once_and_is_there_after_reopening() {
    let (_directory, path) = directory();
    let (store, closed) = Store::open(&path).unwrap();
    let queued = delivery("a", 1, JobState::Queued);
    assert_eq!(deliver(&store, queued.clone()).await.unwrap(), Stored::Advanced);
    assert_eq!(deliver(&store, queued.clone()).await.unwrap(), Stored::Duplicate);
    drop(store);
    closed.wait().await;

    let (store, _closed) = Store::open(&path).unwrap();
    assert_eq!(deliver(&store, queued.clone()).await.unwrap(), Stored::Duplicate);
    assert_eq!(store.open_jobs().await.unwrap(), [queued.job]);
}

#[tokio::test]
async fn a_jobs_state_only_moves_forward_and_keeps_what_was_known() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let key = JobKey { id: 1, run_attempt: 1 };
    let steps = [
        ("a", JobState::Queued, Stored::Advanced),
        ("b", JobState::Completed, Stored::Advanced),
        ("c", JobState::InProgress, Stored::Stale),
        ("d", JobState::Queued, Stored::Stale),
    ];
    for (id, state, outcome) in steps {
        assert_eq!(deliver(&store, delivery(id, 1, state)).await.unwrap(), outcome, "{id}");
    }
    let job = store.job(key).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Completed);
    assert_eq!(job.labels, ["self-hosted"]);
    assert_eq!(job.delivery, "a");
    assert!(store.open_jobs().await.unwrap().is_empty());
}

#[tokio::test]
async fn news_move_a_job_forward_and_never_back() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let key = JobKey { id: 1, run_attempt: 1 };
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let news = |state| JobNews {
        key,
        state,
        runner_name: "r".into(),
        conclusion: "success".into(),
        at: 2_000,
    };
    store.advance_job(news(JobState::Completed)).await.unwrap();
    store.advance_job(JobNews { at: 9, ..news(JobState::InProgress) }).await.unwrap();
    let job = store.job(key).await.unwrap().unwrap();
    assert_eq!((job.state, job.completed_at), (JobState::Completed, Some(2_000)));
    assert_eq!((job.runner_name.as_str(), job.conclusion.as_str()), ("r", "success"));
}

#[tokio::test]
async fn a_write_is_carried_out_although_its_caller_went_away() {
    let (_directory, path) = directory();
    let (store, closed) = Store::open(&path).unwrap();
    {
        let abandoned = deliver(&store, delivery("a", 1, JobState::Queued));
        tokio::pin!(abandoned);
        // Polled once, it has handed its write over; then it is dropped.
        std::future::poll_fn(|context| {
            let _ = abandoned.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    drop(store);
    closed.wait().await;
    let (store, _closed) = Store::open(&path).unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
}

#[tokio::test]
async fn writes_of_concurrent_calls_share_commits() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    // A long transaction elsewhere holds the writer up, with one write in its hand, until
    // the others have queued.
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let waiting = || WAITING_WRITES_MAX - store.writes.capacity();
    let first = tokio::spawn({
        let store = store.clone();
        async move { deliver(&store, delivery("0", 1_000, JobState::Queued)).await }
    });
    tokio::task::yield_now().await;
    while waiting() > 0 {
        tokio::task::yield_now().await;
    }
    let calls: Vec<_> = (1..=500)
        .map(|job| {
            let store = store.clone();
            let delivery = delivery(&job.to_string(), job, JobState::Queued);
            tokio::spawn(async move { deliver(&store, delivery).await })
        })
        .collect();
    while waiting() < 500 {
        tokio::task::yield_now().await;
    }
    let frames_before = fs::metadata(path.with_extension("db-wal")).unwrap().len();
    other.execute_batch("COMMIT").unwrap();
    for call in [first].into_iter().chain(calls) {
        assert_eq!(call.await.unwrap().unwrap(), Stored::Advanced);
    }
    // Every commit writes each page that it touched, 4 KiB and a header, to the log:
    // alone, 500 of them would write several pages each.
    let written = fs::metadata(path.with_extension("db-wal")).unwrap().len() - frames_before;
    assert!(written < 500 * 4096, "{written} bytes");
}

#[tokio::test]
async fn a_runner_keeps_what_a_later_record_leaves_out() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let registered = RunnerRecord { registration_id: Some(7), ..runner("a") };
    store.save_runner(registered).await.unwrap();
    store.save_runner(runner("a")).await.unwrap();
    store.save_runner_log("a".into(), "it broke".into()).await.unwrap();
    let gone = RunnerRecord { phase: "gone".into(), gone_at: Some(9), ..runner("a") };
    store.save_runner(runner("b")).await.unwrap();
    assert_eq!(store.present_runners().await.unwrap().len(), 2);
    store.save_runner(gone).await.unwrap();
    assert_eq!(store.present_runners().await.unwrap(), [runner("b")]);
    let recent = store.recent_runners(10).await.unwrap();
    let a = recent.iter().find(|runner| runner.name == "a").unwrap();
    assert_eq!((a.registration_id, a.log.as_deref()), (Some(7), Some("it broke")));
}

#[tokio::test]
async fn why_a_job_waits_is_kept_until_it_moves_forward() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let waiting = async |job| {
        let found = store.job(JobKey { id: job, run_attempt: 1 }).await.unwrap().unwrap();
        found.waiting.zip(found.waiting_message)
    };
    for job in [1, 2] {
        let id = format!("delivery-{job}");
        deliver(&store, delivery(&id, job, JobState::Queued)).await.unwrap();
    }
    let reasons = [1, 2].map(|id| (JobKey { id, run_attempt: 1 }, Waiting::PoolMax { max: 5 }));
    store.save_waiting(reasons.to_vec()).await.unwrap();
    let expected = Some(("pool_max".to_owned(), "the pool is at its max of 5".to_owned()));
    assert_eq!((waiting(1).await, waiting(2).await), (expected.clone(), expected));

    deliver(&store, delivery("delivery-3", 1, JobState::InProgress)).await.unwrap();
    let news = JobNews {
        key: JobKey { id: 2, run_attempt: 1 },
        state: JobState::Completed,
        runner_name: String::new(),
        conclusion: "gone".into(),
        at: 7,
    };
    store.advance_job(news).await.unwrap();
    // Planned before the job moved, written after it.
    store.save_waiting(reasons.to_vec()).await.unwrap();
    assert_eq!((waiting(1).await, waiting(2).await), (None, None));
}

#[tokio::test]
async fn a_database_of_an_earlier_version_is_brought_forward() {
    let (_directory, path) = directory();
    let (store, closed) = Store::open(&path).unwrap();
    deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
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
             PRAGMA user_version = 1;",
        )
        .unwrap();
    drop(connection);
    let (store, _closed) = Store::open(&path).unwrap();
    let key = JobKey { id: 1, run_attempt: 1 };
    store.save_waiting(vec![(key, Waiting::Recovering)]).await.unwrap();
    let job = store.job(key).await.unwrap().unwrap();
    assert_eq!((job.delivery.as_str(), job.waiting.as_deref()), ("delivery-1", Some("recovering")));
    let again = deliver(&store, delivery("delivery-1", 1, JobState::Queued)).await.unwrap();
    assert_eq!(again, Stored::Duplicate);
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
    store.save_hook(hook("orgs/acme/hooks/1", 5, 0)).await.unwrap();
    store.save_runner(RunnerRecord { failed: true, ..runner("a") }).await.unwrap();
    assert!(store.present_runners().await.unwrap()[0].failed);
}

fn hook(hook: &str, seen_at: UnixMs, settled_until: UnixMs) -> WebhookRecord {
    WebhookRecord { hook: hook.into(), app_id: 0, seen_at, settled_until }
}

#[tokio::test]
async fn what_is_known_of_a_hook_is_not_taken_back() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    for (seen_at, settled_until) in [(5, 0), (6, 4), (7, 0), (1, 2)] {
        store.save_hook(hook("orgs/acme/hooks/1", seen_at, settled_until)).await.unwrap();
    }
    let app = |app_id| WebhookRecord { app_id, ..hook("app/hook", 1, 0) };
    store.save_hook(app(1)).await.unwrap();
    store.save_hook(app(2)).await.unwrap();
    let known = [app(1), app(2), hook("orgs/acme/hooks/1", 7, 4)];
    assert_eq!(store.hooks().await.unwrap(), known);
    store.prune(5 + 30 * 24 * 3_600_000).await.unwrap();
    assert_eq!(store.hooks().await.unwrap(), known[2..]);
}

#[tokio::test]
async fn what_was_stored_tells_where_to_look_for_more() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    for (id, at, repository) in [(1, 10, "acme/app"), (2, 30, "Acme/App"), (3, 20, "acme/lib")] {
        let mut told = delivery(&format!("delivery-{id}"), id, JobState::Queued);
        told.received_at = at;
        told.job.repository = repository.into();
        deliver(&store, told).await.unwrap();
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

#[tokio::test]
async fn pruning_drops_what_is_old_and_over_and_nothing_else() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    deliver(&store, delivery("b", 2, JobState::Completed)).await.unwrap();
    store.save_runner(RunnerRecord { gone_at: Some(9), ..runner("gone") }).await.unwrap();
    store.save_runner(runner("here")).await.unwrap();
    let days = 86_400_000;
    store.prune(8 * days).await.unwrap();
    assert_eq!(store.recent_jobs(10).await.unwrap().len(), 2);
    // Its delivery is forgotten, the job is not: what comes again is no news.
    let again = deliver(&store, delivery("b", 2, JobState::Completed)).await.unwrap();
    assert_eq!(again, Stored::Stale);
    store.prune(40 * days).await.unwrap();
    let left: Vec<u64> =
        store.recent_jobs(10).await.unwrap().iter().map(|job| job.key.id).collect();
    assert_eq!(left, [1]);
    assert_eq!(store.recent_runners(10).await.unwrap(), [runner("here")]);
}

#[tokio::test]
async fn what_drains_is_kept_until_it_is_resumed() {
    let (_directory, path) = directory();
    let (store, closed) = Store::open(&path).unwrap();
    let gpu = || Some("gpu".to_owned());
    for (pool, draining) in [(gpu(), true), (gpu(), true), (None, true)] {
        store.save_draining(pool, draining).await.unwrap();
    }
    drop(store);
    closed.wait().await;
    let (store, _closed) = Store::open(&path).unwrap();
    assert_eq!(store.draining().await.unwrap(), [None, gpu()]);
    store.save_draining(gpu(), false).await.unwrap();
    assert_eq!(store.draining().await.unwrap(), [None]);
    store.save_draining(gpu(), true).await.unwrap();
    store.save_draining(None, false).await.unwrap();
    assert_eq!(store.draining().await.unwrap(), []);
}

#[tokio::test]
async fn a_store_that_cannot_be_used_is_refused_and_left_as_it_is() {
    let (_directory, path) = directory();

    fs::write(&path, b"this is no database, only some text that is long enough to look at")
        .unwrap();
    refused(&path, "damaged");

    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (id)").unwrap();
    refused(&path, "another program");

    fs::remove_file(&path).unwrap();
    let (store, closed) = Store::open(&path).unwrap();
    drop(store);
    closed.wait().await;
    let connection = Connection::open(&path).unwrap();
    connection.pragma_update(None, "user_version", 99).unwrap();
    connection.pragma_update(None, "journal_mode", "DELETE").unwrap();
    drop(connection);
    refused(&path, "newer edgerunner");

    refused(&path.join("no/such/place"), "store");
}

/// Damage in the middle of a page is found as well, not only a file that is no database.
#[tokio::test]
async fn a_damaged_page_is_found() {
    let (_directory, path) = directory();
    let (store, closed) = Store::open(&path).unwrap();
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
    refused(&path, "damaged");
}

/// What a killed process left in its log is not worked into a damaged database.
#[tokio::test]
async fn a_damaged_database_with_a_log_is_left_as_it_is() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
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
    refused(&copy, "damaged");
}

fn refused(path: &Path, why: &str) {
    // A log without content is as good as none.
    let read = || (fs::read(path).ok(), fs::read(log(path)).unwrap_or_default());
    let before = read();
    let error = Store::open(path).err().expect("it opened").to_string();
    assert!(error.contains(why), "{error}");
    assert!(read() == before, "the files were changed");
}

fn log(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

#[tokio::test]
async fn jobs_are_found_with_what_their_runners_did() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    for (id, job, state) in [
        ("a", 1, JobState::Queued),
        ("b", 2, JobState::Queued),
        ("c", 2, JobState::InProgress),
        ("d", 3, JobState::Completed),
    ] {
        let mut told = delivery(id, job, state);
        told.job.run_id = 8 + job % 2;
        if state != JobState::Queued {
            (told.job.runner_name, told.job.started_at) = ("r".into(), Some(5_000));
        }
        deliver(&store, told).await.unwrap();
    }
    store.save_runner(RunnerRecord { started_at: Some(6), ..runner("r") }).await.unwrap();
    // In a later phase.
    store.save_runner(RunnerRecord { started_at: Some(7), ..runner("r") }).await.unwrap();
    let ids = |jobs: Vec<JobHistory>| jobs.iter().map(|it| it.job.key.id).collect::<Vec<_>>();
    for (state, expected) in
        [(JobState::Queued, 1), (JobState::InProgress, 2), (JobState::Completed, 3)]
    {
        assert_eq!(ids(store.jobs_in(state, 9).await.unwrap()), [expected]);
        assert!(store.jobs_in(state, 0).await.unwrap().is_empty());
    }
    assert_eq!(ids(store.jobs_of_run(9).await.unwrap()), [1, 3]);
    let found = store.job_attempts(2).await.unwrap().remove(0);
    assert_eq!((found.pool.as_deref(), found.launched_at), (Some("default"), Some(5)));
    assert_eq!(found.container_at, Some(6));
    assert_eq!(store.job_attempts(1).await.unwrap()[0].launched_at, None);
    let mut waits = store.waits(0).await.unwrap();
    waits.sort_unstable();
    assert_eq!(waits, [(5_000, 4_000), (5_000, 4_000)]);
    assert!(store.waits(5_001).await.unwrap().is_empty());
}

#[tokio::test]
async fn failed_runners_stay_to_be_looked_at() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    store.save_runner(runner("well")).await.unwrap();
    store.save_runner(RunnerRecord { failed: true, ..runner("ill") }).await.unwrap();
    store.save_runner_log("ill".into(), "it broke".into()).await.unwrap();
    let failed = store.failed_runners(9).await.unwrap();
    assert_eq!(failed, [RunnerRecord { failed: true, ..runner("ill") }]);
    let ill = store.runner("ill".into()).await.unwrap().unwrap();
    assert_eq!(ill.log.as_deref(), Some("it broke"));
    assert_eq!(store.runner("nobody".into()).await.unwrap(), None);
}

#[tokio::test]
async fn the_latest_deliveries_tell_whether_they_were_news() {
    let (_directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let told = [("a", JobState::Queued), ("b", JobState::Completed), ("c", JobState::InProgress)];
    for (at, (id, state)) in told.into_iter().enumerate() {
        let received_at = at as u64;
        deliver(&store, Delivery { received_at, ..delivery(id, 1, state) }).await.unwrap();
    }
    let latest = store.recent_deliveries(2).await.unwrap();
    let latest: Vec<_> = latest.iter().map(|it| (it.id.as_str(), it.stale)).collect();
    assert_eq!(latest, [("c", true), ("b", false)]);
}

#[tokio::test]
async fn a_backup_holds_all_that_was_stored_and_leaves_the_store_alone() {
    let (directory, path) = directory();
    let (store, _closed) = Store::open(&path).unwrap();
    let queued = delivery("a", 1, JobState::Queued);
    deliver(&store, queued.clone()).await.unwrap();
    let copy = directory.path().join("copy.db");
    assert!(back_up(&path, &copy).unwrap() > 0);
    deliver(&store, delivery("b", 2, JobState::Queued)).await.unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 2);

    let (restored, _closed) = Store::open(&copy).unwrap();
    assert_eq!(restored.open_jobs().await.unwrap(), [queued.job]);
    let error = back_up(&path, &copy).unwrap_err().to_string();
    assert!(error.contains("name a file that is not"), "{error}");
}

#[test]
fn a_backup_of_nothing_makes_no_file() {
    let (directory, path) = directory();
    let copy = directory.path().join("copy.db");
    let error = back_up(&path, &copy).unwrap_err().to_string();
    assert!(error.contains("store.path"), "{error}");
    assert!(!copy.exists() && !path.exists());
    fs::write(&path, "no database at all, but long enough to be looked at").unwrap();
    assert!(back_up(&path, &copy).is_err());
    assert!(!copy.exists());
}
