//! Limits, and each way in which a runner can end.

use super::*;

#[test]
fn a_launch_that_reports_nothing_is_given_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.provisioning(1);
    plan.now += 129_000;
    assert_eq!(plan.tick(), []);
    let removal = one_removal(&plan.wait(1_000));
    assert_eq!(plan.why(&runner), EndReason::LaunchTimedOut);
    assert!(removal.deregister && removal.keep_logs && !removal.force);
    // Its container may still start.
    assert_eq!(plan.state.live(), 1);
}

#[test]
fn a_runner_that_never_comes_online_is_removed() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.wait(119_000);
    plan.list(&runner, false, false);
    assert_eq!(plan.phase(&runner), "starting");
    assert!(one_removal(&plan.wait(1_000)).deregister);
    assert_eq!(plan.why(&runner), EndReason::NeverOnline);
    assert_eq!(plan.state.backoffs().next().unwrap().1.cause, Cause::NeverOnline);
}

fn impatient(starting_ms: u64) -> Plan {
    let pool = linux_pool(10);
    Plan::new(vec![Pool { limits: LifeLimits { starting_ms, ..pool.limits }, ..pool }])
}

#[test]
fn a_runner_is_looked_up_before_it_is_given_up() {
    for starting_ms in [1_000, 10_000, 15_000] {
        let mut plan = impatient(starting_ms);
        let runner = plan.starting(1);
        let actions = plan.wait(starting_ms);
        assert!(!look_ups(&actions).is_empty(), "{starting_ms}");
        assert_eq!(removals(&actions), [] as [&Removal; 0], "{starting_ms}");
        plan.list(&runner, true, false);
        assert_eq!(removals(&plan.wait(50_000)), [] as [&Removal; 0], "{starting_ms}");
        assert_eq!(plan.phase(&runner), "idle");
    }
}

#[test]
fn a_runner_that_nobody_could_look_up_does_not_count_against_its_pool() {
    let mut plan = impatient(10_000);
    let runner = plan.starting(1);
    // GitHub answers none of the look-ups.
    let actions = plan.wait(25_000);
    assert_eq!(one_removal(&actions).runner, runner);
    let (blocked, backoff) = plan.state.backoffs().next().unwrap();
    assert!(matches!(blocked, Blocked::Lane(..)), "{blocked:?}");
    assert_eq!(backoff.cause, Cause::TimedOut);
}

#[test]
fn a_job_that_takes_too_long_is_stopped_by_force() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    assert_eq!(removals(&plan.wait(3_599_000)), [] as [&Removal; 0]);
    assert!(one_removal(&plan.wait(1_000)).force);
    assert_eq!(plan.why(&runner), EndReason::JobTooLong);
    // GitHub takes a while to see that it is gone. That does not restart the limit of its job.
    plan.apply(Event::RemovalRefused { runner });
    assert!(one_removal(&plan.wait(5_000)).force);
}

#[test]
fn a_runner_that_does_not_end_after_its_job_is_removed() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.complete(1, &runner);
    assert_eq!(plan.wait(119_000), []);
    plan.complete(1, &runner);
    assert!(!one_removal(&plan.wait(1_000)).force);
    assert_eq!(plan.why(&runner), EndReason::DidNotEnd);
    // Its job is over, so it cannot be busy, and does not stay for ever.
    plan.apply(Event::RemovalRefused { runner: runner.clone() });
    assert_eq!(plan.phase(&runner), "leaving");
    assert_eq!(removals(&plan.wait(5_000)).len(), 1);
}

#[test]
fn a_container_that_exits_with_0_during_a_job_is_done() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    let removal = one_removal(&plan.exit(&runner, 0));
    assert_eq!(plan.why(&runner), EndReason::Done);
    assert!(!removal.deregister && !removal.keep_logs);
    assert_eq!(plan.state.live(), 0);
}

#[test]
fn a_registration_counts_as_gone_once_the_end_of_its_job_confirms_it() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    assert!(!one_removal(&plan.exit(&runner, 0)).deregister);
    plan.apply_without_effect(removed(&runner));
    assert!(matches!(plan.complete(1, &runner)[..], [Action::Forget(_, EndReason::Done)]));

    let runner = plan.busy(2);
    plan.complete(2, &runner);
    plan.exit(&runner, 0);
    assert!(matches!(plan.apply(removed(&runner))[..], [Action::Forget(_, EndReason::Done)]));

    let runner = plan.busy(3);
    plan.exit(&runner, 0);
    plan.apply_without_effect(removed(&runner));
    plan.apply_without_effect(removed(&runner));
    assert_eq!(plan.wait(59_000), []);
    assert!(one_removal(&plan.wait(1_000)).deregister);
    assert!(matches!(plan.apply(removed(&runner))[..], [Action::Forget(_, EndReason::Done)]));
}

#[test]
fn a_registration_whose_response_was_lost_is_looked_up_again() {
    let failed = |runner: &str, cause| Event::LaunchFailed {
        runner: runner.to_owned(),
        cause,
        message: "no answer".into(),
        retry_after_ms: 0,
        may_exist: cause != Cause::GitHubUnavailable,
    };
    for cause in [Cause::GitHubUnavailable, Cause::TimedOut] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        plan.progress(&runner, Stage::Credentials);
        // It is looked for once GitHub registers runners there again.
        let actions = plan.apply(failed(&runner, cause));
        if cause == Cause::GitHubUnavailable {
            assert_eq!(removals(&actions), [] as [&Removal; 0]);
            plan.now += 2_000;
            let other = one_launch(&plan.tick());
            assert!(one_removal(&plan.progress(&other, Stage::Container)).deregister);
        } else {
            assert!(one_removal(&actions).deregister);
        }
        plan.complete(1, "");
        plan.apply_without_effect(removed(&runner));
        assert_eq!(plan.phase(&runner), "leaving");
        assert_eq!(removals(&plan.wait(59_000)), [] as [&Removal; 0]);
        assert!(one_removal(&plan.wait(1_000)).deregister);
        assert!(matches!(plan.apply(removed(&runner))[..], [Action::Forget(..)]));
    }
    for (registered, cause) in [(true, Cause::TimedOut), (false, Cause::Container)] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        plan.complete(1, "");
        plan.progress(&runner, Stage::Container);
        if registered {
            plan.apply(Event::Registered { runner: runner.clone(), registration_id: 7 });
        }
        assert!(one_removal(&plan.apply(failed(&runner, cause))).deregister);
        assert!(matches!(plan.apply(removed(&runner))[..], [Action::Forget(..)]));
    }
}

#[test]
fn a_container_that_exits_with_an_error_during_a_job_keeps_its_log_and_blocks_nothing() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    let removal = one_removal(&plan.exit(&runner, 137));
    assert_eq!(plan.why(&runner), EndReason::Exited { exit_code: 137 });
    assert!(removal.deregister && removal.keep_logs);
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn a_runner_whose_container_lacked_memory_is_named_so() {
    let killed = |code| ExitStatus { code, out_of_memory: true };
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let exit = |plan: &mut Plan, runner: &str, code| {
        plan.apply(Event::ContainerExited { runner: runner.into(), status: killed(code) });
        plan.why(runner)
    };
    let runner = plan.busy(1);
    let reason = exit(&mut plan, &runner, 137);
    assert_eq!(reason, EndReason::OutOfMemory { exit_code: 137 });
    assert!(reason.is_failure());
    assert!(reason.to_string().starts_with("killed for lack of memory"), "{reason}");
    // A step was killed; the runner reported that, and ended as usual.
    let runner = plan.busy(2);
    let reason = exit(&mut plan, &runner, 0);
    assert_eq!((reason.as_str(), reason.is_failure()), ("out_of_memory", true));
    assert!(reason.to_string().contains("it exited with code 0"), "{reason}");
    assert_eq!(plan.state.backoffs().count(), 0);

    let runner = plan.provisioning(3);
    plan.launched(&runner);
    assert_eq!(exit(&mut plan, &runner, 137).as_str(), "out_of_memory");
    let (_, backoff) = plan.state.backoffs().next().unwrap();
    assert_eq!(backoff.cause, Cause::RunnerExited);
    assert!(backoff.message.contains("raise memory_mib"), "{}", backoff.message);

    let status = ExitStatus { code: 0, out_of_memory: true };
    let mut plan = Plan::unrecovered_with(settings(vec![linux_pool(1)]));
    let adopted = adoption::found("a", None, AdoptedContainer::Exited(status));
    plan.apply(Event::Adopted(adopted));
    assert_eq!(plan.why("a").as_str(), "out_of_memory");
}

#[test]
fn a_busy_runner_whose_job_is_unknown_is_deregistered_as_a_precaution() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.list(&runner, true, true);
    assert_eq!(plan.phase(&runner), "busy");
    assert!(one_removal(&plan.exit(&runner, 0)).deregister);
}

#[test]
fn a_container_that_exits_without_a_job_fails_in_every_earlier_phase() {
    for start in [Plan::provisioning, Plan::starting, Plan::idle] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = start(&mut plan, 1);
        let actions = plan.exit(&runner, 1);
        assert!(one_removal(&actions).keep_logs);
        assert_eq!(launches(&actions), [] as [String; 0]);
        assert_eq!(plan.why(&runner), EndReason::Unused { exit_code: 1 });
        let (blocked, backoff) = plan.state.backoffs().next().unwrap();
        assert_eq!(
            (blocked, backoff.cause),
            (&Blocked::Pool(0, Parameters::default()), Cause::RunnerExited)
        );
    }
}

#[test]
fn exit_code_7_says_that_the_image_is_too_old() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.exit(&runner, 7);
    let (_, backoff) = plan.state.backoffs().next().unwrap();
    assert_eq!(backoff.cause, Cause::RunnerTooOld);
    assert!(backoff.message.contains("newer image"), "{}", backoff.message);
}

#[test]
fn runners_that_exit_with_0_before_their_jobs_are_reported_block_nothing() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    for id in 1..=60 {
        plan.queue(id);
    }
    let mut late = None;
    for id in 1..=60 {
        let running = plan.state.runners().find(|runner| runner.phase.may_run());
        let runner = running.expect("a working pool is paused").name.clone();
        plan.launched(&runner);
        plan.exit(&runner, 0);
        plan.apply(removed(&runner));
        // It is reported nine jobs later.
        if id % 9 == 0
            && let Some(late) = late.replace(runner)
        {
            plan.start(id / 9, &late);
            plan.complete(id / 9, &late);
        }
    }
}

#[test]
fn a_pool_whose_runners_always_exit_with_0_without_a_job_is_paused_at_last() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let mut runner = plan.provisioning(1);
    let mut exits = 0;
    loop {
        plan.launched(&runner);
        let mut next = launches(&plan.exit(&runner, 0));
        plan.apply(removed(&runner));
        exits += 1;
        match next.pop() {
            Some(name) => runner = name,
            None => break,
        }
    }
    assert_eq!(exits, 21);
    assert_eq!(plan.state.backoffs().next().unwrap().1.cause, Cause::RunnerExited);
}

#[test]
fn a_container_that_exits_while_it_is_removed_frees_its_capacity() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    plan.wait(300_000);
    plan.queue(2);
    assert_eq!(launches(&plan.exit(&runner, 137)).len(), 1);
    assert!(matches!(
        plan.apply(removed(&runner))[..],
        [Action::Forget(_, EndReason::IdleTooLong)]
    ));
}

#[test]
fn a_busy_runner_that_github_refuses_to_remove_goes_on_working() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.surplus(1);
    plan.wait(300_000);
    let refused = Event::RemovalRefused { runner: runner.clone() };
    assert_eq!(plan.apply(refused.clone()), [Action::Record(runner.clone())]);
    assert_eq!(plan.phase(&runner), "busy");
    plan.apply_without_effect(refused);
    plan.start(2, &runner);
    plan.complete(2, &runner);
    assert_eq!(plan.why_after_exit(&runner), EndReason::Done);
}

#[test]
fn a_dead_runner_that_github_still_considers_busy_is_removed_later() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.exit(&runner, 137);
    assert_eq!(plan.apply(Event::RemovalRefused { runner: runner.clone() }), []);
    assert_eq!(one_removal(&plan.wait(5_000)).runner, runner);
}

#[test]
fn a_failed_removal_is_retried_at_growing_intervals() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.exit(&runner, 1);
    plan.complete(1, &runner);
    for seconds in [5, 10, 20, 40, 80, 160, 300, 300] {
        plan.apply_without_effect(removal_failed(&runner, Cause::Container));
        assert_eq!(plan.wait(seconds * 1_000 - 1), []);
        assert_eq!(removals(&plan.wait(1)).len(), 1, "after {seconds} s");
    }
    plan.apply(removed(&runner));
    assert_eq!(plan.wait(600_000), []);
}

#[test]
fn a_failed_launch_counts_as_live_only_if_a_container_may_run() {
    for may_exist in [false, true] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        let failed = Event::LaunchFailed {
            runner: runner.clone(),
            cause: Cause::Container,
            message: String::new(),
            retry_after_ms: 0,
            may_exist,
        };
        assert_eq!(removals(&plan.apply(failed.clone())).len(), usize::from(may_exist));
        assert_eq!(plan.state.live(), usize::from(may_exist));
        plan.apply_without_effect(failed);
    }
}

#[test]
fn a_tick_removes_a_few_hundred_of_many_overdue_runners() {
    let mut plan = Plan::new(vec![linux_pool(1_200)]);
    for number in 0..1_200 {
        let runner = format!("edge-linux-{number:012}");
        let adopted = Adopted {
            runner,
            pool: "linux".into(),
            provider: 0,
            target: "repo:acme/app".parse().unwrap(),
            registration_id: None,
            job: Some(linux(number).key),
            created_at: 1,
            container: AdoptedContainer::Running,
            parameters: Parameters::default(),
            devices: Vec::new(),
            parked: None,
        };
        let now = plan.moment();
        super::super::plan(&mut plan.state, Event::Adopted(adopted), now);
    }
    plan.now += 3_600_000;
    let gone: Vec<usize> = (0..6).map(|_| removals(&plan.apply(Event::Tick)).len()).collect();
    assert_eq!(gone, [250, 250, 250, 250, 200, 0]);
}

#[test]
fn only_a_silent_runner_is_looked_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.now += 14_000;
    assert_eq!(plan.tick(), []);
    let target = plan.state.runner(&runner).unwrap().target.clone();
    assert_eq!(look_ups(&plan.wait(1_000)), [target]);
    // At intervals: three more in fifteen seconds.
    assert_eq!(look_ups(&plan.wait(15_000)).len(), 3);
    plan.start(1, &runner);
    assert_eq!(plan.wait(60_000), []);
}

#[test]
fn look_ups_take_every_target_in_turn() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for (id, repository) in [(1, "acme/a"), (2, "acme/b"), (3, "acme/c")] {
        let queued = Event::JobQueued(at(repository, linux(id)));
        let runner = one_launch(&plan.apply(queued));
        plan.launched(&runner);
    }
    let look_ups: Vec<String> =
        look_ups(&plan.wait(40_000)).iter().map(ToString::to_string).collect();
    assert_eq!(look_ups[..4], ["repo:acme/a", "repo:acme/b", "repo:acme/c", "repo:acme/a"]);
}

#[test]
fn an_idle_runner_that_took_a_job_without_a_webhook_is_found() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.surplus(1);
    plan.wait(40_000);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(2) }));
    assert_eq!(look_ups(&plan.wait(20_000)).len(), 1);
    assert_eq!(launches(&plan.list(&runner, true, true)).len(), 1);
}

#[test]
fn a_job_that_was_taken_or_ended_without_a_webhook_is_found() {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let mut plan = Plan::new(vec![Pool { repositories, ..linux_pool(1) }]);
    let runner = plan.idle(1);
    plan.apply(Event::MinIdle { pool: 0, min_idle: 1 });
    let job = linux(1).key;
    let look_ups = |actions: &[Action]| {
        actions.iter().filter(|action| matches!(action, Action::LookUpJob { .. })).count()
    };
    let actions = plan.wait(60_000);
    assert_eq!(look_ups(&actions), 1);
    assert!(actions.contains(&Action::LookUpJob {
        job,
        repository: "acme/app".into(),
        target: "repo:acme/app".parse().unwrap(),
    }));
    let found = |state, runner: &str| Event::JobFound { job, state, runner: runner.into() };
    // It is still queued, so it is not looked up again at once.
    plan.apply_without_effect(found(JobState::Queued, ""));
    assert_eq!(look_ups(&plan.wait(240_000)), 0);
    assert_eq!(look_ups(&plan.wait(60_000)), 1);
    plan.apply_without_effect(found(JobState::Completed, ""));
    assert!(plan.state.waiting(plan.moment().instant).is_empty());
    plan.apply(Event::MinIdle { pool: 0, min_idle: 0 });
    assert_eq!(one_removal(&plan.wait(300_000)).runner, runner);
}

#[test]
fn an_unexplained_exit_makes_an_older_job_a_suspect() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.starting(1);
    plan.now += 60_000;
    plan.exit(&runner, 0);
    let actions = plan.wait(1_000);
    let job = linux(1).key;
    assert!(actions.contains(&Action::LookUpJob {
        job,
        repository: "acme/app".into(),
        target: "repo:acme/app".parse().unwrap(),
    }));
    let runner = "someone-elses".into();
    plan.apply(Event::JobFound { job, state: JobState::InProgress, runner });
    assert!(plan.state.waiting(plan.moment().instant).is_empty());
}

#[test]
fn an_idle_runner_that_goes_offline_has_the_time_of_a_start_to_come_back() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.idle(1);
    plan.list(&runner, false, false);
    assert_eq!(plan.phase(&runner), "starting");
    plan.list(&runner, true, false);
    assert_eq!(plan.phase(&runner), "idle");
    plan.list(&runner, false, false);
    plan.wait(119_000);
    plan.list(&runner, false, false);
    assert_eq!(one_removal(&plan.wait(1_000)).runner, runner);
    assert_eq!(plan.why(&runner), EndReason::WentOffline);
    // It was online once, so the image works.
    assert_eq!(plan.state.backoffs().count(), 0);
}

fn empty_list(plan: &mut Plan, requested_at: Instant) -> Vec<Action> {
    let target = "repo:acme/app".parse().unwrap();
    plan.apply(Event::Registrations { target, runners: Vec::new(), requested_at })
}

#[test]
fn a_runner_that_github_no_longer_lists_is_replaced_at_once_and_blames_no_pool() {
    let offline = |plan: &mut Plan, id| {
        let runner = plan.idle(id);
        plan.list(&runner, false, false);
        runner
    };
    for start in [Plan::idle, offline] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = start(&mut plan, 1);
        // One list may have missed it.
        let now = plan.moment().instant;
        let actions = empty_list(&mut plan, now);
        assert_eq!((look_ups(&actions).len(), removals(&actions).len()), (1, 0));
        assert_eq!(empty_list(&mut plan, now), [], "the same list");
        plan.now += 1;
        let now = plan.moment().instant;
        let actions = empty_list(&mut plan, now);
        assert_eq!(one_removal(&actions).runner, runner);
        assert_eq!(plan.why(&runner), EndReason::Unregistered);
        assert_eq!(launches(&actions).len(), 1);
        assert_eq!(plan.state.backoffs().count(), 0);
    }
}

#[test]
fn a_list_that_is_older_than_what_is_known_removes_nobody() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let before = plan.moment().instant;
    plan.now += 1;
    let runner = plan.idle(1);
    assert_eq!(empty_list(&mut plan, before), []);
    assert_eq!(empty_list(&mut plan, before), []);
    assert_eq!(plan.phase(&runner), "idle");
    // One list that misses it, and then one that has it.
    let now = plan.moment().instant;
    empty_list(&mut plan, now);
    plan.now += 1;
    plan.list(&runner, true, false);
    plan.now += 1;
    let now = plan.moment().instant;
    assert_eq!(removals(&empty_list(&mut plan, now)), [] as [&Removal; 0]);
}

#[test]
fn a_runner_that_has_not_registered_yet_is_not_missing() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    let now = plan.moment().instant;
    assert_eq!(empty_list(&mut plan, now), []);
    assert_eq!(empty_list(&mut plan, now), []);
    assert_eq!(plan.phase(&runner), "starting");
}

#[test]
fn limits_without_end_do_not_overflow() {
    let endless = LifeLimits {
        provisioning_ms: u64::MAX,
        starting_ms: u64::MAX,
        idle_ms: u64::MAX,
        job_ms: u64::MAX,
    };
    let mut plan = Plan::new(vec![Pool { limits: endless, ..linux_pool(10) }]);
    plan.idle(1);
    let runner = plan.provisioning(2);
    plan.apply(Event::LaunchFailed {
        runner,
        cause: Cause::RateLimited,
        message: String::new(),
        retry_after_ms: u64::MAX,
        may_exist: false,
    });
    plan.now = i64::MAX as u64 - 1;
    plan.apply(Event::Tick);
}

impl Plan {
    fn why_after_exit(&mut self, runner: &str) -> EndReason {
        self.exit(runner, 0);
        self.why(runner)
    }
}
