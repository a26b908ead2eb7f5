//! What only Postgres can do: several sidecars, terms, a server that is away.

mod connections;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use edgerunner_testkit::{Postgres as Server, postgres::eventually};

use crate::{
    config::{Certificates, Database as Settings},
    store::{
        Delivery, Error, JobUpdate, OpenError, Store, StoreOutcome, Term,
        tests::{deliver, delivery, runner, webhook},
    },
};
use edgerunner_scheduler::model::{JobKey, JobState};

fn settings(url: &str) -> Settings {
    Settings { url: url.parse().unwrap(), password_file: None, ca: Certificates::new() }
}

async fn connect(url: &str) -> Result<Store, OpenError> {
    Ok(Store::connect(&settings(url), |_| {}).await?.0)
}

async fn refusal(settings: &Settings) -> OpenError {
    Store::connect(settings, |_| {}).await.err().expect("it connected")
}

/// One store on the shared server, and its database.
async fn shared() -> (Store, &'static Server, String) {
    let server = Server::shared();
    let database = server.database().unwrap();
    (connect(&server.url(&database)).await.unwrap(), server, database)
}

fn update(job: u64, state: JobState) -> JobUpdate {
    JobUpdate {
        key: JobKey::new(job, 1),
        state,
        runner_name: String::new(),
        conclusion: String::new(),
        found_at: 2_000,
    }
}

#[tokio::test]
async fn a_delivery_that_two_sidecars_store_at_once_advances_its_job_once() {
    let (one, server, database) = shared().await;
    let two = connect(&server.url(&database)).await.unwrap();
    for job in 1..=50 {
        let next = delivery(&format!("delivery-{job}"), job, JobState::Queued);
        let (first, second) =
            tokio::join!(deliver(&one, next.clone()), deliver(&two, next.clone()));
        let mut outcomes = [first.unwrap(), second.unwrap()];
        outcomes.sort_by_key(|outcome| *outcome as u8);
        assert_eq!(outcomes, [StoreOutcome::Advanced, StoreOutcome::Duplicate]);
    }
    assert_eq!(two.open_jobs().await.unwrap().len(), 50);
}

#[tokio::test]
async fn one_group_may_have_several_states_of_a_job_and_repeated_deliveries() {
    let (store, ..) = shared().await;
    let all = [
        delivery("a", 1, JobState::Queued),
        delivery("b", 2, JobState::Queued),
        delivery("c", 1, JobState::Completed),
        delivery("a", 1, JobState::Queued),
        delivery("d", 1, JobState::InProgress),
        delivery("e", 2, JobState::InProgress),
    ];
    let outcomes = store.deliver(all.into()).await.unwrap();
    use StoreOutcome::{Advanced, Duplicate, Stale};
    assert_eq!(outcomes, [Advanced, Advanced, Advanced, Duplicate, Stale, Advanced]);
    let state = async |job| store.job(JobKey::new(job, 1)).await.unwrap().unwrap().state;
    assert_eq!((state(1).await, state(2).await), (JobState::Completed, JobState::InProgress));
}

/// Groups that lock the same jobs in different orders would wait for each other for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sidecars_with_the_same_jobs_in_another_order_take_turns() {
    let (one, server, database) = shared().await;
    let two = connect(&server.url(&database)).await.unwrap();
    for round in 0..20_u64 {
        let all = |id: &str| -> Vec<Delivery> {
            let job =
                |job| delivery(&format!("{id}-{round}-{job}"), round * 100 + job, JobState::Queued);
            (0..100).map(job).collect()
        };
        let (first, mut second) = (all("a"), all("b"));
        second.reverse();
        let (first, second) = tokio::join!(one.deliver(first.into()), two.deliver(second.into()));
        let both: Vec<_> = first.unwrap().into_iter().chain(second.unwrap()).collect();
        let advanced = both.iter().filter(|outcome| **outcome == StoreOutcome::Advanced).count();
        assert_eq!(advanced, 100);
    }
    drop((one, two));
    // A session counts at its end.
    let sessions = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name = 'edgerunner writer'";
    eventually(|| server.sql(&database, sessions).unwrap() == "0");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(server.sql(&database, deadlocks).unwrap(), "0");
}

#[tokio::test]
async fn text_with_nul_characters_is_stored_without_them() {
    let (store, ..) = shared().await;
    let mut odd = delivery("a\0", 1, JobState::Queued);
    odd.details.name = "bu\0ild".into();
    odd.job.labels = vec!["self\0hosted".into()];
    odd.hook = "\0".into();
    assert_eq!(deliver(&store, odd.clone()).await.unwrap(), StoreOutcome::Advanced);
    assert_eq!(deliver(&store, odd).await.unwrap(), StoreOutcome::Duplicate);
    let found = store.job(JobKey::new(1, 1)).await.unwrap().unwrap();
    assert_eq!((&*found.details.name, &*found.job.labels[0]), ("build", "self\0hosted"));
    store.save_runner(runner("a\0b")).await.unwrap();
    store.save_runner_log("a\0b".into(), "it \0broke".into()).await.unwrap();
    let found = store.runner("a\0b".into()).await.unwrap().unwrap();
    assert_eq!((&*found.runner.name, found.log.as_deref()), ("ab", Some("it broke")));
    store.save_webhook(webhook("repos/\0", 1, 1)).await.unwrap();
    store.save_draining(Some("a\0".into()), true).await.unwrap();
    assert!(store.has_delivery("\0a".into(), 0).await.unwrap());
}

#[tokio::test]
async fn writes_of_a_term_that_has_ended_are_not_carried_out() {
    let (store, server, database) = shared().await;
    let sql = |sql: &str| server.sql(&database, sql).unwrap();
    sql("UPDATE edgerunner.lease SET term = 7, holder = 'me'");
    let (old, current) = (store.fenced(Term(6)), store.fenced(Term(7)));
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    // In one group.
    let (fenced, unfenced, other) = tokio::join!(
        old.advance_job(update(1, JobState::Completed)),
        deliver(&store, delivery("b", 2, JobState::Queued)),
        current.save_runner(runner("r")),
    );
    assert!(matches!(fenced, Err(Error::Fenced)), "{fenced:?}");
    assert_eq!(unfenced.unwrap(), StoreOutcome::Advanced);
    other.unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 2);
    assert_eq!(store.present_runners().await.unwrap().len(), 1);
    assert!(matches!(old.prune(5).await, Err(Error::Fenced)));

    current.advance_job(update(1, JobState::Completed)).await.unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
    sql("UPDATE edgerunner.lease SET term = 8");
    let late = current.advance_job(update(2, JobState::Completed)).await;
    assert!(matches!(late, Err(Error::Fenced)), "{late:?}");
}

/// Else a sidecar could write after another one has begun to plan.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_term_cannot_end_while_its_writes_are_carried_out() {
    let (store, server, database) = shared().await;
    server.sql(&database, "UPDATE edgerunner.lease SET term = 1").unwrap();
    // The write waits for this transaction, with its own begun.
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let blocker = settings(&server.url(&database));
    let blocker = super::Connector::new(&blocker).unwrap().connect("test").await.unwrap();
    blocker.batch_execute("BEGIN; UPDATE jobs SET name = 'blocked'").await.unwrap();
    let write = tokio::spawn({
        let store = store.fenced(Term(1));
        async move { store.advance_job(update(1, JobState::Completed)).await }
    });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                 AND query LIKE '%started_ms = coalesce%' AND datname = current_database()";
    eventually(|| server.sql(&database, waits).unwrap() == "1");
    let takeover = "SET lock_timeout = '50ms'; UPDATE edgerunner.lease SET term = 2";
    assert!(server.sql(&database, takeover).is_err());
    blocker.batch_execute("COMMIT").await.unwrap();
    write.await.unwrap().unwrap();
    server.sql(&database, takeover).unwrap();
}

#[tokio::test]
async fn writes_wake_those_who_listen() {
    let (store, server, database) = shared().await;
    let config = server.url(&database).parse::<tokio_postgres::Config>().unwrap();
    let (client, mut connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(|cx| connection.poll_message(cx));
        while let Some(Ok(message)) = futures_util::StreamExt::next(&mut messages).await {
            let _ = sender.send(message);
        }
    });
    client.batch_execute("LISTEN edgerunner").await.unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(10), receiver.recv()).await;
    let Ok(Some(tokio_postgres::AsyncMessage::Notification(heard))) = heard else {
        panic!("{heard:?}")
    };
    assert_eq!((heard.channel(), heard.payload()), ("edgerunner", "deliveries"));
}

#[tokio::test]
async fn each_delivery_has_the_transaction_that_stored_it() {
    let (store, server, database) = shared().await;
    let sql = |sql: &str| server.sql(&database, sql).unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let snapshot = sql("SELECT pg_current_snapshot()");
    deliver(&store, delivery("b", 2, JobState::Queued)).await.unwrap();
    let new = format!(
        "SELECT id FROM edgerunner.deliveries WHERE xid >= pg_snapshot_xmin('{snapshot}')
         AND NOT pg_visible_in_snapshot(xid, '{snapshot}')"
    );
    assert_eq!(sql(&new), "b");
}

#[tokio::test]
async fn a_delivery_of_another_server_is_not_new_for_ever() {
    let (store, server, database) = shared().await;
    let sql = |sql: &str| server.sql(&database, sql).unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let stored_by = sql("SELECT xid FROM edgerunner.deliveries");
    deliver(&store, delivery("b", 2, JobState::Queued)).await.unwrap();
    sql("UPDATE edgerunner.deliveries SET xid = '99999999999' WHERE id = 'b'");
    connect(&server.url(&database)).await.unwrap();
    let found = sql("SELECT string_agg(id || xid, ' ' ORDER BY id) FROM edgerunner.deliveries");
    assert_eq!(found, format!("a{stored_by} b3"));
}

#[tokio::test]
async fn a_server_that_was_restarted_is_used_again() {
    let server = Server::start().unwrap();
    let database = server.database().unwrap();
    let store = connect(&server.url(&database)).await.unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    assert_eq!(store.open_jobs().await.unwrap().len(), 1);
    server.stop().unwrap();
    let begun = Instant::now();
    let away = deliver(&store, delivery("b", 2, JobState::Queued)).await;
    assert!(matches!(away, Err(Error::Write(_))), "{away:?}");
    assert!(matches!(store.open_jobs().await, Err(Error::Read(_))));
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    server.run().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let again = loop {
        match deliver(&store, delivery("b", 2, JobState::Queued)).await {
            Err(error) if Instant::now() > deadline => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            Ok(outcome) => break outcome,
        }
    };
    assert_eq!(again, StoreOutcome::Advanced);
    while store.open_jobs().await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(store.open_jobs().await.unwrap().len(), 2);
}

/// One that ends its sessions and answers at once costs nothing.
#[tokio::test]
async fn a_lost_connection_is_replaced_before_the_next_write() {
    let (store, server, database) = shared().await;
    assert_eq!(store.open_jobs().await.unwrap(), []);
    // By then, the writer has a connection. Its first one is not replaced but waited for.
    deliver(&store, delivery("1", 1, JobState::Queued)).await.unwrap();
    for job in 2..=6 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name LIKE 'edgerunner %'";
        server.sql(&database, end).unwrap();
        let gone = "SELECT count(*) FROM pg_stat_activity
                    WHERE datname = current_database() AND application_name LIKE 'edgerunner %'
                        AND application_name <> 'edgerunner writer'";
        eventually(|| server.sql(&database, gone).unwrap() == "0");
        deliver(&store, delivery(&job.to_string(), job, JobState::Queued)).await.unwrap();
        assert_eq!(store.open_jobs().await.unwrap().len() as u64, job);
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_5_seconds_and_no_longer() {
    let server = Server::start().unwrap();
    let database = server.database().unwrap();
    let store = connect(&server.url(&database)).await.unwrap();
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    store.open_jobs().await.unwrap();
    server.freeze().unwrap();
    let begun = Instant::now();
    let (first, second, read) = tokio::join!(
        deliver(&store, delivery("b", 2, JobState::Queued)),
        async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            deliver(&store, delivery("c", 3, JobState::Queued)).await
        },
        store.open_jobs(),
    );
    assert!(first.is_err() && second.is_err() && read.is_err());
    assert!(begun.elapsed() < Duration::from_millis(6_500), "{:?}", begun.elapsed());
    let error = refusal(&settings(&server.url(&database))).await;
    assert!(error.is_unreachable() && error.to_string().contains("no answer"), "{error}");
    server.thaw().unwrap();
    let deadline = Instant::now() + Duration::from_secs(15);
    while let Err(error) = deliver(&store, delivery("d", 4, JobState::Queued)).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_error_in_one_group_does_not_stop_the_next() {
    let (store, server, database) = shared().await;
    let sql = |sql: &str| server.sql(&database, sql).unwrap();
    // As a full disk would.
    sql("ALTER TABLE edgerunner.jobs ADD CONSTRAINT full_disk CHECK (id <> 2)");
    let refused = deliver(&store, delivery("b", 2, JobState::Queued)).await;
    let Err(Error::Write(error)) = refused else { panic!("{refused:?}") };
    assert!(error.to_string().contains("full_disk"), "{error}");
    let sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'edgerunner writer'
                    AND datname = current_database()";
    let session = sql(sessions);
    deliver(&store, delivery("c", 3, JobState::Queued)).await.unwrap();
    assert_eq!(sql(sessions), session);
    assert_eq!(sql("SELECT string_agg(id, ',') FROM edgerunner.deliveries"), "c");
}

/// A sidecar that is stopped in a transaction must not hold up the others for long.
#[tokio::test]
async fn locks_of_a_session_that_does_nothing_end_after_2_seconds() {
    let (store, server, database) = shared().await;
    deliver(&store, delivery("a", 1, JobState::Queued)).await.unwrap();
    let connector = super::Connector::new(&settings(&server.url(&database))).unwrap();
    let stopped = connector.connect("test").await.unwrap();
    stopped.batch_execute("BEGIN; UPDATE jobs SET name = 'x'").await.unwrap();
    let begun = Instant::now();
    deliver(&store, delivery("b", 1, JobState::Completed)).await.unwrap();
    assert!(begun.elapsed() > Duration::from_secs(1), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn sidecars_that_start_at_once_share_one_schema() {
    let server = Server::shared();
    let url = server.url(&server.database().unwrap());
    let stores = futures_util::future::join_all((0..4).map(|_| connect(&url))).await;
    for (job, store) in (1..).zip(stores) {
        let next = delivery(&job.to_string(), job, JobState::Queued);
        deliver(&store.unwrap(), next).await.unwrap();
    }
}

#[tokio::test]
async fn the_last_writes_are_committed_before_the_store_is_closed() {
    let (store, server, database) = shared().await;
    drop(store);
    let (store, closed) = Store::connect(&settings(&server.url(&database)), |_| {}).await.unwrap();
    let store = Arc::new(store);
    let writes: Vec<_> = (0..100)
        .map(|number| tokio::spawn(store.save_runner(runner(&number.to_string()))))
        .collect();
    drop(store);
    closed.wait().await;
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let count = "SELECT count(*) FROM edgerunner.runners";
    assert_eq!(server.sql(&database, count).unwrap(), "100");
}
