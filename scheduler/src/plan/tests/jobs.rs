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
    plan.apply_without_effect(Event::ContainerExited { runner: runner.clone(), exit_code: 0 });
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
    let young = Job { queued_at: plan.now, ..linux(3) };
    plan.apply(Event::JobQueued(young));
    assert_eq!(looked_up(&plan.wait(1_000)), [1]);
    assert_eq!(looked_up(&plan.wait(9_000)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(1_000)), [2]);

    let found = |id, state, runner: &str| Event::JobFound {
        job: linux(id).key,
        state,
        runner: runner.into(),
    };
    plan.apply_without_effect(found(1, JobState::Queued, ""));
    assert_eq!(plan.reason(1), Waiting::NotPickedUp);
    plan.apply(found(1, JobState::InProgress, &first));
    assert_eq!(plan.phase(&first), "busy");
    plan.apply_without_effect(found(1, JobState::InProgress, &first));
    plan.apply_without_effect(found(2, JobState::Completed, ""));
    plan.apply_without_effect(found(2, JobState::Completed, ""));
    // The third is overdue a minute after it was queued.
    assert_eq!(looked_up(&plan.wait(48_000)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(1_000)), [3]);
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
fn started_before_queued_needs_no_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    assert_eq!(plan.start(1, "someone-elses"), []);
    assert_eq!(plan.queue(1), []);
}

#[test]
fn a_job_that_no_pool_serves_launches_nothing_and_has_a_reason() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    assert_eq!(plan.apply(Event::JobQueued(job(1, &["ubuntu-latest"]))), []);
    assert_eq!(plan.reason(1), Waiting::NoPool(missing_label("ubuntu-latest", "linux")));
}

#[test]
fn no_runner_serves_two_jobs() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.start(2, &runner);
    assert_eq!(plan.state.runner(&runner).unwrap().job.unwrap().id, 1);
}
