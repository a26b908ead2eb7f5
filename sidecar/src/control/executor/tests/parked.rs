//! Runners that are parked and woken.

use super::*;
use crate::{
    provider::{Parked as ParkedLabel, ParkedContainer},
    store,
};
use edgerunner_scheduler::plan::{Parked, Wake};

fn wake(runner: &str) -> Wake {
    Wake {
        runner: runner.into(),
        pool: "default".into(),
        provider: 0,
        target: TARGET.parse().unwrap(),
        again: false,
        prompted_by: None,
    }
}

async fn park(world: &mut World, runner: &str) -> Event {
    let launch = Launch {
        runner: runner.into(),
        pool: 0,
        target: TARGET.parse().unwrap(),
        parameters: Parameters::default(),
        credential: 0,
        devices: Vec::new(),
        park: true,
        prompted_by: None,
    };
    let pool = Arc::clone(&world.executor.pools()[0]);
    let recorded = world.store.save_runner(record(runner));
    let launched = world.executor.clone().launch(pool, launch, CREATED_AT, recorded);
    tokio::spawn(launched).await.unwrap();
    world.outcome().await
}

#[tokio::test]
async fn a_parked_runner_is_registered_and_carries_the_revision_of_its_pool() {
    let mut world = World::start().await;
    let event = park(&mut world, "edge-1").await;
    assert!(matches!(&event, Event::Parked { runner, started: true } if runner == "edge-1"));
    assert_eq!(world.github.calls(), ["POST runners/generate-jitconfig"]);
    assert_eq!(world.provider.calls()[1..], ["park edge-1"]);
    let parked = world.provider.order("edge-1").unwrap().labels.parked.unwrap();
    assert_eq!(parked.revision, world.executor.pools()[0].revision());

    world.provider.fail_next("park", ErrorKind::Refused);
    assert_failed(park(&mut world, "edge-1").await, Cause::Container, true);
}

#[tokio::test]
async fn a_runner_is_woken_once_its_record_is_saved_and_a_failure_is_reported() {
    let mut world = World::start().await;
    park(&mut world, "edge-1").await;
    let executor = || world.executor.clone();
    executor().wake(wake("edge-1"), async { Err(store::Error::Closed) }).await;
    assert!(!world.provider.calls().contains(&"wake edge-1".to_owned()));
    executor().wake(wake("edge-1"), async { Ok(()) }).await;
    assert!(world.provider.calls().contains(&"wake edge-1".to_owned()));
    executor().wake(wake("edge-2"), async { Ok(()) }).await;
    world.provider.fail_next("wake", ErrorKind::Unavailable);
    executor().wake(wake("edge-1"), async { Ok(()) }).await;

    let mut failed = Vec::new();
    for _ in 0..3 {
        match world.event().await {
            Event::WakeFailed { runner, cause, gone, .. } => failed.push((runner, cause, gone)),
            event => panic!("{event:?}"),
        }
    }
    let expected = [
        ("edge-1", Cause::Store, false),
        ("edge-2", Cause::Container, true),
        ("edge-1", Cause::DockerUnavailable, false),
    ];
    assert_eq!(failed, expected.map(|(runner, cause, gone)| (runner.to_owned(), cause, gone)));
    world.no_event();
}

#[tokio::test]
async fn recovery_tells_those_that_wait_from_those_that_were_to_be_woken() {
    let mut world = World::offline();
    let parked = |runner: &str, container| Labels {
        parked: Some(ParkedLabel { container, revision: 7 }),
        ..labels(runner)
    };
    world.provider.insert(parked("waits", ParkedContainer::Waiting), InstanceState::Running);
    world.provider.insert(parked("woken", ParkedContainer::Created), InstanceState::Created);
    let records =
        vec![record("waits"), RunnerRecord { started_at: Some(CREATED_AT), ..record("woken") }];
    world.executor.recover(0, records).await;
    let mut found = Vec::new();
    for _ in 0..2 {
        match world.event().await {
            Event::Adopted(adopted) => found.push((adopted.runner, adopted.parked)),
            event => panic!("{event:?}"),
        }
    }
    let of = |started, woken| Some(Parked { started, revision: 7, woken });
    assert_eq!(
        found,
        [("waits".to_owned(), of(true, false)), ("woken".to_owned(), of(false, true))]
    );
}
