//! Parked runners.

use super::{adoption::found, *};

const HOUR_MS: u64 = 3_600_000;

fn parking_pool(parked: usize) -> Pool {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    Pool { parked, repositories, ..linux_pool(2) }
}

fn parks(actions: &[Action]) -> Vec<String> {
    let parks = actions.iter().filter_map(|action| match action {
        Action::Launch(launch) if launch.park => Some(launch.runner.clone()),
        _ => None,
    });
    parks.collect()
}

fn wakes(actions: &[Action]) -> Vec<String> {
    let wakes = actions.iter().filter_map(|action| match action {
        Action::Wake(wake) => Some(wake.runner.clone()),
        _ => None,
    });
    wakes.collect()
}

fn cold(actions: &[Action]) -> usize {
    launches(actions).len() - parks(actions).len()
}

impl Plan {
    fn parked(&mut self, runner: &str) -> Vec<Action> {
        self.apply(Event::Registered { runner: runner.into(), registration_id: 7 });
        self.apply(Event::Parked { runner: runner.into(), started: true })
    }

    fn wake_failed(&mut self, runner: &str, cause: Cause, gone: bool) -> Vec<Action> {
        let (runner, message) = (runner.into(), "no reason".into());
        self.apply(Event::WakeFailed { runner, cause, message, gone })
    }
}

/// Those that are about to be parked.
fn parking(plan: &Plan) -> Vec<String> {
    let parking = plan.state.runners().filter(|it| it.phase.as_str() == "parking");
    let mut parking: Vec<String> = parking.map(|runner| runner.name.clone()).collect();
    parking.sort_unstable();
    parking
}

/// A planner with its runners parked, and their names.
fn parked(count: usize) -> (Plan, Vec<String>) {
    let mut plan = Plan::new(vec![parking_pool(count)]);
    let runners = parking(&plan);
    for runner in &runners {
        plan.parked(runner);
    }
    (plan, runners)
}

#[test]
fn as_many_are_parked_as_the_pool_says_and_none_takes_a_place() {
    let mut plan = Plan::unrecovered(vec![parking_pool(3)]);
    let runners = parks(&plan.apply(Event::Recovered { provider: 0 }));
    assert_eq!(runners.len(), 3);
    assert_eq!(plan.phase(&runners[0]), "parking");
    for runner in &runners {
        plan.progress(runner, Stage::Container);
        plan.parked(runner);
        assert_eq!(plan.phase(runner), "parked");
    }
    assert_eq!((plan.state.live(), plan.state.launching()), (0, 0));
    // The pool has two places, so the third job waits for one and not for a parked runner.
    assert_eq!(wakes(&plan.queue(1)).len(), 1);
    assert_eq!(wakes(&plan.queue(2)).len(), 1);
    assert_eq!(plan.state.live(), 2);
    assert_eq!(wakes(&plan.queue(3)).len(), 0);
    assert_eq!(plan.reason(3), Waiting::PoolMax { max: 2 });
}

#[test]
fn a_job_wakes_the_oldest_one_and_another_is_parked() {
    let (mut plan, runners) = parked(2);
    let actions = plan.queue(1);
    assert_eq!(wakes(&actions), [runners.iter().min().unwrap().clone()]);
    assert_eq!((cold(&actions), parks(&actions).len()), (0, 1));
    let woken = wakes(&actions).remove(0);
    assert_eq!(plan.phase(&woken), "starting");
    plan.list(&woken, true, false);
    plan.start(1, &woken);
    assert_eq!(plan.phase(&woken), "busy");
    plan.complete(1, &woken);
    plan.exit(&woken, 0);
    assert_eq!(plan.why(&woken), EndReason::Done);
}

#[test]
fn more_jobs_than_parked_runners_get_launches_first() {
    let mut pool = parking_pool(1);
    pool.max = 20;
    let mut plan = Plan::new(vec![pool]);
    let runner = parking(&plan).remove(0);
    plan.parked(&runner);
    let mut wakened = 0;
    let mut launched = 0;
    for id in 1..=12 {
        let actions = plan.queue(id);
        (wakened, launched) = (wakened + wakes(&actions).len(), launched + cold(&actions));
    }
    assert_eq!((wakened, launched), (1, 11));
}

#[test]
fn github_is_not_needed_to_wake_one() {
    let (mut plan, _) = parked(1);
    let woken = wakes(&plan.queue(1));
    assert_eq!(woken.len(), 1);
    let other = {
        let launched = launches(&plan.queue(2));
        let parking = plan.state.runners().find(|it| it.phase.as_str() == "parking");
        assert_eq!(launched.len(), 1);
        parking.unwrap().name.clone()
    };
    plan.parked(&other);
    let cold = plan.state.runners().find(|it| it.phase.as_str() == "provisioning").unwrap();
    let cold = cold.name.clone();
    let actions = plan.fail(&cold, Cause::GitHubUnavailable);
    assert_eq!(wakes(&actions), [other]);
}

#[test]
fn one_that_died_or_that_github_dropped_is_replaced() {
    let (mut plan, runners) = parked(2);
    plan.now += 120_000;
    let actions = plan.exit(&runners[0], 137);
    assert_eq!(plan.why(&runners[0]), EndReason::DiedParked { exit_code: 137 });
    assert!(one_removal(&actions).deregister);
    let other = parks(&actions);
    assert_eq!(other.len(), 1);
    plan.parked(&other[0]);
    assert_eq!(plan.state.backoffs().count(), 0);

    let asked = look_ups(&plan.wait(HOUR_MS / 2 - 115_000));
    assert_eq!(asked.len(), 1);
    let missing = |plan: &mut Plan| {
        let kept = Registration { name: other[0].clone(), id: 7, online: false, busy: false };
        plan.now += 1_000;
        let (target, requested_at) = ("repo:acme/app".parse().unwrap(), plan.moment().instant);
        plan.apply(Event::Registrations { target, runners: vec![kept], requested_at })
    };
    assert_eq!(look_ups(&missing(&mut plan)).len(), 1);
    let actions = missing(&mut plan);
    assert_eq!(plan.why(&runners[1]), EndReason::Unregistered);
    assert_eq!(parks(&actions).len(), 1);
    assert_eq!(plan.phase(&other[0]), "parked");
}

#[test]
fn one_that_cannot_be_woken_makes_way_for_the_next() {
    let (mut plan, _) = parked(2);
    let first = wakes(&plan.queue(1)).remove(0);
    let actions = plan.wake_failed(&first, Cause::Container, true);
    assert_eq!(plan.why(&first), EndReason::WakeFailed);
    let second = wakes(&actions);
    assert_eq!(second.len(), 1);
    // Its shell does not answer: it is left to a launch to find out what is wrong.
    let actions = plan.wake_failed(&second[0], Cause::DockerUnavailable, false);
    assert_eq!(wakes(&actions), [] as [String; 0]);
    let mut actions = plan.wait(2_000);
    actions.retain(|action| matches!(action, Action::Launch(launch) if !launch.park));
    assert_eq!(actions.len(), 1);
}

#[test]
fn after_one_that_never_came_online_jobs_get_launches_until_a_runner_was() {
    let (mut plan, _) = parked(2);
    let first = wakes(&plan.queue(1)).remove(0);
    let actions = plan.exit(&first, 1);
    assert_eq!(plan.why(&first), EndReason::Unused { exit_code: 1 });
    assert_eq!(plan.state.backoffs().count(), 0, "the pool is not to blame");
    assert_eq!((wakes(&actions).len(), cold(&actions)), (0, 1));
    let launched = launches(&actions).into_iter().find(|it| !parks(&actions).contains(it));
    let launched = launched.unwrap();
    plan.launched(&launched);
    plan.list(&launched, true, false);
    plan.start(1, &launched);
    assert_eq!(wakes(&plan.queue(2)).len(), 1);
}

#[test]
fn they_are_renewed_one_after_the_other_and_at_once_after_a_change() {
    let (mut plan, runners) = parked(2);
    let actions = plan.wait(12 * HOUR_MS);
    let renewed = removals(&actions);
    assert_eq!(renewed.len(), 1);
    assert!(renewed[0].container_first && renewed[0].deregister);
    assert_eq!(plan.why(&renewed[0].runner), EndReason::Renewed);
    assert_eq!(removals(&plan.wait(60_000)).len(), 0, "its place is not filled yet");
    let new = plan.state.runners().find(|it| it.phase.as_str() == "parking").unwrap();
    let new = new.name.clone();
    plan.parked(&new);
    assert_eq!(removals(&plan.wait(11_000)).len(), 1);

    let kept: Vec<Pool> = vec![Pool { revision: 7, ..parking_pool(2) }];
    plan.apply(Event::Pools(kept));
    plan.wait(1_000);
    assert_eq!(plan.why(&new), EndReason::Renewed);
    assert!(runners.iter().all(|it| plan.phase(it) != "parked"));
}

#[test]
fn too_many_are_removed_after_a_reload_and_all_of_a_drained_pool() {
    let (mut plan, _) = parked(3);
    let actions = plan.apply(Event::Pools(vec![parking_pool(1)]));
    assert_eq!(removals(&actions).len(), 2);
    let actions = plan.apply(Event::Drain { pool: Some(0), draining: true });
    assert_eq!(removals(&actions).len(), 1);
    assert_eq!(parks(&plan.wait(10_000)), [] as [String; 0]);
    let actions = plan.apply(Event::Drain { pool: Some(0), draining: false });
    assert_eq!(parks(&actions).len(), 1);
}

#[test]
fn a_failure_to_park_pauses_parking_and_no_job() {
    let mut plan = Plan::new(vec![parking_pool(1)]);
    let runner = parking(&plan).remove(0);
    let actions = plan.fail(&runner, Cause::Container);
    assert_eq!((parks(&actions).len(), plan.state.backoffs().count()), (0, 0));
    assert_eq!(cold(&plan.queue(1)), 1);
    assert_eq!(parks(&plan.wait(59_000)).len(), 0);
    assert_eq!(parks(&plan.wait(2_000)).len(), 1);
}

fn left(container: AdoptedContainer, started: bool, woken: bool) -> Adopted {
    let parked = Some(Parked { started, revision: 0, woken });
    Adopted { parked, ..found("a", None, container) }
}

#[test]
fn a_restart_keeps_them_and_wakes_those_again_that_were_to_be_woken() {
    let adopted = |adopted: Adopted| {
        let mut plan = Plan::unrecovered(vec![parking_pool(1)]);
        plan.now = 10 * HOUR_MS;
        let adopted = Adopted { created_at: plan.moment().wall - HOUR_MS, ..adopted };
        let mut actions = plan.apply(Event::Adopted(adopted.clone()));
        plan.apply_without_effect(Event::Adopted(adopted));
        actions.extend(plan.apply(Event::Recovered { provider: 0 }));
        (plan.phase("a"), wakes(&actions).len(), parks(&actions).len())
    };
    use AdoptedContainer::{Created, Exited, Missing, Running};
    assert_eq!(adopted(left(Running, true, false)), ("parked", 0, 0));
    assert_eq!(adopted(left(Created, false, false)), ("parked", 0, 0));
    // Another line, or another start, does nothing if its command has begun.
    assert_eq!(adopted(left(Running, true, true)), ("starting", 1, 1));
    assert_eq!(adopted(left(Created, false, true)), ("starting", 1, 1));
    assert_eq!(adopted(left(Running, false, false)), ("starting", 1, 1));
    // Its shell was not started any more.
    assert_eq!(adopted(left(Created, true, false)), ("leaving", 0, 1));
    assert_eq!(adopted(left(Exited(137.into()), true, false)), ("leaving", 0, 1));
    assert_eq!(adopted(left(Missing, true, false)), ("leaving", 0, 1));
}

#[test]
fn one_that_github_has_as_online_after_all_is_counted() {
    let (mut plan, runners) = parked(1);
    plan.list(&runners[0], true, false);
    assert_eq!((plan.phase(&runners[0]), plan.state.live()), ("idle", 1));

    let (mut plan, runners) = parked(1);
    plan.start(1, &runners[0]);
    assert_eq!((plan.phase(&runners[0]), plan.state.live()), ("busy", 1));
}
