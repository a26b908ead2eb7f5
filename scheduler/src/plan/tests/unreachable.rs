//! Runners on machines that do not answer.

use super::{
    adoption::{found, survey},
    *,
};
use crate::plan::unreachable::LOST_AFTER;

const LOST_MS: u64 = LOST_AFTER.as_millis() as u64;
const LIMITS: LifeLimits = LifeLimits {
    provisioning_ms: 60_000,
    starting_ms: 60_000,
    idle_ms: 3_600_000,
    job_ms: 7_200_000,
};

fn pool_of(max: usize) -> Plan {
    Plan::new(vec![Pool { limits: LIMITS, ..linux_pool(max) }])
}

/// A survey in which these runners are in this state.
fn surveyed(plan: &mut Plan, runners: &[&str], container: AdoptedContainer) -> Vec<Action> {
    plan.now += 500;
    let containers = runners.iter().map(|runner| found(runner, None, container)).collect();
    survey(plan, containers)
}

fn unreachable(plan: &mut Plan, runner: &str) {
    assert_eq!(surveyed(plan, &[runner], AdoptedContainer::Unreachable), []);
    assert!(plan.state.runner(runner).unwrap().unreachable.is_some());
}

/// Waits, and GitHub answers every look-up with this. Returns the other actions.
fn wait_with_lists(plan: &mut Plan, ms: u64, listed: &[(&str, bool, bool)]) -> Vec<Action> {
    let mut others = Vec::new();
    for _ in 0..ms / 1_000 {
        for action in plan.wait(1_000) {
            let Action::LookUp(target) = action else {
                others.push(action);
                continue;
            };
            let runners = listed
                .iter()
                .map(|(name, online, busy)| {
                    let (name, online, busy) = ((*name).to_owned(), *online, *busy);
                    Registration { name, id: 7, online, busy }
                })
                .collect();
            let requested_at = plan.moment().instant;
            plan.now += 1;
            others.extend(plan.apply(Event::Registrations { target, runners, requested_at }));
        }
    }
    others.retain(|action| !matches!(action, Action::Explain(_) | Action::LookUpJob { .. }));
    others
}

#[test]
fn it_keeps_its_phase_and_its_place() {
    let mut plan = pool_of(3);
    let (busy, idle, starting) = (plan.busy(1), plan.idle(2), plan.starting(3));
    let all = [busy.as_str(), &idle, &starting];
    assert_eq!(surveyed(&mut plan, &all, AdoptedContainer::Unreachable), []);
    let since = plan.moment();
    assert_eq!(surveyed(&mut plan, &all, AdoptedContainer::Unreachable), []);
    for (runner, phase) in all.into_iter().zip(["busy", "idle", "starting"]) {
        assert_eq!(plan.phase(runner), phase);
        assert_eq!(plan.state.runner(runner).unwrap().unreachable, Some(since));
    }
    assert_eq!(plan.state.live(), 3);
    assert_eq!(surveyed(&mut plan, &all, AdoptedContainer::Running), []);
    assert!(plan.state.runners().all(|runner| runner.unreachable.is_none()));
    // A list that is older than what is known changes nothing.
    let taken_at = plan.moment().instant;
    let containers = all.map(|runner| found(runner, None, AdoptedContainer::Running)).to_vec();
    surveyed(&mut plan, &all, AdoptedContainer::Unreachable);
    plan.apply(Event::Survey { provider: 0, containers, taken_at });
    assert!(plan.state.runner(&busy).unwrap().unreachable.is_some());
}

#[test]
fn an_exit_or_its_absence_ends_it_as_usual() {
    let mut plan = pool_of(3);
    let (busy, idle) = (plan.busy(1), plan.idle(2));
    let all = [busy.as_str(), &idle];
    surveyed(&mut plan, &all, AdoptedContainer::Unreachable);
    surveyed(&mut plan, &[&busy], AdoptedContainer::Exited(137.into()));
    assert_eq!(plan.why(&busy), EndReason::Exited { exit_code: 137 });
    assert_eq!(plan.why(&idle), EndReason::Vanished);
    assert!(plan.state.runners().all(|runner| runner.unreachable.is_none()));
}

#[test]
fn its_job_waits_with_that_reason() {
    let mut plan = pool_of(3);
    let idle = plan.idle(1);
    plan.queue(2);
    unreachable(&mut plan, &idle);
    // The launch for job 2 is closer to a job.
    assert_eq!(plan.reason(1), Waiting::LaunchQueued);
    assert_eq!(plan.reason(2), Waiting::RunnerUnreachable);
    assert_eq!(plan.reason(2).as_str(), "runner_unreachable");
    surveyed(&mut plan, &[&idle], AdoptedContainer::Running);
    assert_eq!(plan.reason(1), Waiting::NotPickedUp);
}

#[test]
fn github_is_asked_once_a_minute_also_about_busy_ones() {
    let mut plan = pool_of(3);
    let (busy, starting) = (plan.busy(1), plan.starting(2));
    let all = [busy.as_str(), &starting];
    surveyed(&mut plan, &all, AdoptedContainer::Unreachable);
    let asked = look_ups(&plan.wait(300_000)).len();
    assert!((5..=6).contains(&asked), "{asked}");
    surveyed(&mut plan, &all, AdoptedContainer::Running);
    plan.start(2, &starting);
    assert_eq!(look_ups(&plan.wait(300_000)).len(), 0);
}

#[test]
fn a_target_that_fails_is_not_asked_more_often_than_any_other() {
    let mut plan = pool_of(3);
    let busy = plan.busy(1);
    unreachable(&mut plan, &busy);
    let mut asked = 0;
    for _ in 0..3_600 {
        for target in look_ups(&plan.wait(1_000)) {
            asked += 1;
            let (cause, message) = (Cause::GitHubUnavailable, "no answer".into());
            plan.apply(Event::LookUpFailed { target, cause, message, retry_after_ms: 0 });
        }
    }
    assert!((2..12).contains(&asked), "{asked}");
    assert_eq!(plan.phase(&busy), "busy", "GitHub did not have it as offline");
}

#[test]
fn one_that_github_has_as_offline_for_ten_minutes_is_lost() {
    for phase in ["busy", "idle", "starting"] {
        let mut plan = pool_of(1);
        let runner = match phase {
            "busy" => plan.busy(1),
            "idle" => plan.idle(1),
            _ => plan.starting(1),
        };
        unreachable(&mut plan, &runner);
        let offline = [(runner.as_str(), false, false)];
        assert_eq!(wait_with_lists(&mut plan, LOST_MS - 60_000, &offline), [], "{phase}");
        assert_eq!(plan.phase(&runner), phase);
        let actions = wait_with_lists(&mut plan, 180_000, &offline);
        let removal = one_removal(&actions);
        assert!(removal.deregister && removal.container && removal.keep_logs, "{removal:?}");
        assert!(!removal.force && !removal.container_first, "{removal:?}");
        assert_eq!(plan.why(&runner), EndReason::MachineLost);
        assert!(EndReason::MachineLost.is_failure());
        assert_eq!(plan.state.backoffs().count(), 0, "nothing blames the pool");
        // Its place is free once it is removed, and its job is not run again.
        let launched = launches(&plan.apply(removed(&runner)));
        assert_eq!(launched.len(), usize::from(phase != "busy"));
        let gave_up = |action: &Action| matches!(action, Action::GiveUpJob { .. });
        assert!(!plan.wait(600_000).iter().any(gave_up), "{phase}");
    }
}

#[test]
fn one_that_github_has_as_online_or_busy_is_kept_and_its_time_begins_again() {
    for (online, busy) in [(true, false), (false, true), (true, true)] {
        let mut plan = pool_of(1);
        let runner = plan.busy(1);
        unreachable(&mut plan, &runner);
        let alive = [(runner.as_str(), online, busy)];
        let offline = [(runner.as_str(), false, false)];
        assert_eq!(wait_with_lists(&mut plan, 3 * LOST_MS, &alive), []);
        assert_eq!(wait_with_lists(&mut plan, LOST_MS - 60_000, &offline), []);
        assert_eq!(wait_with_lists(&mut plan, 120_000, &alive), []);
        assert_eq!(wait_with_lists(&mut plan, LOST_MS - 60_000, &offline), []);
        assert_eq!(plan.phase(&runner), "busy");
        one_removal(&wait_with_lists(&mut plan, 240_000, &offline));
    }
}

#[test]
fn one_that_github_lists_no_more_is_lost_if_it_was_registered() {
    let mut plan = pool_of(1);
    let busy = plan.busy(1);
    unreachable(&mut plan, &busy);
    assert_eq!(wait_with_lists(&mut plan, LOST_MS - 60_000, &[]), []);
    one_removal(&wait_with_lists(&mut plan, 180_000, &[]));
    assert_eq!(plan.why(&busy), EndReason::MachineLost);

    // Without its machine's silence, two lists are enough for an idle one.
    let mut plan = pool_of(1);
    let idle = plan.idle(1);
    unreachable(&mut plan, &idle);
    assert_eq!(wait_with_lists(&mut plan, LOST_MS - 60_000, &[]), []);
    one_removal(&wait_with_lists(&mut plan, 180_000, &[]));
    assert_eq!(plan.why(&idle), EndReason::MachineLost);
}

#[test]
fn one_without_a_job_is_lost_even_if_github_does_not_answer() {
    let mut plan = pool_of(2);
    let (idle, starting) = (plan.idle(1), plan.starting(2));
    surveyed(&mut plan, &[&idle, &starting], AdoptedContainer::Unreachable);
    plan.wait(LOST_MS - 60_000);
    assert_eq!((plan.phase(&idle), plan.phase(&starting)), ("idle", "starting"));
    plan.wait(150_000);
    assert_eq!(plan.why(&idle), EndReason::MachineLost);
    assert_eq!(plan.why(&starting), EndReason::MachineLost);
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn it_does_not_make_jobs_look_held_back() {
    let mut plan = pool_of(1);
    let idle = plan.idle(1);
    unreachable(&mut plan, &idle);
    plan.wait(200_000);
    assert_eq!(plan.reason(1), Waiting::RunnerUnreachable);
}

#[test]
fn the_time_limit_of_a_job_holds_also_after_a_removal_that_github_refused() {
    let mut plan = pool_of(1);
    let runner = plan.busy(1);
    let begun = plan.now;
    unreachable(&mut plan, &runner);
    one_removal(&wait_with_lists(&mut plan, LOST_MS + 120_000, &[(&runner, false, false)]));
    plan.apply(Event::RemovalRefused { runner: runner.clone() });
    assert_eq!(plan.phase(&runner), "busy");
    let alive = [(runner.as_str(), true, true)];
    let left = begun + LIMITS.job_ms - plan.now;
    assert_eq!(wait_with_lists(&mut plan, left - 10_000, &alive), []);
    assert!(one_removal(&wait_with_lists(&mut plan, 20_000, &alive)).force);
    assert_eq!(plan.why(&runner), EndReason::JobTooLong);
}

#[test]
fn one_whose_machine_is_back_in_time_goes_on() {
    let mut plan = pool_of(1);
    let runner = plan.busy(1);
    let begun = plan.now;
    unreachable(&mut plan, &runner);
    one_removal(&wait_with_lists(&mut plan, LOST_MS + 120_000, &[(&runner, false, false)]));
    // While it is being removed, its silence says nothing new.
    assert_eq!(surveyed(&mut plan, &[&runner], AdoptedContainer::Unreachable), []);
    assert_eq!((plan.why(&runner), plan.state.live()), (EndReason::MachineLost, 1));
    surveyed(&mut plan, &[&runner], AdoptedContainer::Running);
    assert_eq!(plan.phase(&runner), "busy");
    assert_eq!(plan.state.runner(&runner).unwrap().unreachable, None);
    // For as long as its job may take.
    let left = begun + LIMITS.job_ms - plan.now;
    assert_eq!(removals(&plan.wait(left - 1)), [] as [&Removal; 0]);
    one_removal(&plan.wait(1_000));
    assert_eq!(plan.why(&runner), EndReason::JobTooLong);
}

#[test]
fn one_that_comes_back_after_its_end_is_removed() {
    let mut plan = pool_of(1);
    let runner = plan.busy(1);
    unreachable(&mut plan, &runner);
    one_removal(&wait_with_lists(&mut plan, LOST_MS + 120_000, &[(&runner, false, false)]));
    assert!(matches!(
        plan.apply(removed(&runner))[..],
        [Action::Forget(_, EndReason::MachineLost)]
    ));
    for container in [AdoptedContainer::Unreachable, AdoptedContainer::Running] {
        let actions = surveyed(&mut plan, &[&runner], container);
        if container == AdoptedContainer::Unreachable {
            assert!(one_removal(&actions).container);
        }
        assert_eq!((plan.why(&runner), plan.state.live()), (EndReason::OnRecordAsGone, 1));
    }
}

#[test]
fn after_a_restart_it_counts_as_running() {
    for (job, phase) in [(None, "starting"), (Some(1), "busy")] {
        let mut plan = Plan::unrecovered(vec![Pool { limits: LIMITS, ..linux_pool(2) }]);
        let adopted = found("a", job, AdoptedContainer::Unreachable);
        assert_eq!(plan.apply(Event::Adopted(adopted.clone())), [Action::Record("a".into())]);
        plan.apply_without_effect(Event::Adopted(adopted));
        plan.apply(Event::Recovered { provider: 0 });
        assert_eq!((plan.phase("a"), plan.state.live()), (phase, 1));
        assert!(plan.state.runner("a").unwrap().unreachable.is_some());
    }
    // One that only a survey finds, too.
    let mut plan = pool_of(2);
    let actions = surveyed(&mut plan, &["b"], AdoptedContainer::Unreachable);
    assert_eq!(actions, [Action::Record("b".into())]);
    assert_eq!(plan.phase("b"), "starting");
}

#[test]
fn a_reload_keeps_what_is_known() {
    let mut plan = pool_of(2);
    let idle = plan.idle(1);
    unreachable(&mut plan, &idle);
    let pool = Pool { limits: LIMITS, max: 3, ..linux_pool(2) };
    plan.apply(Event::Pools(vec![pool]));
    assert!(plan.state.runner(&idle).unwrap().unreachable.is_some());
    assert_eq!(plan.reason(1), Waiting::RunnerUnreachable);
}
