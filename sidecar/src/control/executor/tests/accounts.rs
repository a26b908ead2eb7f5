//! What runners used, and jobs that are run again because their runner was lost.

use super::*;
use crate::{
    control::{clock, executor::usage::Sampling},
    provider::Usage,
};

#[tokio::test]
async fn what_runners_use_is_measured_until_they_are_gone() {
    let world = World::offline();
    world.provider.set_usage("edge-1", Usage { memory_bytes: 5, cpu_ns: 1 });
    let sampling =
        |runner: &str| Sampling { runner: runner.into(), pool: "default".into(), provider: 0 };
    let runners = vec![sampling("edge-1"), sampling("edge-2")];
    world.executor.clone().sample_usages(runners).await;
    let measured = Peak { memory_bytes: Some(5), cpu_millis: None };
    assert_eq!(world.executor.peak("edge-1"), measured);
    assert_eq!(world.executor.peak("edge-2"), Peak::default());
    world.executor.forget("edge-1");
    assert_eq!(world.executor.peak("edge-1"), Peak::default());
}

/// Jobs of one run that failed when their container was gone.
async fn lose(world: &World, run_id: u64, jobs: &[u64]) {
    let end = Some("vanished".to_owned());
    let runner = RunnerRecord { end, gone_at: Some(CREATED_AT), ..record("gone") };
    world.store.save_runner(runner).await.unwrap();
    let now = clock::now().wall;
    let lost = |id: &u64| Delivery {
        hook: String::new(),
        hook_id: 0,
        hook_target_type: String::new(),
        hook_target_id: 0,
        received_at: now,
        state: JobState::Completed,
        job: Job {
            key: JobKey::new(*id, 1),
            repository: "acme/app".into(),
            organization: String::new(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id,
            from_fork: None,
            labels: Vec::new(),
            queued_at: now,
            delivery: format!("guid-{id}"),
        },
        details: JobDetails::default(),
        conclusion: "failure".into(),
        runner_name: "gone".into(),
    };
    let deliveries: Vec<Delivery> = jobs.iter().map(lost).collect();
    world.store.deliver(deliveries.into()).await.unwrap();
}

#[tokio::test]
async fn the_lost_jobs_of_a_run_are_run_again_once() {
    let world = World::start().await;
    lose(&world, 11, &[1]).await;
    lose(&world, 12, &[2, 3]).await;
    for _ in 0..2 {
        world.executor.clone().rerun_lost().await;
    }
    assert_eq!(world.github.calls(), ["POST jobs/1/rerun", "POST runs/12/rerun-failed-jobs"]);
}

#[tokio::test]
async fn a_run_that_github_refuses_is_left_alone_and_others_are_asked_for_again() {
    let world = World::start().await;
    lose(&world, 11, &[1]).await;
    world.github.refuse(StatusCode::FORBIDDEN);
    world.executor.clone().rerun_lost().await;
    world.github.allow();
    world.executor.clone().rerun_lost().await;
    assert_eq!(world.github.calls(), ["POST jobs/1/rerun"]);

    let world = World::start().await;
    lose(&world, 11, &[1]).await;
    world.github.refuse(StatusCode::UNAUTHORIZED);
    world.executor.clone().rerun_lost().await;
    world.github.allow();
    world.executor.clone().rerun_lost().await;
    assert_eq!(world.github.calls(), ["POST jobs/1/rerun", "POST jobs/1/rerun"]);
}
