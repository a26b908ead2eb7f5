//! How many are launched, and for whom.

use super::*;
use crate::plan::demand::LAUNCHING_MAX;

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
fn a_launch_names_the_delivery_that_waits_longest_without_a_runner() {
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
fn a_pool_stays_within_its_max_and_goes_on_when_a_place_is_free() {
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
fn a_runner_that_is_removed_takes_its_place_until_its_container_has_stopped() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    plan.wait(300_000);
    assert_eq!(plan.why(&runner), EndReason::IdleTooLong);
    assert_eq!(plan.queue(2), []);
    assert_eq!(launches(&plan.tell(removed(&runner))).len(), 1);
}

#[test]
fn all_pools_together_stay_within_the_global_max() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max: 3, ..settings(pools) });
    for id in 1..=4 {
        plan.queue(id);
        plan.tell(Event::JobQueued(job(100 + id, &["gpu"])));
    }
    assert_eq!(plan.state.live(), 3);
}

#[test]
fn the_highest_priority_comes_first_and_then_who_waits_longest() {
    let pools =
        vec![linux_pool(10), Pool { priority: 1, ..pool("gpu", &["gpu"]) }, pool("arm", &["arm"])];
    let mut plan = Plan::with(Settings { max: 1, ..settings(pools) });
    let mut runner = plan.busy(1);
    plan.tell(Event::JobQueued(job(4, &["gpu"])));
    plan.tell(Event::JobQueued(job(3, &["linux"])));
    plan.tell(Event::JobQueued(job(2, &["arm"])));
    let mut order = Vec::new();
    for id in [4, 2, 3] {
        runner = one_launch(&plan.exit(&runner, 0));
        order.push(plan.state.runner(&runner).unwrap().pool.clone());
        plan.launched(&runner);
        let labels = plan.state.jobs[&JobKey { id, run_attempt: 1 }].job.labels.clone();
        let job = Job { labels, ..linux(id) };
        plan.tell(Event::JobStarted { job, runner: runner.clone() });
    }
    assert_eq!(order, ["gpu", "arm", "linux"]);
}

#[test]
fn a_repository_stays_within_its_max_through_whatever_pools() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max_per_repository: 2, ..settings(pools) });
    let runner = plan.busy(1);
    plan.queue(2);
    assert_eq!(plan.tell(Event::JobQueued(job(3, &["gpu"]))), []);
    assert_eq!(plan.queue(4), []);
    // Another repository is not held back by it.
    let other = at("acme/other", linux(5));
    assert_eq!(launches(&plan.tell(Event::JobQueued(other))).len(), 1);
    assert_eq!(launches(&plan.complete(1, &runner)).len(), 1);
}

#[test]
fn a_runner_that_ended_frees_its_repositorys_place_though_nobody_told_of_the_job() {
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![linux_pool(10)]) });
    let runner = plan.busy(1);
    assert_eq!(plan.queue(2), []);
    assert_eq!(launches(&plan.exit(&runner, 137)).len(), 1);
}

#[test]
fn a_job_nobody_told_the_end_of_is_given_up_after_githubs_longest() {
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings(vec![linux_pool(10)]) });
    plan.start(1, "a-stranger");
    assert_eq!(plan.queue(2), []);
    plan.now += 5 * 24 * 3_600_000;
    assert_eq!(plan.tick(), []);
    plan.now += 3_600_000;
    assert_eq!(launches(&plan.tell(Event::Tick)).len(), 1);
}

#[test]
fn warm_runners_are_launched_kept_and_replaced() {
    let warm = Pool {
        min_idle: 2,
        repositories: vec![RepositoryPattern::parse("Acme/App").unwrap()],
        ..linux_pool(10)
    };
    let mut plan = Plan { state: State::new(settings(vec![warm]), 1), now: 1_000_000 };
    let runners = launches(&plan.tell(Event::Recovered));
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
    plan.tell(Event::Registrations { target, runners: all(&runners) });
    assert_eq!(removals(&plan.wait(3_600_000)), [] as [&Removal; 0]);
    // A job takes a warm one: no launch until it has, and then one that replaces it.
    // GitHub writes the repository in another case than the configuration.
    let job = at("Acme/App", linux(1));
    assert_eq!(launches(&plan.tell(Event::JobQueued(job.clone()))).len(), 1);
    let started = Event::JobStarted { job, runner: runners[0].clone() };
    assert_eq!(launches(&plan.tell(started)), [] as [String; 0]);
    assert_eq!(plan.state.live(), 3);
}

#[test]
fn a_spare_runner_makes_room_for_a_job_elsewhere() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let preemptible = plan.surplus(1);
    let elsewhere = Event::JobQueued(at("acme/lib", linux(2)));
    let actions = plan.tell(elsewhere.clone());
    let removal = one_removal(&actions);
    assert_eq!((&removal.runner, removal.deregister, removal.force), (&preemptible, true, false));
    assert_eq!(plan.why(&preemptible), EndReason::Preempted);
    assert_eq!(launches(&actions), [] as [String; 0]);
    plan.tell_in_vain(elsewhere);
    let runner = one_launch(&plan.tell(removed(&preemptible)));
    assert_eq!(plan.state.runner(&runner).unwrap().target.to_string(), "repo:acme/lib");
}

#[test]
fn a_spare_runner_that_has_just_taken_a_job_keeps_its_place() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let preemptible = plan.surplus(1);
    plan.tell(Event::JobQueued(at("acme/lib", linux(2))));
    let refused = Event::RemovalRefused { runner: preemptible.clone() };
    assert_eq!(plan.tell(refused), [Action::Record(preemptible.clone())]);
    assert_eq!(plan.phase(&preemptible), "busy");
    assert_eq!(plan.reason(2), Waiting::PoolMax { max: 1 });
    assert_eq!(launches(&plan.exit(&preemptible, 0)).len(), 1);
}

#[test]
fn a_spare_runner_makes_room_for_another_pool_at_the_global_max() {
    let pools = vec![linux_pool(10), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { max: 2, ..settings(pools) });
    plan.busy(2);
    let preemptible = plan.surplus(1);
    assert_eq!(one_removal(&plan.tell(Event::JobQueued(job(3, &["gpu"])))).runner, preemptible);
    assert_eq!(launches(&plan.tell(removed(&preemptible))).len(), 1);
}

#[test]
fn no_more_spare_runners_go_than_jobs_wait_and_the_longest_idle_go_first() {
    let mut plan = Plan::new(vec![linux_pool(3)]);
    let runners = [1, 2, 3].map(|id| {
        plan.now += 1_000;
        plan.idle(id)
    });
    for id in 1..=3 {
        plan.complete(id, "");
    }
    let elsewhere = |id| Event::JobQueued(at("acme/lib", linux(id)));
    assert_eq!(one_removal(&plan.tell(elsewhere(4))).runner, runners[0]);
    assert_eq!(one_removal(&plan.tell(elsewhere(5))).runner, runners[1]);
    // The last one serves a job of its own.
    assert_eq!(plan.queue(6), []);
    plan.tell_in_vain(elsewhere(7));
}

#[test]
fn a_place_that_is_about_to_be_free_is_waited_for() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    let first = plan.idle(1);
    plan.wait(200_000);
    let second = plan.idle(2);
    plan.complete(1, "");
    plan.complete(2, "");
    plan.wait(100_000);
    assert_eq!(plan.why(&first), EndReason::IdleTooLong);
    plan.tell_in_vain(Event::JobQueued(at("acme/lib", linux(3))));
    assert_eq!(plan.phase(&second), "idle");
}

#[test]
fn nobody_makes_room_where_none_is_needed_or_it_would_be_in_vain() {
    let elsewhere = || Event::JobQueued(at("acme/lib", linux(2)));
    let removed_by = |plan: &mut Plan, event| removals(&plan.tell(event)).len();

    let mut plan = Plan::new(vec![linux_pool(2)]);
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "a place is free");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.idle(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "a job waits for it");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.surplus(1);
    plan.tell(Event::Pause);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "nothing is launched");

    let mut plan = Plan::with(Settings {
        credentials: vec![credential("app", TargetPattern::parse("acme/app").unwrap())],
        ..settings(vec![linux_pool(1)])
    });
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, elsewhere()), 0, "no credential serves the job");

    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = one_launch(&plan.tell(elsewhere()));
    plan.fail(&runner, Cause::Rejected);
    plan.surplus(1);
    assert_eq!(removed_by(&mut plan, Event::Tick), 0, "launches there are held back");

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
fn a_burst_is_launched_a_few_at_a_time_so_that_none_waits_out_its_limit() {
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
    assert_eq!(plan.tell(Event::JobQueued(job(1_000, &["gpu"]))), []);
    assert_eq!(launches(&plan.launched(&runner)).len(), 1);
}

#[test]
fn a_pool_that_pulls_its_image_does_not_hold_up_the_others() {
    let mut plan = Plan::new(vec![linux_pool(1_000), pool("gpu", &["gpu"])]);
    for id in 1..=100 {
        for runner in launches(&plan.queue(id)) {
            plan.tell(Event::Progress { runner, stage: Stage::Image });
        }
    }
    assert_eq!(plan.state.launching(), LAUNCHING_MAX);
    assert_eq!(launches(&plan.tell(Event::JobQueued(job(101, &["gpu"])))).len(), 1);
}

#[test]
fn nothing_is_launched_before_recovery_nor_after_a_pause() {
    let mut plan = Plan { state: State::new(settings(vec![linux_pool(9)]), 1), now: 1 };
    assert_eq!(plan.queue(1), []);
    assert_eq!(launches(&plan.tell(Event::Recovered)).len(), 1);
    plan.tell(Event::Pause);
    assert_eq!(plan.queue(2), []);
}

#[test]
fn drain_launches_nothing_sends_the_idle_away_and_lets_the_busy_finish() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (busy, starting, idle) = (plan.busy(1), plan.starting(2), plan.idle(3));
    let actions = plan.tell(Event::Drain { pool: None, draining: true });
    assert_eq!(one_removal(&actions).runner, idle);
    assert_eq!(plan.why(&idle), EndReason::Drained);
    plan.tell_in_vain(Event::Drain { pool: None, draining: true });
    assert_eq!(plan.queue(4), []);
    assert_eq!(one_removal(&plan.list(&starting, true, false)).runner, starting);
    assert_eq!(plan.phase(&busy), "busy");
    assert_eq!(launches(&plan.tell(Event::Drain { pool: None, draining: false })).len(), 3);
}

#[test]
fn min_idle_follows_a_schedule_up_at_once_and_down_by_the_idle_limit() {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut plan = Plan::new(vec![Pool { repositories, ..linux_pool(5) }]);
    let runners = launches(&plan.tell(Event::MinIdle { pool: 0, min_idle: 2 }));
    assert_eq!(runners.len(), 2);
    plan.tell_in_vain(Event::MinIdle { pool: 0, min_idle: 2 });
    for runner in &runners {
        plan.launched(runner);
        plan.list(runner, true, false);
    }
    assert_eq!(plan.wait(700_000), plan.wait(0));
    plan.tell_in_vain(Event::MinIdle { pool: 0, min_idle: 1 });
    let actions = plan.wait(300_000);
    assert_eq!(removals(&actions).len(), 1);
    plan.tell(Event::MinIdle { pool: 0, min_idle: 0 });
    let actions = plan.wait(300_000);
    assert_eq!(plan.why(&one_removal(&actions).runner), EndReason::IdleTooLong);
}

#[test]
fn one_pool_drains_while_the_others_go_on() {
    let mut plan = Plan::new(vec![linux_pool(10), pool("gpu", &["gpu"])]);
    let (busy, idle) = (plan.busy(2), plan.surplus(1));
    let drain = |draining| Event::Drain { pool: Some(0), draining };
    let actions = plan.tell(drain(true));
    assert_eq!(one_removal(&actions).runner, idle);
    plan.tell_in_vain(drain(true));
    assert_eq!(plan.phase(&busy), "busy");
    assert_eq!(launches(&plan.queue(3)), [] as [String; 0]);
    assert_eq!(plan.reason(3), Waiting::Draining { pool: Some("linux".into()) });
    assert_eq!(launches(&plan.tell(Event::JobQueued(job(4, &["gpu"])))).len(), 1);

    // What drains by itself is not resumed while all do, and all of it with the rest.
    let all = |draining| Event::Drain { pool: None, draining };
    plan.tell(all(true));
    plan.tell(drain(false));
    assert_eq!(plan.reason(3), Waiting::Draining { pool: None });
    plan.tell(drain(true));
    assert_eq!(launches(&plan.tell(all(false))).len(), 1);
    assert!(!plan.state.draining() && !plan.state.pool_draining(0));
}
