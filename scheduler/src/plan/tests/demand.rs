//! How many runners are launched, in which lanes, and which are preempted.

use super::*;
use crate::plan::launch::LAUNCHING_MAX;

#[test]
fn as_many_are_launched_as_jobs_wait_without_a_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let first = plan.starting(1);
    assert_eq!(launches(&plan.queue(2)).len(), 1);
    assert_eq!(launches(&plan.start(1, &first)), [] as [String; 0]);
    assert_eq!(launches(&plan.queue(3)).len(), 1);
    assert_eq!(plan.state.live(), 3);
}

fn prompted_by(actions: &[Action]) -> Vec<&str> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Launch(launch) => launch.prompted_by.as_deref(),
            _ => None,
        })
        .collect()
}

#[test]
fn a_launch_names_the_delivery_of_the_oldest_job_without_a_runner() {
    let mut plan = Plan::with(Settings { max: 1, ..settings(vec![linux_pool(10)]) });
    let first = plan.busy(1);
    for id in [3, 2] {
        assert_eq!(plan.queue(id), []);
    }
    let actions = plan.exit(&first, 0);
    assert_eq!(prompted_by(&actions), ["delivery-2"]);

    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.provisioning(1);
    assert_eq!(prompted_by(&plan.queue(2)), ["delivery-2"]);
}

#[test]
fn a_pool_stays_within_its_max_and_continues_when_a_runner_ends() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    let runners: Vec<String> = (1..=5).flat_map(|id| launches(&plan.queue(id))).collect();
    assert_eq!(runners.len(), 2);
    for (id, runner) in (1..).zip(&runners) {
        plan.launched(runner);
        plan.start(id, runner);
    }
    assert_eq!(launches(&plan.exit(&runners[0], 0)).len(), 1);
    assert_eq!(plan.state.live(), 2);
}

#[test]
fn a_runner_that_is_being_removed_counts_until_its_container_has_stopped() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    plan.wait(300_000);
    assert_eq!(plan.why(&runner), EndReason::IdleTooLong);
    assert_eq!(plan.queue(2), []);
    assert_eq!(launches(&plan.apply(removed(&runner))).len(), 1);
}

#[test]
fn all_pools_together_stay_within_the_global_max() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max: 3, ..settings(pools) });
    for id in 1..=4 {
        plan.queue(id);
        plan.apply(Event::JobQueued(job(100 + id, &["gpu"])));
    }
    assert_eq!(plan.state.live(), 3);
}

#[test]
fn the_highest_priority_comes_first_and_then_the_oldest_job() {
    let pools =
        vec![linux_pool(10), Pool { priority: 1, ..pool("gpu", &["gpu"]) }, pool("arm", &["arm"])];
    let mut plan = Plan::with(Settings { max: 1, ..settings(pools) });
    let mut runner = plan.busy(1);
    plan.apply(Event::JobQueued(job(4, &["gpu"])));
    plan.apply(Event::JobQueued(job(3, &["linux"])));
    plan.apply(Event::JobQueued(job(2, &["arm"])));
    let mut order = Vec::new();
    for id in [4, 2, 3] {
        runner = one_launch(&plan.exit(&runner, 0));
        order.push(plan.state.runner(&runner).unwrap().pool.clone());
        plan.launched(&runner);
        let labels = plan.state.jobs[&JobKey::new(id, 1)].job.labels.clone();
        let job = Job { labels, ..linux(id) };
        plan.apply(Event::JobStarted { job, runner: runner.clone() });
    }
    assert_eq!(order, ["gpu", "arm", "linux"]);
}

#[test]
fn a_repository_stays_within_its_max_across_pools() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max_per_repository: 2, ..settings(pools) });
    let runner = plan.busy(1);
    plan.queue(2);
    assert_eq!(plan.apply(Event::JobQueued(job(3, &["gpu"]))), []);
    assert_eq!(plan.queue(4), []);
    // Another repository is not affected.
    let other = at("acme/other", linux(5));
    assert_eq!(launches(&plan.apply(Event::JobQueued(other))).len(), 1);
    assert_eq!(launches(&plan.complete(1, &runner)).len(), 1);
}

#[test]
fn the_exit_of_a_runner_ends_its_job_even_without_a_webhook() {
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![linux_pool(10)]) });
    let runner = plan.busy(1);
    assert_eq!(plan.queue(2), []);
    assert_eq!(launches(&plan.exit(&runner, 137)).len(), 1);
}

#[test]
fn a_job_whose_end_is_never_reported_is_given_up_after_githubs_limit() {
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![linux_pool(10)]) });
    plan.start(1, "someone-elses");
    assert_eq!(plan.queue(2), []);
    plan.now += 5 * 24 * 3_600_000;
    assert_eq!(launches(&plan.tick()), [] as [String; 0]);
    plan.now += 3_600_000;
    let actions = plan.apply(Event::Tick);
    assert_eq!(launches(&actions).len(), 1);
    // The store learns of it, or the next start would count it again.
    let given_up = |action: &Action| matches!(action, Action::GiveUpJob { job, .. } if job.id == 1);
    assert!(actions.iter().any(given_up), "{actions:?}");
}

#[test]
fn warm_runners_are_launched_kept_and_replaced() {
    let warm = Pool {
        min_idle: 2,
        repositories: vec![RepositoryPattern::parse("Acme/App").unwrap()],
        ..linux_pool(10)
    };
    let mut plan = Plan::unrecovered(vec![warm]);
    let runners = launches(&plan.apply(Event::Recovered { provider: 0 }));
    assert_eq!(runners.len(), 2);
    for runner in &runners {
        plan.launched(runner);
    }
    let target = plan.state.runner(&runners[0]).unwrap().target.clone();
    let all = |names: &[String]| -> Vec<Registration> {
        let listed =
            |name: &String| Registration { name: name.clone(), id: 1, online: true, busy: false };
        names.iter().map(listed).collect()
    };
    let requested_at = plan.moment().instant;
    plan.apply(Event::Registrations { target, runners: all(&runners), requested_at });
    assert_eq!(removals(&plan.wait(3_600_000)), [] as [&Removal; 0]);
    // A job will take one of them, so another one is launched to replace it, once. GitHub
    // spells the repository differently than the configuration.
    let job = at("Acme/App", linux(1));
    assert_eq!(launches(&plan.apply(Event::JobQueued(job.clone()))).len(), 1);
    let started = Event::JobStarted { job, runner: runners[0].clone() };
    assert_eq!(launches(&plan.apply(started)), [] as [String; 0]);
    assert_eq!(plan.state.live(), 3);
}

#[test]
fn an_idle_runner_is_preempted_for_a_job_in_another_lane() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let preemptible = plan.surplus(1);
    let elsewhere = Event::JobQueued(at("acme/lib", linux(2)));
    let actions = plan.apply(elsewhere.clone());
    let removal = one_removal(&actions);
    assert_eq!((&removal.runner, removal.deregister, removal.force), (&preemptible, true, false));
    assert_eq!(plan.why(&preemptible), EndReason::Preempted);
    assert_eq!(launches(&actions), [] as [String; 0]);
    plan.apply_without_effect(elsewhere);
    let runner = one_launch(&plan.apply(removed(&preemptible)));
    assert_eq!(plan.state.runner(&runner).unwrap().target.to_string(), "repo:acme/lib");
}

#[test]
fn a_preempted_runner_that_has_just_taken_a_job_stays() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let preemptible = plan.surplus(1);
    plan.apply(Event::JobQueued(at("acme/lib", linux(2))));
    let refused = Event::RemovalRefused { runner: preemptible.clone() };
    assert_eq!(plan.apply(refused), [Action::Record(preemptible.clone())]);
    assert_eq!(plan.phase(&preemptible), "busy");
    assert_eq!(plan.reason(2), Waiting::PoolMax { max: 1 });
    assert_eq!(launches(&plan.exit(&preemptible, 0)).len(), 1);
}

#[test]
fn an_idle_runner_is_preempted_for_another_pool_at_the_global_max() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max: 2, ..settings(pools) });
    plan.busy(2);
    let preemptible = plan.surplus(1);
    assert_eq!(one_removal(&plan.apply(Event::JobQueued(job(3, &["gpu"])))).runner, preemptible);
    assert_eq!(launches(&plan.apply(removed(&preemptible))).len(), 1);
}

#[test]
fn no_more_runners_are_preempted_than_jobs_wait_and_the_longest_idle_go_first() {
    let mut plan = Plan::new(vec![linux_pool(3)]);
    let runners = [1, 2, 3].map(|id| {
        plan.now += 1_000;
        plan.idle(id)
    });
    for id in 1..=3 {
        plan.complete(id, "");
    }
    let elsewhere = |id| Event::JobQueued(at("acme/lib", linux(id)));
    assert_eq!(one_removal(&plan.apply(elsewhere(4))).runner, runners[0]);
    assert_eq!(one_removal(&plan.apply(elsewhere(5))).runner, runners[1]);
    // The last one is needed by a job in its own lane.
    assert_eq!(plan.queue(6), []);
    plan.apply_without_effect(elsewhere(7));
}

#[test]
fn no_runner_is_preempted_while_another_is_being_removed() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    let (first, second) = (plan.idle(1), plan.starting(2));
    plan.complete(1, "");
    plan.complete(2, "");
    plan.wait(100_000);
    plan.list(&second, true, false);
    plan.wait(200_000);
    assert_eq!(plan.why(&first), EndReason::IdleTooLong);
    plan.apply_without_effect(Event::JobQueued(at("acme/lib", linux(3))));
    assert_eq!(plan.phase(&second), "idle");
}

#[test]
fn no_runner_is_preempted_without_need_or_without_effect() {
    let elsewhere = || Event::JobQueued(at("acme/lib", linux(2)));
    let removed_by = |plan: &mut Plan, event| removals(&plan.apply(event)).len();

    let mut plan = Plan::new(vec![linux_pool(2)]);
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "there is capacity");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.idle(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "a job waits for it");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.surplus(1);
    plan.apply(Event::Pause);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "nothing is launched");

    let mut plan = Plan::with(Settings {
        credentials: vec![credential("app", TargetPattern::parse("acme/app").unwrap())],
        ..settings(vec![linux_pool(1)])
    });
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "no credential serves the job");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = one_launch(&plan.apply(elsewhere()));
    plan.fail(&runner, Cause::Rejected);
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, Event::Tick), 0, "launches there are paused");

    let repositories = ["acme/app", "acme/lib"];
    let repositories = repositories.map(|it| RepositoryPattern::parse(it).unwrap()).into();
    let mut plan = Plan::new(vec![Pool { repositories, ..linux_pool(2) }]);
    plan.idle(1);
    plan.idle(3);
    plan.complete(1, "");
    plan.complete(3, "");
    assert_eq!(removed_by(&mut plan, Event::MinIdle { pool: 0, min_idle: 1 }), 0, "only to idle");
    assert_eq!(removed_by(&mut plan, elsewhere()), 1, "one of two is kept idle");
    let another = Event::JobQueued(at("acme/lib", linux(4)));
    assert_eq!(removed_by(&mut plan, another), 0, "the other one stays");
}

#[test]
fn a_burst_is_launched_a_few_at_a_time_so_that_no_launch_times_out_in_a_queue() {
    let mut plan = Plan::new(vec![linux_pool(1_000)]);
    let mut runners: Vec<String> = (1..=300).flat_map(|id| launches(&plan.queue(id))).collect();
    assert_eq!(runners.len(), LAUNCHING_MAX);
    for done in 0..300 {
        let runner = runners[done].clone();
        runners.extend(launches(&plan.launched(&runner)));
    }
    assert_eq!(runners.len(), 300);
}

#[test]
fn a_burst_over_many_pools_is_launched_a_few_at_a_time_too() {
    let mut plan = Plan::new(vec![linux_pool(1_000), pool("gpu", &["gpu"])]);
    for id in 1..=LAUNCHING_MAX as u64 {
        plan.provisioning(id);
    }
    let runner = plan.state.runners().next().unwrap().name.clone();
    assert_eq!(plan.apply(Event::JobQueued(job(1_000, &["gpu"]))), []);
    assert_eq!(launches(&plan.launched(&runner)).len(), 1);
}

#[test]
fn a_pool_that_pulls_its_image_does_not_delay_the_others() {
    let mut plan = Plan::new(vec![linux_pool(1_000), pool("gpu", &["gpu"])]);
    for id in 1..=100 {
        for runner in launches(&plan.queue(id)) {
            plan.apply(Event::Progress { runner, stage: Stage::Image });
        }
    }
    assert_eq!(plan.state.launching(), LAUNCHING_MAX);
    assert_eq!(launches(&plan.apply(Event::JobQueued(job(101, &["gpu"])))).len(), 1);
}

#[test]
fn nothing_is_launched_before_recovery_nor_after_a_pause() {
    let mut plan = Plan::unrecovered(vec![linux_pool(9)]);
    assert_eq!(plan.queue(1), []);
    assert_eq!(launches(&plan.apply(Event::Recovered { provider: 0 })).len(), 1);
    plan.apply(Event::Pause);
    assert_eq!(plan.queue(2), []);
}

#[test]
fn a_drain_launches_nothing_removes_idle_runners_and_lets_busy_ones_finish() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (busy, starting, idle) = (plan.busy(1), plan.starting(2), plan.idle(3));
    let actions = plan.apply(Event::Drain { pool: None, draining: true });
    assert_eq!(one_removal(&actions).runner, idle);
    assert_eq!(plan.why(&idle), EndReason::Drained);
    plan.apply_without_effect(Event::Drain { pool: None, draining: true });
    assert_eq!(plan.queue(4), []);
    assert_eq!(one_removal(&plan.list(&starting, true, false)).runner, starting);
    assert_eq!(plan.phase(&busy), "busy");
    assert_eq!(launches(&plan.apply(Event::Drain { pool: None, draining: false })).len(), 3);
}

#[test]
fn a_higher_min_idle_launches_at_once_and_a_lower_one_waits_for_the_idle_limit() {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut plan = Plan::new(vec![Pool { repositories, ..linux_pool(5) }]);
    let runners = launches(&plan.apply(Event::MinIdle { pool: 0, min_idle: 2 }));
    assert_eq!(runners.len(), 2);
    plan.apply_without_effect(Event::MinIdle { pool: 0, min_idle: 2 });
    for runner in &runners {
        plan.launched(runner);
        plan.list(runner, true, false);
    }
    assert_eq!(plan.wait(700_000), plan.wait(0));
    plan.apply_without_effect(Event::MinIdle { pool: 0, min_idle: 1 });
    let actions = plan.wait(300_000);
    assert_eq!(removals(&actions).len(), 1);
    plan.apply(Event::MinIdle { pool: 0, min_idle: 0 });
    let actions = plan.wait(300_000);
    assert_eq!(plan.why(&one_removal(&actions).runner), EndReason::IdleTooLong);
}

#[test]
fn one_pool_drains_while_the_others_continue() {
    let mut plan = Plan::new(vec![linux_pool(10), pool("gpu", &["gpu"])]);
    let (busy, idle) = (plan.busy(2), plan.surplus(1));
    let drain = |draining| Event::Drain { pool: Some(0), draining };
    let actions = plan.apply(drain(true));
    assert_eq!(one_removal(&actions).runner, idle);
    plan.apply_without_effect(drain(true));
    assert_eq!(plan.phase(&busy), "busy");
    assert_eq!(launches(&plan.queue(3)), [] as [String; 0]);
    assert_eq!(plan.reason(3), Waiting::Draining { pool: Some("linux".into()) });
    assert_eq!(launches(&plan.apply(Event::JobQueued(job(4, &["gpu"])))).len(), 1);

    // Resuming one pool does not end the drain of all; resuming all ends every drain.
    let all = |draining| Event::Drain { pool: None, draining };
    plan.apply(all(true));
    plan.apply(drain(false));
    assert_eq!(plan.reason(3), Waiting::Draining { pool: None });
    plan.apply(drain(true));
    assert_eq!(launches(&plan.apply(all(false))).len(), 1);
    assert!(!plan.state.draining() && !plan.state.pool_draining(0));
}
