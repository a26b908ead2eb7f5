//! Several providers, and launches that wait for room at one.

use tokio::sync::watch;

use super::*;
use crate::control::{clock, executor::launch::Wait};
use edgerunner_scheduler::model::Instant;

/// The events about launches, without their progress.
async fn outcomes(world: &mut World, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        events.push(world.outcome().await);
    }
    events
}

#[tokio::test]
async fn launches_that_wait_for_room_hold_up_no_others() {
    let mut world = World::start().await;
    let launches_max = Provider::Fake(world.provider.clone()).launches_max();
    let full: Vec<_> = (0..launches_max).map(|_| world.provider.fill_next()).collect();
    for number in 0..launches_max {
        world.launch(&format!("full-{number}"));
    }
    for event in outcomes(&mut world, launches_max).await {
        let Event::NoRoom { message, credentials_end, .. } = event else { panic!("{event:?}") };
        assert_eq!(message, "Fake: no room");
        let valid_for = credentials_end.duration_since(clock::now().instant);
        assert!(valid_for > Duration::from_secs(3_500), "{valid_for:?}");
    }
    world.launch("edge-1");
    let event = world.outcome().await;
    assert!(matches!(&event, Event::Launched { runner } if runner == "edge-1"), "{event:?}");
    full.iter().for_each(|full| full.notify_one());
    for event in outcomes(&mut world, launches_max).await {
        assert!(matches!(&event, Event::Launched { .. }), "{event:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_of_a_launch_does_not_run_while_it_waits_for_room() {
    let mut world = World::offline();
    let limit = Duration::from_secs(60);
    let (room, waits) = watch::channel(None);
    let executor = world.executor.clone();
    let launch = tokio::spawn(async move {
        let launch = Launch {
            runner: "edge-1".into(),
            pool: 0,
            target: TARGET.parse().unwrap(),
            parameters: Parameters::default(),
            credential: 0,
            devices: Vec::new(),
            park: false,
            prompted_by: None,
        };
        executor.within::<()>(limit, std::future::pending(), waits, &launch).await
    });
    let wait = Wait { message: "no room".to_owned(), credentials_end: Instant::MAX };
    room.send_replace(Some(wait));
    assert!(matches!(world.event().await, Event::NoRoom { .. }));
    time::sleep(limit * 60).await;
    assert!(!launch.is_finished());
    let began = time::Instant::now();
    room.send_replace(None);
    assert!(matches!(world.event().await, Event::Progress { .. }));
    let failure = launch.await.unwrap().unwrap_err();
    assert_eq!((failure.cause, began.elapsed()), (Cause::TimedOut, limit));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_holds_up_no_other() {
    let other = Fake::new();
    other.set_away(true);
    let providers = vec![("Other".to_owned(), Provider::Fake(other.clone()))];
    let mut world = World::with(GitHub::default(), "http://127.0.0.1:9", "", providers);
    other.insert(labels("there"), InstanceState::Unreachable);
    let records = vec![
        RunnerRecord { provider: "Fake".into(), ..record("here") },
        RunnerRecord { provider: "Other".into(), ..record("there") },
        // Of an earlier version, which had one provider.
        record("earlier"),
    ];
    let works = world.executor.recover_and_watch(records);
    works.into_iter().for_each(|work| drop(tokio::spawn(work)));
    let mut adopted = Vec::new();
    loop {
        match world.event().await {
            Event::Adopted(it) => adopted.push((it.runner, it.provider)),
            Event::Recovered { provider } => break assert_eq!(provider, 0),
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(adopted, [("here".to_owned(), 0), ("earlier".to_owned(), 0)]);
    // No pool uses it.
    assert_eq!(world.executor.provider_error(), None);
    other.set_away(false);
    let found = loop {
        match world.event().await {
            Event::Adopted(it) => break (it.runner, it.provider, it.container),
            Event::Survey { provider: 0, .. } => {}
            event => panic!("{event:?}"),
        }
    };
    assert_eq!(found, ("there".to_owned(), 1, AdoptedContainer::Unreachable));
    // It is removed where it is.
    world
        .executor
        .clone()
        .remove(Removal { provider: 1, deregister: false, ..removal("there") })
        .await;
    assert!(other.calls().contains(&"remove there".to_owned()));
    assert!(!world.provider.calls().contains(&"remove there".to_owned()));
}
