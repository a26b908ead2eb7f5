//! Devices that each runner has for itself.

use super::{adoption::found, *};

/// A host with this many devices.
fn with(devices: usize, pools: Vec<Pool>) -> Settings {
    Settings { devices: (0..devices).map(|id| id.to_string()).collect(), ..settings(pools) }
}

fn pool_of(devices: usize) -> Pool {
    Pool { devices, ..linux_pool(10) }
}

fn devices_of(actions: &[Action]) -> Vec<Vec<String>> {
    let launches = actions.iter().filter_map(|action| match action {
        Action::Launch(launch) => Some(launch.devices.clone()),
        _ => None,
    });
    launches.collect()
}

#[test]
fn each_runner_gets_devices_of_its_own_until_its_container_has_ended() {
    let mut plan = Plan::with(with(5, vec![pool_of(2)]));
    let first = plan.queue(1);
    assert_eq!(devices_of(&first), [["0", "1"]]);
    assert_eq!(devices_of(&plan.queue(2)), [["2", "3"]]);
    // One is left, and two are needed.
    assert_eq!(plan.queue(3), []);
    let reason = Waiting::HostDevices { needed: 2, free: 1, total: 5 };
    assert_eq!((plan.reason(3), reason.as_str()), (reason.clone(), "host_devices"));
    let text = "its runner needs 2 of the host's 5 devices for itself; free: 1";
    assert_eq!(reason.to_string(), text);

    let runner = one_launch(&first);
    plan.launched(&runner);
    plan.start(1, &runner);
    // Although GitHub still has its registration.
    assert_eq!(devices_of(&plan.exit(&runner, 0)), [["0", "1"]]);
}

#[test]
fn a_launch_that_failed_keeps_its_devices_while_a_container_may_exist() {
    let mut plan = Plan::with(with(1, vec![pool_of(1), Pool { max: 1, ..pool("gpu", &["gpu"]) }]));
    let runner = plan.provisioning(1);
    let failed = plan.apply(Event::LaunchFailed {
        runner: runner.clone(),
        cause: Cause::TimedOut,
        message: "no answer".into(),
        retry_after_ms: 0,
        may_exist: true,
    });
    assert_eq!(devices_of(&failed), [] as [Vec<String>; 0]);
    assert_eq!(devices_of(&plan.wait(60_000)), [] as [Vec<String>; 0]);
    let mut actions = plan.apply(removed(&runner));
    actions.extend(plan.wait(120_000));
    assert_eq!(devices_of(&actions), [["0"]]);
}

#[test]
fn a_pool_that_needs_none_is_not_held_up() {
    let mut plan = Plan::with(with(1, vec![pool_of(1), pool("plain", &["plain"])]));
    plan.provisioning(1);
    assert_eq!(plan.queue(2), []);
    let plain = plan.apply(Event::JobQueued(job(3, &["plain"])));
    assert_eq!(devices_of(&plain), [[] as [&str; 0]]);
}

#[test]
fn the_devices_of_adopted_runners_count() {
    let mut plan = Plan::unrecovered_with(with(2, vec![pool_of(1)]));
    let devices = vec!["1".to_owned()];
    let adopted = Adopted { devices, ..found("a", None, AdoptedContainer::Running) };
    plan.apply(Event::Adopted(adopted));
    plan.apply(Event::Recovered { provider: 0 });
    plan.queue(1);
    assert_eq!(devices_of(&plan.queue(2)), [["0"]]);
    plan.queue(3);
    assert_eq!(plan.reason(3).as_str(), "host_devices");
}

#[test]
fn a_job_moves_to_a_pool_that_needs_no_devices_while_none_is_free() {
    let pools = vec![Pool { priority: 1, ..pool_of(1) }, pool("plain", &["linux", "x64"])];
    let mut plan = Plan::with(with(1, pools));
    let pool_of_launch = |plan: &Plan, actions: &[Action]| {
        plan.state.runner(&one_launch(actions)).unwrap().pool.clone()
    };
    let (first, second) = (plan.queue(1), plan.queue(2));
    assert_eq!(pool_of_launch(&plan, &first), "linux");
    assert_eq!(pool_of_launch(&plan, &second), "plain");
}

#[test]
fn an_idle_runner_gives_its_devices_to_a_job_elsewhere() {
    let mut plan =
        Plan::with(with(2, vec![pool_of(1), Pool { devices: 2, ..pool("two", &["two"]) }]));
    let (other, one) = (plan.busy(2), plan.surplus(1));
    // Two are never free while the other one is busy, so no runner is ended for them.
    let actions = plan.apply(Event::JobQueued(job(3, &["two"])));
    assert_eq!(removals(&actions), [] as [&Removal; 0]);
    assert_eq!(plan.reason(3).as_str(), "host_devices");

    plan.complete(2, &other);
    let ended = plan.exit(&other, 0);
    assert!(removals(&ended).iter().any(|removal| removal.runner == one), "{ended:?}");
    assert_eq!(plan.why(&one), EndReason::Preempted);
    assert_eq!(devices_of(&plan.apply(removed(&one))), [["0", "1"]]);
}

#[test]
fn a_reload_keeps_what_runners_have() {
    let mut plan = Plan::with(with(2, vec![pool_of(1)]));
    plan.busy(1);
    plan.apply(Event::Pools(vec![pool_of(2)]));
    assert_eq!(plan.queue(2), []);
    assert_eq!(plan.reason(2), Waiting::HostDevices { needed: 2, free: 1, total: 2 });
    let reloaded = plan.apply(Event::Pools(vec![pool_of(1), pool("new", &["new"])]));
    assert_eq!(devices_of(&reloaded), [["1"]]);
}
