//! Weeks of jobs in seconds: days, nights and weekends, with faults throughout.
//! `cargo test -p edgerunner-scheduler simulation -- --nocapture` prints the figures.

use super::{
    world::{CAUSES, Faults, Requests, Trouble, World},
    *,
};
use crate::model::Target;

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
        Pool {
            max: 3,
            parked: 2,
            repositories: vec![RepositoryPattern::parse("acme/app").unwrap()],
            limits,
            ..pool("quick", &["quick"])
        },
    ];
    // Both servers number jobs from 1, and have repositories of the same names.
    let hosts = [Host::new("ghe.example.com"), Host::new("github.com")];
    let credentials =
        hosts.map(|host| Credential { host, ..credential("any", TargetPattern::Any) });
    let settings = Settings { max: 14, credentials: credentials.to_vec(), ..settings(pools) };
    let faults = Faults {
        lost: 10,
        disk: 0,
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
        hangs: 1,
        container_stays: 2,
        wake_fails: 20,
        no_room: 20,
        room_stays_away: 700,
        machine: 0,
        trouble: 0,
    };
    let mut world = World::new(settings, faults.clone(), 7);
    world.hosts = hosts.to_vec();
    world.thorough = false;
    world.job_longest_ms = 900_000;
    let mut unfaulted = 0;
    for hour in 0..WEEKS * 7 * 24 {
        // One hour a day restarts are likely, in another machines are likely to go away, and in a
        // third the clock is likely to be set.
        world.faults.restart = if hour % 24 == 15 { 2 } else { 0 };
        world.faults.machine = if hour % 24 == 13 { 2 } else { 0 };
        world.faults.clock_set = if hour % 24 == 10 { 2 } else { 0 };
        if hour % (7 * 24) == 0 {
            refuse_for_ever(&mut world);
        }
        // Each day, a credential is revoked, suspended or not installed for an hour.
        if hour % 24 == 11 {
            let cause = [Cause::Unauthorized, Cause::Forbidden][world.below(2) as usize];
            let until = world.now + HOUR_MS;
            let trouble = Trouble { cause, requests: Requests::All, until };
            world.trouble_with((hour / 24 % 2) as usize, trouble);
        }
        let mut left = load(hour);
        let steps = HOUR_MS / STEP_MS;
        for step in 0..steps {
            if left > 0 && world.below(steps - step) < left {
                left -= 1;
                let repository = ["acme/app", "acme/lib", "acme/web"][world.below(3) as usize];
                let labels: &[&str] = match world.below(20) {
                    0 | 1 => &["gpu"],
                    2..=6 if repository == "acme/app" => &["quick"],
                    _ => &["linux"],
                };
                world.queue(repository, labels);
                if world.chance(50) {
                    let refused = world.below(CAUSES.len() as u64);
                    world.queue(&format!("acme/refused-{refused}"), &["linux"]);
                }
            }
            world.step(STEP_MS);
        }
        recount(&world.state);
        if hour % (7 * 24) == 7 * 24 - 1 {
            world.agree();
            unfaulted = world.now;
            world.settle();
            world.faults = faults.clone();
        }
    }

    let figures = &world.figures;
    let launches = figures.launches - figures.launches_refused;
    let queue_ms = figures.queue_ms / (figures.served - figures.refused);
    println!(
        "{WEEKS} weeks: {} jobs served by {} launches, {} more launches refused, at most {} requests \
         in an hour about a target that only fails; at most {} runners at once, {} restarts, clock \
         set {} times, {} launches waited for room, {} parked runners were woken, {} machines went \
         away and {} runners were lost with them; {} s in the queue on average; settled {} s after the last fault",
        figures.served,
        launches,
        figures.launches_refused,
        figures.failing_calls_max,
        figures.live_max,
        figures.restarts,
        figures.clock_steps,
        figures.without_room,
        figures.woken,
        figures.machines_away,
        figures.machines_lost,
        queue_ms / 1_000,
        (world.now - unfaulted) / 1_000,
    );
    assert!(figures.served > 10_000);
    assert!(figures.restarts > WEEKS * 7 / 2);
    assert!(figures.clock_steps > WEEKS * 7 / 2);
    assert!(figures.woken > 300);
    assert!(figures.without_room > 100 && figures.machines_away > WEEKS * 7 / 2);
    // Faults cost launches, but not many: one launch serves one job.
    assert!(launches < figures.served * 5 / 4);
    assert!(queue_ms < 120_000);
}

/// Each of [`CAUSES`] at one of the repositories `acme/refused-0` and so on.
fn refuse_for_ever(world: &mut World) {
    for (index, cause) in CAUSES.into_iter().enumerate() {
        let target: Target = format!("repo:acme/refused-{index}").parse().unwrap();
        for host in world.hosts.clone() {
            let trouble = Trouble { cause, requests: Requests::All, until: u64::MAX };
            world.trouble_at(&target.clone().on(host), trouble);
        }
    }
}

/// Every kind of refusal at once, next to a repository that is served as if there were none.
#[test]
fn targets_that_only_fail_delay_nobody_and_cost_few_calls() {
    let limits = LifeLimits {
        provisioning_ms: 120_000,
        starting_ms: 120_000,
        idle_ms: 300_000,
        job_ms: 1_200_000,
    };
    let longest_wait = |refused: bool| {
        let pools = vec![Pool { max: 100, limits, ..pool("linux", &["linux", "x64"]) }];
        let mut world = World::new(settings(pools), Faults::default(), 13);
        world.thorough = false;
        world.job_longest_ms = 20_000;
        refuse_for_ever(&mut world);
        for _ in 0..6 * 3_600 {
            for index in 0..CAUSES.len() {
                if refused && world.below(900) == 0 {
                    world.queue(&format!("acme/refused-{index}"), &["linux"]);
                }
            }
            if world.below(120) == 0 {
                world.queue("acme/app", &["linux"]);
            }
            world.step(1_000);
        }
        let longest = world.figures.queue_ms_max;
        world.agree();
        world.settle();
        longest
    };
    let (alone, beside) = (longest_wait(false), longest_wait(true));
    println!("{alone} ms at most in the queue, {beside} ms beside targets that fail");
    // Webhooks are as late as 40 seconds in either world; a tick is a second.
    assert!(beside < 55_000 && beside <= alone.max(50_000) + 1_000, "{alone} and {beside}");
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
    let target: ServerTarget = "repo:acme/excluded".parse().unwrap();
    let excluded = |world: &World| world.figures.calls[&target];
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
