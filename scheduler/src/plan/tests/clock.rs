//! Setting the wall clock: limits, back-offs and the order of jobs do not depend on it.

use super::*;

const HOUR_MS: i64 = 3_600_000;
const STEPS: [i64; 2] = [HOUR_MS, -HOUR_MS];

#[test]
fn a_busy_runner_keeps_its_whole_time() {
    for step in STEPS {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        plan.now += 2 * HOUR_MS as u64;
        let runner = plan.busy(1);
        plan.clock_step = step;
        assert_eq!(removals(&plan.wait(3_599_000)), [] as [&Removal; 0], "{step}");
        assert_eq!(plan.phase(&runner), "busy");
        assert!(one_removal(&plan.wait(1_000)).force);
        assert_eq!(plan.why(&runner), EndReason::JobTooLong);
    }
}

#[test]
fn launches_starts_and_idle_runners_keep_their_limits() {
    for step in STEPS {
        for (start, limit_ms) in [
            (Plan::provisioning as fn(&mut Plan, u64) -> String, 130_000),
            (Plan::starting, 120_000),
            (Plan::surplus, 300_000),
        ] {
            let mut plan = Plan::new(vec![linux_pool(10)]);
            plan.now += 2 * HOUR_MS as u64;
            let runner = start(&mut plan, 1);
            if plan.phase(&runner) == "starting" {
                plan.list(&runner, false, false);
            }
            plan.clock_step = step;
            assert_eq!(removals(&plan.wait(limit_ms - 1)), [] as [&Removal; 0], "{step}");
            assert_eq!(one_removal(&plan.wait(1)).runner, runner);
        }
    }
}

#[test]
fn a_back_off_ends_neither_early_nor_late() {
    for step in STEPS {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        plan.now += 2 * HOUR_MS as u64;
        let runner = plan.provisioning(1);
        plan.apply(Event::LaunchFailed {
            runner,
            cause: Cause::RateLimited,
            message: String::new(),
            retry_after_ms: 90_000,
            may_exist: false,
        });
        plan.clock_step = step;
        assert_eq!(launches(&plan.wait(89_999)), [] as [String; 0], "{step}");
        assert_eq!(launches(&plan.wait(1)).len(), 1, "{step}");
    }
}

#[test]
fn jobs_are_served_in_the_order_in_which_they_arrived() {
    for step in STEPS {
        let mut plan = Plan::with(Settings { max: 1, ..settings(vec![linux_pool(10)]) });
        plan.now += 2 * HOUR_MS as u64;
        let queue = |plan: &mut Plan, id| {
            plan.now += 1_000;
            let queued_at = plan.moment().wall;
            plan.apply(Event::JobQueued(Job { queued_at, ..linux(id) }))
        };
        let mut runner = one_launch(&queue(&mut plan, 9));
        queue(&mut plan, 3);
        plan.clock_step = step;
        queue(&mut plan, 2);
        plan.clock_step = 0;
        queue(&mut plan, 1);
        let mut order = Vec::new();
        for id in [9, 3, 2] {
            plan.launched(&runner);
            plan.start(id, &runner);
            let actions = plan.exit(&runner, 0);
            let launch = actions.iter().find_map(|action| match action {
                Action::Launch(launch) => Some(launch.clone()),
                _ => None,
            });
            let launch = launch.expect("a launch for the next job");
            order.extend(launch.prompted_by);
            runner = launch.runner;
        }
        assert_eq!(order, ["delivery-3", "delivery-2", "delivery-1"], "{step}");
    }
}

#[test]
fn a_completed_job_is_remembered_for_an_hour() {
    for step in STEPS {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        plan.now += 2 * HOUR_MS as u64;
        plan.complete(1, "");
        plan.clock_step = step;
        plan.wait(3_599_000);
        assert_eq!(plan.queue(1), [], "{step}");
        plan.wait(2_000);
        assert!(plan.state.tombstones.is_empty());
    }
}

#[test]
fn look_ups_go_on_at_their_intervals() {
    for step in STEPS {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        plan.now += 2 * HOUR_MS as u64;
        plan.starting(1);
        assert_eq!(look_ups(&plan.wait(15_000)).len(), 1);
        plan.clock_step = step;
        assert_eq!(look_ups(&plan.wait(15_000)).len(), 3, "{step}");
    }
}

/// Ages come from the wall times of records. If the clock was set back, they are zero.
#[test]
fn after_a_restart_a_record_from_the_future_counts_as_new() {
    let mut plan = Plan::unrecovered(vec![linux_pool(1)]);
    let tomorrow = plan.moment().wall + 24 * HOUR_MS as u64;
    plan.apply(Event::JobQueued(Job { queued_at: tomorrow, ..linux(1) }));
    plan.apply(Event::JobQueued(Job { queued_at: plan.moment().wall - 1, ..linux(2) }));
    let since = |id| plan.state.queued_job(linux(id).key).unwrap().1;
    let now = plan.moment().instant;
    assert_eq!(since(1), now);
    assert_eq!(now.duration_since(since(2)), Duration::from_millis(1));
}
