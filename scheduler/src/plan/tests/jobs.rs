//! Webhooks: twice, late, in any order, or not at all.

use super::*;

#[test]
fn a_repeated_event_adds_no_action() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.apply_without_effect(Event::JobQueued(linux(1)));
    plan.apply_without_effect(Event::Launched { runner: runner.clone() });
    let started = Event::JobStarted { job: linux(1), runner: runner.clone() };
    plan.apply(started.clone());
    plan.apply_without_effect(started.clone());
    plan.apply_without_effect(Event::JobQueued(linux(1)));
    let completed = Event::JobCompleted { job: linux(1), runner: runner.clone() };
    plan.apply(completed.clone());
    plan.apply_without_effect(completed);
    plan.apply_without_effect(started);
    plan.exit(&runner, 0);
    plan.apply_without_effect(Event::ContainerExited { runner: runner.clone(), status: 0.into() });
    plan.apply(removed(&runner));
    plan.apply_without_effect(removed(&runner));
    assert!(plan.state.jobs.is_empty() && plan.state.runners.is_empty());
}

#[test]
fn a_completed_that_overtook_its_queued_is_not_revived() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    assert_eq!(plan.complete(1, ""), []);
    plan.wait(60_000);
    assert_eq!(plan.queue(1), []);
    assert_eq!(plan.start(1, ""), []);
    assert!(plan.state.jobs.is_empty());
}

#[test]
fn the_end_of_a_job_is_awaited_until_it_is_reported_also_after_its_runner_exited() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let key = linux(1).key;
    assert!(!plan.state.awaits_end(key));
    let runner = plan.starting(1);
    assert!(plan.state.awaits_end(key));
    plan.start(1, &runner);
    plan.exit(&runner, 0);
    plan.apply(removed(&runner));
    assert!(plan.state.awaits_end(key));
    plan.complete(1, &runner);
    assert!(!plan.state.awaits_end(key));
}

#[test]
fn another_attempt_of_the_same_job_is_another_job() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.complete(1, "");
    let again = Job { key: JobKey::new(1, 2), ..linux(1) };
    assert_eq!(launches(&plan.apply(Event::JobQueued(again))).len(), 1);
}

#[test]
fn tombstones_do_not_pile_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for id in 0..5_000 {
        plan.complete(id, "");
    }
    plan.wait(3_600_000 + 3_000);
    assert!(plan.state.tombstones.is_empty() && plan.state.tombstones_by_age.is_empty());
}

#[test]
fn a_job_may_take_another_runner_than_the_one_launched_for_it() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (first, second) = (plan.starting(1), plan.starting(2));
    assert_eq!(launches(&plan.start(1, &second)), [] as [String; 0]);
    assert_eq!(launches(&plan.start(2, &first)), [] as [String; 0]);
    assert_eq!(plan.state.runner(&second).unwrap().job.unwrap().id, 1);
    assert_eq!(plan.state.live(), 2);
}

#[test]
fn the_runner_of_a_stolen_job_serves_the_next_one() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.idle(1);
    assert_eq!(plan.start(1, "someone-elses"), []);
    assert_eq!(plan.queue(2), []);
    plan.start(2, &runner);
    assert_eq!(plan.phase(&runner), "busy");
}

#[test]
fn the_runner_of_a_cancelled_job_serves_the_next_one() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.surplus(1);
    assert_eq!(plan.queue(2), []);
}

#[test]
fn the_runner_of_a_cancelled_job_goes_after_its_idle_limit() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.surplus(1);
    assert_eq!(plan.wait(299_000), []);
    let removal = one_removal(&plan.wait(1_000));
    assert_eq!(plan.why(&runner), EndReason::IdleTooLong);
    assert!(removal.deregister && !removal.force && !removal.keep_logs);
}

#[test]
fn a_rerun_that_sends_old_completed_again_does_not_end_a_busy_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    for old in 100..200 {
        assert_eq!(plan.complete(old, &runner), []);
        assert_eq!(plan.complete(old, "edge-linux-000000000000"), []);
    }
    assert!(!plan.state.runner(&runner).unwrap().finished);
    assert_eq!(removals(&plan.wait(600_000)), [] as [&Removal; 0]);
}

#[test]
fn the_start_of_a_job_may_be_reported_after_its_runner_exited() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.exit(&runner, 0);
    plan.apply(removed(&runner));
    assert_eq!(plan.start(1, &runner), []);
    assert!(plan.state.jobs.is_empty());
}

fn looked_up(actions: &[Action]) -> Vec<u64> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::LookUpJob { job, .. } => Some(job.id),
            _ => None,
        })
        .collect()
}

#[test]
fn a_job_that_an_idle_runner_should_have_taken_is_looked_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (first, _) = (plan.idle(1), plan.idle(2));
    assert_eq!(looked_up(&plan.wait(1_000)), [1]);
    let found = |id, state, runner: &str| Event::JobFound {
        job: linux(id).key,
        state,
        runner: runner.into(),
    };
    assert_eq!(plan.reason(1), Waiting::NotPickedUp);
    plan.apply(found(1, JobState::InProgress, &first));
    assert_eq!(plan.phase(&first), "busy");
    plan.apply_without_effect(found(1, JobState::InProgress, &first));
    let young = Job { queued_at: plan.now, ..linux(3) };
    plan.apply(Event::JobQueued(young));
    // A webhook was lost, so the next job is looked up soon.
    assert_eq!(looked_up(&plan.wait(9_000)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(1_000)), [2]);
    plan.apply_without_effect(found(2, JobState::Completed, ""));
    plan.apply_without_effect(found(2, JobState::Completed, ""));
    // The third is overdue a minute after it was queued.
    assert_eq!(looked_up(&plan.wait(48_000)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(2_000)), [3]);
}

#[test]
fn look_ups_of_jobs_that_are_still_queued_become_rare_and_take_turns() {
    let pool = Pool { min_idle: 3, ..linux_pool(3) };
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut plan = Plan::unrecovered(vec![Pool { repositories, ..pool }]);
    for runner in launches(&plan.apply(Event::Recovered { provider: 0 })) {
        plan.launched(&runner);
        plan.list(&runner, true, false);
    }
    for id in 1..=3 {
        plan.queue(id);
    }
    let mut looked_up_at = Vec::new();
    for second in 0..7_200 {
        for id in looked_up(&plan.wait(1_000)) {
            looked_up_at.push((id, second / 60));
            let job = linux(id).key;
            plan.apply(Event::JobFound { job, state: JobState::Queued, runner: String::new() });
        }
    }
    assert_eq!(looked_up_at, [(1, 0), (2, 5), (3, 15), (1, 35), (2, 75)]);
}

#[test]
fn an_unexplained_exit_makes_the_jobs_of_its_time_suspect() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.exit(&runner, 0);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now + 1, ..linux(2) }));
    // The younger one cannot have been taken by it.
    assert_eq!(looked_up(&plan.wait(120_000)), [1]);
}

#[test]
fn jobs_that_start_without_the_name_of_a_runner_prove_their_pool_healthy() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let mut runner = plan.provisioning(1);
    for id in 1..=60 {
        let actions = plan.queue(id + 1);
        assert_eq!(launches(&actions), [] as [String; 0]);
        plan.launched(&runner);
        plan.start(id, "");
        plan.complete(id, "");
        let exited = plan.exit(&runner, 0);
        assert_eq!(plan.why(&runner), EndReason::Done);
        let launches = [launches(&exited), launches(&plan.apply(removed(&runner)))].concat();
        assert_eq!(launches.len(), 1, "after {id} jobs");
        runner = launches[0].clone();
    }
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn events_without_a_name_may_come_after_the_exit() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let mut runner = plan.provisioning(1);
    for id in 1..=60 {
        plan.queue(id + 1);
        plan.launched(&runner);
        let mut actions = plan.exit(&runner, 0);
        actions.extend(plan.apply(removed(&runner)));
        actions.extend(plan.start(id, ""));
        runner = launches(&actions).pop().expect("the pool is not paused");
        plan.complete(id, "");
    }
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn a_job_that_starts_without_the_name_of_a_runner_has_it_looked_up_at_once() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.idle(1);
    plan.wait(5_000);
    plan.start(1, "");
    assert_eq!(look_ups(&plan.wait(5_000)).len(), 1);
    plan.list(&runner, true, true);
    assert_eq!(plan.phase(&runner), "busy");
    assert_eq!(launches(&plan.queue(2)).len(), 1);
    plan.exit(&runner, 0);
    assert_eq!(plan.why(&runner), EndReason::Done);
    // None of the others ran it.
    let runner = plan.starting(3);
    plan.exit(&runner, 0);
    assert_eq!(plan.why(&runner), EndReason::Unused { exit_code: 0 });
}

#[test]
fn started_before_queued_needs_no_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    assert_eq!(plan.start(1, "someone-elses"), []);
    assert_eq!(plan.queue(1), []);
}

#[test]
fn a_job_that_no_pool_serves_launches_nothing_and_has_a_reason() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    assert_eq!(plan.apply(Event::JobQueued(job(1, &["self-hosted", "gpu"]))), []);
    assert_eq!(plan.reason(1), Waiting::NoPool(missing_label("gpu", "linux")));
}

#[test]
fn no_runner_serves_two_jobs() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.start(2, &runner);
    assert_eq!(plan.state.runner(&runner).unwrap().job.unwrap().id, 1);
}
