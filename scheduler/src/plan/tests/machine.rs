//! The memory, the CPUs and the disk of the machine that runners share.

use super::{adoption::found, *};

const UNLIMITED: Resources = Resources { memory_mib: 0, cpu_millis: 0 };

/// A machine with this for runners.
pub(super) fn machine(memory_mib: u64, cpu_millis: u64) -> Event {
    let (memory_mib, cpu_millis) = (Some(memory_mib), Some(cpu_millis));
    Event::Machine { provider: 0, machine: Machine { memory_mib, cpu_millis, disk: None } }
}

fn disk(free_mib: u64, reserve_mib: u64) -> Event {
    let disk = Some(Disk { free_mib, reserve_mib });
    Event::Machine { provider: 0, machine: Machine { disk, ..Machine::default() } }
}

fn promising(memory_mib: u64, cpu_millis: u64, pool: Pool) -> Pool {
    Pool { promised: Resources { memory_mib, cpu_millis }, ..pool }
}

fn pool_of(memory_mib: u64, cpu_millis: u64) -> Pool {
    promising(memory_mib, cpu_millis, linux_pool(10))
}

#[test]
fn runners_are_launched_as_long_as_all_of_them_can_use_what_their_pools_promise() {
    let mut plan = Plan::new(vec![pool_of(4_096, 0)]);
    plan.apply(machine(10_000, 8_000));
    let runner = plan.provisioning(1);
    one_launch(&plan.queue(2));
    assert_eq!(plan.queue(3), []);
    let reason = Waiting::HostMemory { needed_mib: 4_096, free_mib: 1_808, total_mib: 10_000 };
    assert_eq!((plan.reason(3), reason.as_str()), (reason.clone(), "host_memory"));
    let text = "its runner may use 4096 MiB of memory; free of the 10000 MiB that the host has for \
                runners: 1808";
    assert_eq!(reason.to_string(), text);

    plan.launched(&runner);
    plan.start(1, &runner);
    // Its memory is free once its container has ended.
    one_launch(&plan.exit(&runner, 0));
}

#[test]
fn cpus_count_in_thousandths() {
    let mut plan = Plan::new(vec![pool_of(0, 1_500)]);
    plan.apply(machine(1, 4_000));
    plan.queue(1);
    plan.queue(2);
    assert_eq!(plan.queue(3), []);
    let reason = plan.reason(3);
    assert_eq!(reason.as_str(), "host_cpus");
    let text = "its runner may use 1.5 CPUs; free of the 4 that the host has for runners: 1";
    assert_eq!(reason.to_string(), text);
}

#[test]
fn a_promise_that_never_fits_is_said_as_that() {
    let mut plan = Plan::new(vec![pool_of(4_096, 0), promising(0, 9_000, pool("cpus", &["cpus"]))]);
    plan.apply(machine(4_000, 8_000));
    plan.queue(1);
    let text = "its runner may use 4096 MiB of memory, and the host has 4000 MiB for runners: \
                lower memory_mib, or docker.reserve_memory_mib";
    assert_eq!(plan.reason(1).to_string(), text);
    plan.apply(Event::JobQueued(job(2, &["cpus"])));
    let text = "its runner may use 9 CPUs, and the host has 8 for runners: lower cpus, or \
                docker.reserve_cpus";
    assert_eq!(plan.reason(2).to_string(), text);
}

#[test]
fn a_pool_without_limits_and_an_unknown_machine_are_not_held_up() {
    let mut plan = Plan::new(vec![pool_of(4_096, 1_000), promising(0, 0, pool("any", &["any"]))]);
    plan.provisioning(1);
    plan.provisioning(2);
    plan.apply(machine(0, 0));
    assert_eq!(plan.queue(3), []);
    one_launch(&plan.apply(Event::JobQueued(job(4, &["any"]))));
    // What it has is not limited any more.
    one_launch(&plan.apply(Event::Machine { provider: 0, machine: Machine::default() }));
}

#[test]
fn nothing_is_launched_while_the_disk_is_nearly_full() {
    let mut plan = Plan::new(vec![promising(0, 0, linux_pool(10))]);
    plan.apply(disk(1_023, 1_024));
    assert_eq!(plan.queue(1), []);
    let reason = Waiting::HostDisk { free_mib: 1_023, reserve_mib: 1_024 };
    assert_eq!((plan.reason(1), reason.as_str()), (reason.clone(), "host_disk"));
    assert!(reason.to_string().contains("has 1023 MiB free"), "{reason}");
    one_launch(&plan.apply(disk(1_024, 1_024)));
}

#[test]
fn what_adopted_runners_may_use_counts() {
    let mut plan = Plan::unrecovered_with(settings(vec![pool_of(600, 0)]));
    plan.apply(Event::Adopted(found("a", None, AdoptedContainer::Running)));
    plan.apply(machine(1_000, 0));
    plan.apply(Event::Recovered { provider: 0 });
    plan.queue(1);
    plan.queue(2);
    assert_eq!(plan.reason(2).as_str(), "host_memory");
}

#[test]
fn a_job_moves_to_a_pool_whose_runner_fits() {
    let large = Pool { priority: 1, ..pool_of(700, 0) };
    let small = promising(200, 0, pool("small", &["linux", "x64"]));
    let mut plan = Plan::new(vec![large, small]);
    plan.apply(machine(1_000, 0));
    let pool_of_launch = |plan: &Plan, actions: &[Action]| {
        plan.state.runner(&one_launch(actions)).unwrap().pool.clone()
    };
    let (first, second) = (plan.queue(1), plan.queue(2));
    assert_eq!(pool_of_launch(&plan, &first), "linux");
    assert_eq!(pool_of_launch(&plan, &second), "small");
}

#[test]
fn idle_runners_make_room_for_a_job_elsewhere_if_that_is_enough() {
    let two = promising(900, 2_000, pool("two", &["two"]));
    let mut plan = Plan::new(vec![pool_of(500, 1_000), two]);
    plan.apply(machine(1_000, 2_000));
    let (other, one) = (plan.busy(2), plan.surplus(1));
    // Too much is in use while the other one is busy, so no runner is ended for it.
    let actions = plan.apply(Event::JobQueued(job(3, &["two"])));
    assert_eq!(removals(&actions), [] as [&Removal; 0]);
    assert_eq!(plan.reason(3).as_str(), "host_memory");

    plan.complete(2, &other);
    let ended = plan.exit(&other, 0);
    assert!(removals(&ended).iter().any(|removal| removal.runner == one), "{ended:?}");
    assert_eq!(plan.why(&one), EndReason::Preempted);
    one_launch(&plan.apply(removed(&one)));
}

#[test]
fn runners_hold_what_their_pool_promised_when_they_were_launched() {
    let mut plan = Plan::new(vec![pool_of(400, 0)]);
    plan.apply(machine(1_000, 0));
    plan.busy(1);
    plan.apply(Event::Pools(vec![pool_of(700, 0)]));
    assert_eq!(plan.queue(2), []);
    let reason = Waiting::HostMemory { needed_mib: 700, free_mib: 600, total_mib: 1_000 };
    assert_eq!(plan.reason(2), reason);
    one_launch(&plan.apply(Event::Pools(vec![pool_of(600, 0)])));
    assert_eq!(plan.state.promised(0), Resources { memory_mib: 1_000, ..UNLIMITED });
}
