//! Jobs that ended because their runner did.

use super::{Database, deliver, delivery, runner};
use crate::store::*;
use edgerunner_scheduler::model::{JobKey, JobState};

pub(super) async fn a_job_is_lost_once_with_its_runner_in_the_first_attempt(
    database: &impl Database,
) {
    let (store, _closed) = database.open().await;
    for (name, end) in [("gone", Some("vanished")), ("fine", Some("done")), ("old", None)] {
        let end = end.map(str::to_owned);
        store.save_runner(RunnerRecord { end, ..runner(name) }).await.unwrap();
    }
    for (id, run_id, attempt, runner, conclusion) in [
        (1, 11, 1, "gone", "failure"),
        (2, 12, 1, "fine", "failure"),
        (3, 13, 1, "old", "failure"),
        (4, 14, 1, "gone", "cancelled"),
        (5, 15, 2, "gone", "failure"),
        // Somebody has run it again.
        (6, 16, 1, "gone", "failure"),
        (7, 16, 2, "fine", "success"),
        (8, 18, 1, "gone", "failure"),
    ] {
        let mut next = delivery(&format!("delivery-{id}"), id, JobState::Completed);
        next.job.key = JobKey::new(id, attempt).on(Host::new("github.com"));
        next.job.run_id = run_id;
        (next.runner_name, next.conclusion) = (runner.into(), conclusion.into());
        deliver(&store, next).await.unwrap();
    }
    let lost = async |since| {
        let lost = store.lost_jobs(since).await.unwrap();
        lost.iter().map(|it| it.key.id).collect::<Vec<_>>()
    };
    let mut found = lost(1_000).await;
    found.sort_unstable();
    assert_eq!(found, [1, 8]);
    assert!(lost(1_001).await.is_empty());
    let first = store.lost_jobs(0).await.unwrap().into_iter().find(|it| it.key.id == 1).unwrap();
    let expected = LostJob {
        key: JobKey::new(1, 1).on(Host::new("github.com")),
        run_id: 11,
        repository: "acme/app".into(),
        pool: "default".into(),
        target: "repo:acme/app".into(),
        delivery: "delivery-1".into(),
    };
    assert_eq!(first, expected);
    store.save_rerun(Rerun { jobs: vec![first.key], at: 5 }).await.unwrap();
    assert_eq!(lost(0).await, [8]);
}
