//! Removal of runners by an operator.

use super::*;

fn remove(plan: &mut Plan, runner: &str, force: bool) -> Vec<Removal> {
    let actions = plan.apply(Event::RemoveRunner { runner: runner.into(), force });
    let removals = actions.into_iter().filter_map(|action| match action {
        Action::Remove(removal) => Some(removal),
        _ => None,
    });
    removals.collect()
}

#[test]
fn an_idle_runner_is_deregistered_and_removed() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let idle = plan.idle(1);
    let removals = remove(&mut plan, &idle, false);
    assert!(matches!(&removals[..], [Removal { deregister: true, force: false, .. }]));
    // Only once.
    assert_eq!(remove(&mut plan, &idle, false), []);
}

#[test]
fn a_busy_runner_is_removed_only_by_force_and_then_even_against_github() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let busy = plan.idle(1);
    plan.start(1, &busy);
    assert_eq!(remove(&mut plan, &busy, false), []);
    assert_eq!(plan.state.runner(&busy).unwrap().phase, Phase::Busy);
    let removals = remove(&mut plan, &busy, true);
    assert!(matches!(&removals[..], [Removal { force: true, .. }]), "{removals:?}");
    plan.apply(Event::RemovalRefused { runner: busy.clone() });
    assert!(matches!(plan.state.runner(&busy).unwrap().phase, Phase::Removing(_)));
}

#[test]
fn a_runner_cannot_be_removed_while_it_is_being_launched() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let launching = plan.provisioning(1);
    assert_eq!(remove(&mut plan, &launching, true), []);
    plan.apply_without_effect(Event::RemoveRunner { runner: "nobody".into(), force: true });
}
