//! Jobs that several pools match: the next one takes over while the best cannot serve them.

use super::*;

fn gpu_pool(max: usize) -> Pool {
    Pool { max, ..pool("gpu", &["gpu"]) }
}

/// Both pools match jobs that ask only for `self-hosted`; `gpu` is the best.
fn two_pools(gpu: usize, linux: usize) -> Plan {
    Plan::new(vec![gpu_pool(gpu), Pool { max: linux, ..pool("linux", &["linux", "x64"]) }])
}

fn plain(id: u64) -> Event {
    Event::JobQueued(job(id, &["self-hosted"]))
}

fn pools_of(plan: &Plan, runners: &[String]) -> Vec<String> {
    runners.iter().map(|runner| plan.state.runner(runner).unwrap().pool.clone()).collect()
}

fn queue(plan: &mut Plan, ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    let runners: Vec<String> =
        ids.into_iter().flat_map(|id| launches(&plan.apply(plain(id)))).collect();
    pools_of(plan, &runners)
}

#[test]
fn the_next_pool_takes_over_while_the_best_is_full() {
    let mut plan = two_pools(1, 2);
    assert_eq!(queue(&mut plan, 1..=4), ["gpu", "linux", "linux"]);
    assert_eq!(plan.reason(4), Waiting::PoolMax { max: 1 });
    // The place that becomes free first serves the job that waits, in whichever pool it is.
    let runner = plan.state.runners().find(|it| it.pool == "linux").unwrap().name.clone();
    plan.launched(&runner);
    plan.apply(Event::JobStarted { job: job(2, &["self-hosted"]), runner: runner.clone() });
    let next = one_launch(&plan.exit(&runner, 0));
    assert_eq!(pools_of(&plan, &[next]), ["linux"]);
}

#[test]
fn the_next_pool_takes_over_while_the_best_drains() {
    let mut plan = two_pools(5, 5);
    plan.apply(Event::Drain { pool: Some(0), draining: true });
    assert_eq!(queue(&mut plan, 1..=2), ["linux", "linux"]);
    plan.apply(Event::Drain { pool: Some(0), draining: false });
    assert_eq!(queue(&mut plan, 3..=3), ["gpu"]);
    // Also for jobs that were queued before.
    let mut plan = two_pools(1, 5);
    plan.apply(Event::Drain { pool: Some(1), draining: true });
    assert_eq!(queue(&mut plan, 1..=3), ["gpu"]);
    plan.apply(Event::Drain { pool: Some(0), draining: true });
    let actions = plan.apply(Event::Drain { pool: Some(1), draining: false });
    assert_eq!(pools_of(&plan, &launches(&actions)), ["linux", "linux"]);
}

#[test]
fn the_next_pool_takes_over_while_the_best_fails() {
    for cause in [Cause::Image, Cause::Rejected] {
        let mut plan = two_pools(10, 6);
        let first = one_launch(&plan.apply(plain(1)));
        let actions = plan.fail(&first, cause);
        assert_eq!(pools_of(&plan, &launches(&actions)), ["linux"], "{cause:?}");
        assert_eq!(queue(&mut plan, 2..=6), ["linux"; 5], "{cause:?}");
        // When the back-off is over, one launch tries the best pool again.
        plan.wait(7_000);
        let runner = one_launch(&plan.apply(plain(7)));
        assert_eq!(pools_of(&plan, std::slice::from_ref(&runner)), ["gpu"], "{cause:?}");
        plan.launched(&runner);
        plan.list(&runner, true, false);
        assert_eq!(queue(&mut plan, 8..=9), ["gpu", "gpu"], "{cause:?}");
    }
}

#[test]
fn jobs_of_a_failing_pool_queue_where_they_are_served_first() {
    let mut plan = two_pools(10, 1);
    let first = one_launch(&plan.apply(plain(1)));
    plan.fail(&first, Cause::Image);
    assert_eq!(queue(&mut plan, 2..=3), [] as [String; 0]);
    // A younger job that only the other pool serves does not overtake them.
    plan.apply(Event::JobQueued(job(9, &["linux"])));
    assert_eq!(plan.reason(2), Waiting::PoolMax { max: 1 });
    let runner = plan.state.runners().find(|it| it.pool == "linux").unwrap().name.clone();
    plan.launched(&runner);
    plan.apply(Event::JobStarted { job: job(1, &["self-hosted"]), runner: runner.clone() });
    let actions = plan.exit(&runner, 0);
    let prompted = actions.iter().find_map(|action| match action {
        Action::Launch(launch) => launch.prompted_by.clone(),
        _ => None,
    });
    assert_eq!(prompted.as_deref(), Some("delivery-2"));
}

#[test]
fn a_target_that_fails_moves_its_own_jobs_only() {
    let mut plan = two_pools(10, 10);
    let first = one_launch(&plan.apply(plain(1)));
    plan.fail(&first, Cause::Forbidden);
    let elsewhere = Event::JobQueued(at("acme/lib", job(2, &["self-hosted"])));
    let runner = one_launch(&plan.apply(elsewhere));
    assert_eq!(pools_of(&plan, &[runner]), ["gpu"]);
}

#[test]
fn a_place_in_the_next_pool_may_be_preempted() {
    let mut plan = two_pools(1, 1);
    plan.apply(plain(1));
    let idle = one_launch(&plan.apply(Event::JobQueued(at("acme/lib", job(2, &["linux"])))));
    plan.launched(&idle);
    plan.list(&idle, true, false);
    plan.apply(Event::JobCompleted {
        job: at("acme/lib", job(2, &["linux"])),
        runner: String::new(),
    });
    let actions = plan.apply(plain(3));
    assert_eq!(one_removal(&actions).runner, idle);
    let runner = one_launch(&plan.apply(removed(&idle)));
    assert_eq!(pools_of(&plan, &[runner]), ["linux"]);
}

#[test]
fn a_limited_repository_spills_over_as_well() {
    let pools = vec![gpu_pool(1), Pool { max: 5, ..pool("linux", &["linux", "x64"]) }];
    let mut plan = Plan::with(Settings { max_per_repository: 2, ..settings(pools) });
    assert_eq!(queue(&mut plan, 1..=6), ["gpu", "linux"]);
}

#[test]
fn a_reload_leaves_jobs_where_runners_were_launched_for_them() {
    let mut plan = two_pools(1, 5);
    assert_eq!(queue(&mut plan, 1..=3), ["gpu", "linux", "linux"]);
    let pools = vec![Pool { max: 4, ..pool("linux", &["linux", "x64"]) }, gpu_pool(8)];
    assert_eq!(launches(&plan.apply(Event::Pools(pools))), [] as [String; 0]);
}

#[test]
fn a_job_that_only_one_pool_matches_waits_for_it() {
    let mut plan = two_pools(1, 5);
    plan.apply(Event::JobQueued(job(1, &["gpu"])));
    plan.apply(Event::JobQueued(job(2, &["gpu"])));
    assert_eq!(plan.reason(2), Waiting::PoolMax { max: 1 });
    assert_eq!(plan.state.live(), 1);
}
