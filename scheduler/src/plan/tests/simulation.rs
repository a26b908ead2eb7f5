//! Weeks of jobs in seconds: days, nights and weekends, with faults throughout.
//! `cargo test -p edgerunner-scheduler simulation -- --nocapture` prints the figures.

use super::{
    world::{Faults, World},
    *,
};

const WEEKS: u64 = 3;
const HOUR_MS: u64 = 3_600_000;
const STEP_MS: u64 = 5_000;

/// Jobs per hour, by the hour of the week.
fn load(hour: u64) -> u64 {
    let (day, hour) = (hour / 24 % 7, hour % 24);
    match (day, hour) {
        (5 | 6, _) => 4,
        (_, 9..=11 | 13..=17) => 90,
        (_, 7..=20) => 40,
        // Nightly builds start all at once.
        (_, 2) => 60,
        _ => 6,
    }
}

#[test]
fn weeks_of_jobs_are_served_and_leave_nothing_behind() {
    let limits = LifeLimits {
        provisioning_ms: 120_000,
        starting_ms: 120_000,
        idle_ms: 300_000,
        job_ms: 1_200_000,
    };
    let pools = vec![
        Pool { max: 12, limits, ..pool("linux", &["linux", "x64"]) },
        Pool {
            max: 3,
            priority: -1,
            scope: Scope::Organization,
            limits,
            ..pool("gpu", &["linux", "gpu"])
        },
    ];
    let settings = Settings { max: 14, ..settings(pools) };
    let faults = Faults {
        lost: 10,
        doubled: 20,
        cancelled: 30,
        stolen: 1,
        launch_fails: 20,
        never_online: 5,
        dies_unused: 5,
        dies_busy: 5,
        job_too_long: 2,
        does_not_end: 5,
        exit_unreported: 10,
        call_fails: 20,
        held: 5,
        unnamed: 20,
        never: 5,
        deleted: 1,
        restart: 0,
        drain: 0,
        schedule: 0,
        reload: 0,
        clock_set: 0,
    };
    let mut world = World::new(settings, faults, 7);
    world.thorough = false;
    world.job_longest_ms = 900_000;
    for hour in 0..WEEKS * 7 * 24 {
        // One hour a day restarts are likely, and in another the clock is likely to be set.
        world.faults.restart = if hour % 24 == 15 { 2 } else { 0 };
        world.faults.clock_set = if hour % 24 == 10 { 2 } else { 0 };
        let mut left = load(hour);
        let steps = HOUR_MS / STEP_MS;
        for step in 0..steps {
            if left > 0 && world.below(steps - step) < left {
                left -= 1;
                let repository = ["acme/app", "acme/lib", "acme/web"][world.below(3) as usize];
                let labels: &[&str] = if world.chance(100) { &["gpu"] } else { &["linux"] };
                world.queue(repository, labels);
            }
            world.step(STEP_MS);
        }
        recount(&world.state);
    }
    let unfaulted = world.now;
    world.settle();

    let figures = &world.figures;
    println!(
        "{WEEKS} weeks: {} jobs served by {} launches, at most {} runners at once, {} restarts, \
         clock set {} times; {} s in the queue on average; settled {} s after the last fault",
        figures.served,
        figures.launches,
        figures.live_max,
        figures.restarts,
        figures.clock_steps,
        figures.queue_ms / figures.served / 1_000,
        (world.now - unfaulted) / 1_000,
    );
    assert!(figures.served > 10_000);
    assert!(figures.restarts > WEEKS * 7 / 2);
    assert!(figures.clock_steps > WEEKS * 7 / 2);
    // Faults cost launches, but not many: one launch serves one job.
    assert!(figures.launches < figures.served * 5 / 4);
    assert!(figures.queue_ms / figures.served < 120_000);
}

/// `max-parallel`, and a repository that its runner group excludes: the places of the pool are
/// for the others.
#[test]
fn repositories_whose_jobs_github_holds_back_delay_nobody_and_cost_few_calls() {
    let limits = LifeLimits {
        provisioning_ms: 120_000,
        starting_ms: 120_000,
        idle_ms: 300_000,
        job_ms: 1_200_000,
    };
    let settings = settings(vec![Pool { max: 4, limits, ..pool("linux", &["linux", "x64"]) }]);
    let mut world = World::new(settings, Faults::default(), 11);
    world.thorough = false;
    world.job_longest_ms = 20_000;
    world.parallel.insert("acme/excluded".into(), 0);
    world.parallel.insert("acme/matrix".into(), 1);
    for _ in 0..20 {
        world.queue("acme/excluded", &["linux"]);
        world.queue("acme/matrix", &["linux"]);
    }
    let excluded = |world: &World| world.figures.calls["repo:acme/excluded"];
    let mut before = 0;
    for hour in 0..48 {
        let steps = HOUR_MS / 1_000;
        for step in 0..steps {
            // The first half hour shows what is held back.
            if (hour, step) >= (0, 1_800) && world.below(120) == 0 {
                world.queue("acme/app", &["linux"]);
            }
            world.step(1_000);
        }
        recount(&world.state);
        let calls = excluded(&world) - std::mem::replace(&mut before, excluded(&world));
        assert!(hour == 0 || calls < 12, "{calls} calls in hour {hour}");
    }
    let left = world.waiting_in("acme/matrix");
    assert_eq!(left, 0, "of a matrix that may run one job at a time");
    println!("{} s at most in the queue", world.figures.queue_ms_max / 1_000);
    // A webhook may be 40 seconds late here. A start takes up to ten seconds, and the removal of
    // a probe half a second.
    assert!(world.figures.queue_ms_max < 55_000, "{}", world.figures.queue_ms_max);
    world.settle();
}
