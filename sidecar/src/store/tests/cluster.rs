//! What sidecars that share a Postgres database know of each other.

use std::{collections::BTreeMap, time::Duration};

use tokio_postgres::{Client, NoTls};

use super::{Database as _, Postgres, deliver, delivery, runner};
use crate::store::{
    Behind, Closed, Cluster, Delivery, MemberFigures, Store, StoreOutcome, Term, Topic,
};
use edgerunner_scheduler::model::JobState;

struct Sidecar {
    store: Store,
    _closed: Closed,
}

impl Sidecar {
    async fn of(database: &Postgres) -> Self {
        let (store, closed) = database.open().await;
        Self { store, _closed: closed }
    }

    fn cluster(&self) -> &Cluster {
        self.store.cluster().unwrap()
    }

    async fn deliver(&self, id: &str, job: u64, state: JobState) -> StoreOutcome {
        deliver(&self.store, delivery(id, job, state)).await.unwrap()
    }
}

/// A session of its own.
async fn client(database: &Postgres) -> Client {
    let (client, connection) = database.0.url.hosts[0].connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn two_sidecars() -> (Postgres, Sidecar, Sidecar) {
    let database = Postgres::new();
    let (one, other) = (Sidecar::of(&database).await, Sidecar::of(&database).await);
    (database, one, other)
}

#[tokio::test]
async fn one_sidecar_holds_the_lease_until_it_releases_it_or_time_runs_out() {
    let (database, one, other) = two_sidecars().await;
    let (one, other) = (one.cluster(), other.cluster());
    assert_eq!(one.lease_record().await.unwrap().holder, None);
    assert_eq!(one.take_lease().await.unwrap(), Some(Term(1)));
    assert_eq!(other.take_lease().await.unwrap(), None);
    assert!(one.renew_lease(Term(1)).await.unwrap());
    assert!(!other.renew_lease(Term(1)).await.unwrap());
    let record = other.lease_record().await.unwrap();
    assert_eq!((record.holder.as_deref(), record.term), (Some(one.id()), Term(1)));

    let mut freed = other.notifications(Topic::Lease);
    one.release_lease(Term(1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), freed.next()).await.unwrap();
    assert_eq!(other.take_lease().await.unwrap(), Some(Term(2)));
    assert!(!one.renew_lease(Term(1)).await.unwrap());

    // As after 6 s.
    let client = client(&database).await;
    client.execute("UPDATE edgerunner.lease SET until = clock_timestamp()", &[]).await.unwrap();
    assert!(!other.renew_lease(Term(2)).await.unwrap());
    assert_eq!(one.lease_record().await.unwrap().holder, None);
    assert_eq!(one.take_lease().await.unwrap(), Some(Term(3)));
    // It is no longer its own.
    other.release_lease(Term(2)).await.unwrap();
    assert!(one.renew_lease(Term(3)).await.unwrap());
}

#[tokio::test]
async fn writes_of_an_earlier_term_are_not_carried_out() {
    let (_database, one, other) = two_sidecars().await;
    let term = one.cluster().take_lease().await.unwrap().unwrap();
    let fenced = one.store.fenced(term);
    fenced.save_runner(runner("edge-1")).await.unwrap();
    one.cluster().release_lease(term).await.unwrap();
    other.cluster().take_lease().await.unwrap();
    let error = fenced.save_runner(runner("edge-2")).await.unwrap_err();
    assert_eq!(error.to_string(), "another sidecar plans");
    // What it accepts is stored all the same.
    assert_eq!(one.deliver("a", 1, JobState::Queued).await, StoreOutcome::Advanced);
    assert_eq!(other.store.present_runners().await.unwrap(), [runner("edge-1")]);
}

fn ids(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|it| it.job.delivery.as_str()).collect()
}

#[tokio::test]
async fn the_feed_has_what_any_sidecar_stored_and_each_delivery_once() {
    let (database, one, other) = two_sidecars().await;
    one.deliver("before", 1, JobState::Queued).await;
    let position = one.cluster().feed_position().await.unwrap();
    assert_eq!(one.deliver("b", 2, JobState::Queued).await, StoreOutcome::Advanced);
    assert_eq!(other.deliver("b", 2, JobState::Queued).await, StoreOutcome::Duplicate);
    assert_eq!(other.deliver("c", 2, JobState::InProgress).await, StoreOutcome::Advanced);
    let (found, next) = one.cluster().deliveries_after(&position).await.unwrap();
    assert_eq!(ids(&found), ["b", "c"]);
    assert_eq!((found[0].state, found[1].state), (JobState::Queued, JobState::InProgress));
    assert_eq!(found[0].job.labels, ["self-hosted"]);
    assert_eq!(found[0].job.run_id, 9);

    // A transaction that began before others and commits after them.
    let client = client(&database).await;
    let late = "BEGIN;
        INSERT INTO edgerunner.deliveries (id, received_ms, hook, hook_id, hook_target_type,
            hook_target_id, state, job_id, run_attempt, host)
        SELECT 'late', 1, '', 1, '', 1, 2, id, run_attempt, host FROM edgerunner.jobs WHERE id = 2";
    client.batch_execute(late).await.unwrap();
    one.deliver("d", 3, JobState::Queued).await;
    let (found, next) = one.cluster().deliveries_after(&next).await.unwrap();
    assert_eq!(ids(&found), ["d"]);
    client.batch_execute("COMMIT").await.unwrap();
    let (found, next) = one.cluster().deliveries_after(&next).await.unwrap();
    assert_eq!(ids(&found), ["late"]);
    assert!(one.cluster().deliveries_after(&next).await.unwrap().0.is_empty());
}

#[tokio::test]
async fn a_delivery_of_another_sidecar_is_announced() {
    let (_database, one, other) = two_sidecars().await;
    let mut news = one.cluster().notifications(Topic::Deliveries);
    // The connection that listens may not be there yet.
    let announced = tokio::time::timeout(Duration::from_secs(20), async {
        for job in 1.. {
            other.deliver(&format!("delivery-{job}"), job, JobState::Queued).await;
            if tokio::time::timeout(Duration::from_millis(200), news.next()).await.is_ok() {
                return;
            }
        }
    });
    announced.await.unwrap();
}

#[tokio::test]
async fn a_request_is_answered_by_the_sidecar_that_plans() {
    let (_database, one, other) = two_sidecars().await;
    let limit = Duration::from_secs(10);
    let asked = one.cluster().ask::<String>(&"how many?", limit);
    let answered = async {
        let mut news = other.cluster().notifications(Topic::Requests);
        loop {
            let open = other.cluster().open_requests::<String>().await.unwrap();
            if let [(id, Ok(request))] = open.as_slice() {
                assert_eq!(request, "how many?");
                return other.cluster().reply(*id, &"two").await.unwrap();
            }
            news.next_within(Duration::from_millis(100)).await;
        }
    };
    let (reply, ()) = tokio::join!(asked, answered);
    assert_eq!(reply.unwrap().as_deref(), Some("two"));
    assert!(other.cluster().open_requests::<String>().await.unwrap().is_empty());

    let nobody = one.cluster().ask::<String>(&"and now?", Duration::from_millis(50)).await;
    assert_eq!(nobody.unwrap(), None);
}

#[tokio::test]
async fn sidecars_are_listed_with_what_they_have_not_read_yet() {
    let (database, one, other) = two_sidecars().await;
    let position = one.cluster().feed_position().await.unwrap();
    let figures = MemberFigures {
        queued_writes: 3,
        position: Some(position.as_str().to_owned()),
        configuration: BTreeMap::new(),
    };
    one.cluster().report("build-1", 5_000, &figures).await.unwrap();
    other.cluster().report("build-2", 6_000, &MemberFigures::default()).await.unwrap();
    other.deliver("a", 1, JobState::Queued).await;
    let members = other.cluster().members().await.unwrap();
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    assert_eq!(names, ["build-1", "build-2"]);
    assert_eq!((members[0].id.as_str(), members[0].started), (one.cluster().id(), 5_000));
    assert_eq!(members[0].figures, figures);
    assert!(members[0].seen_ms_ago < 60_000);
    let behind = Behind { deliveries: 1, oldest: Some(1_000) };
    assert_eq!((members[0].behind, members[1].behind), (Some(behind), None));
    // One that was killed is listed, and nothing is counted for it.
    let query =
        "UPDATE edgerunner.sidecars SET seen = seen - interval '20 s' WHERE name = 'build-1'";
    client(&database).await.execute(query, &[]).await.unwrap();
    let members = other.cluster().members().await.unwrap();
    assert_eq!((members.len(), members[0].behind), (2, None));
    one.cluster().leave().await.unwrap();
    assert_eq!(other.cluster().members().await.unwrap().len(), 1);
}
