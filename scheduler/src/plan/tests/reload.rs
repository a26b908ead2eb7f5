//! Replacing the pools of a running planner.

use super::*;

fn named(plan: &Plan, name: &str) -> usize {
    plan.state.settings.pools.iter().position(|pool| pool.name == name).unwrap()
}

#[test]
fn jobs_are_matched_again_and_runners_stay() {
    let mut plan = Plan::new(vec![linux_pool(1), pool("gpu", &["gpu"])]);
    let busy = plan.idle(1);
    plan.start(1, &busy);
    // Beyond `max`.
    assert_eq!(launches(&plan.queue(2)), Vec::<String>::new());
    plan.apply(Event::Drain { pool: Some(named(&plan, "gpu")), draining: true });

    let pools = vec![pool("gpu", &["gpu"]), pool("other", &["windows"]), linux_pool(2)];
    let actions = plan.apply(Event::Pools(pools));
    assert_eq!(launches(&actions).len(), 1, "{actions:?}");
    assert_eq!(plan.state.runner(&busy).unwrap().phase, Phase::Busy);
    assert!(plan.state.pool_draining(named(&plan, "gpu")));
    assert!(!plan.state.pool_draining(named(&plan, "other")));
}

#[test]
fn a_removed_pool_launches_nothing_and_its_runners_finish() {
    let mut plan = Plan::new(vec![linux_pool(3)]);
    let busy = plan.idle(1);
    plan.start(1, &busy);
    let idle = plan.idle(2);
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"])]));
    assert_eq!(launches(&plan.queue(3)), Vec::<String>::new());
    let removed = plan.wait(1_000);
    let removals: Vec<&str> = removed
        .iter()
        .filter_map(|action| match action {
            Action::Remove(removal) => Some(removal.runner.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(removals, [idle.as_str()]);
    assert_eq!(plan.state.runner(&busy).unwrap().phase, Phase::Busy);

    // The pool is back, and with it the job that waited for it.
    let actions = plan.apply(Event::Pools(vec![linux_pool(3)]));
    assert!(!launches(&actions).is_empty(), "{actions:?}");
}

#[test]
fn a_drained_pool_that_is_removed_and_added_again_is_still_drained() {
    let both = || vec![linux_pool(3), pool("gpu", &["gpu"])];
    let mut plan = Plan::new(both());
    plan.apply(Event::Drain { pool: Some(0), draining: true });
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"])]));
    assert!(!plan.state.pool_draining(0));
    plan.apply(Event::Pools(both()));
    assert!(plan.state.pool_draining(0) && !plan.state.pool_draining(1));
    assert_eq!(launches(&plan.queue(1)), [] as [String; 0]);

    // The same after a restart while the pool was not configured.
    let mut plan = Plan::new(vec![pool("gpu", &["gpu"])]);
    plan.state.drain_pool("linux");
    plan.apply(Event::Pools(both()));
    assert!(plan.state.pool_draining(0));
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"])]));
    // Resuming all ends every drain.
    plan.apply(Event::Drain { pool: None, draining: false });
    plan.apply(Event::Pools(both()));
    assert!(!plan.state.pool_draining(0));
}

#[test]
fn a_reload_of_the_same_pools_changes_nothing() {
    let pools = || vec![linux_pool(3), pool("gpu", &["gpu"])];
    let mut plan = Plan::new(pools());
    plan.idle(1);
    plan.apply(Event::JobQueued(job(2, &["windows"])));
    plan.wait(1_000);
    plan.apply_without_effect(Event::Pools(pools()));
    assert_eq!(plan.tick(), [], "no reason is announced again");
}

#[test]
fn back_offs_are_kept_for_the_pools_that_stay() {
    let mut plan = Plan::new(vec![linux_pool(3), pool("gpu", &["gpu"])]);
    let failing = plan.provisioning(1);
    plan.fail(&failing, Cause::Image);
    let blocked = |plan: &Plan| {
        let blocked = plan.state.backoffs().map(|(blocked, _)| plan.state.describe(blocked));
        blocked.collect::<Vec<_>>()
    };
    assert_eq!(blocked(&plan), ["pool linux"]);
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"]), linux_pool(3)]));
    assert_eq!(blocked(&plan), ["pool linux"]);
    plan.apply(Event::Pools(vec![pool("gpu", &["gpu"])]));
    assert_eq!(blocked(&plan), Vec::<String>::new());
}
