//! Runners that an earlier process left behind, and changes that no event reported.

use super::*;

pub(super) fn found(runner: &str, job: Option<u64>, container: AdoptedContainer) -> Adopted {
    Adopted {
        runner: runner.into(),
        pool: "linux".into(),
        provider: 0,
        target: "repo:acme/app".parse().unwrap(),
        registration_id: None,
        job: job.map(|id| JobKey::new(id, 1)),
        created_at: 1,
        container,
        parameters: Parameters::default(),
        devices: Vec::new(),
        parked: None,
    }
}

fn adopting(adopted: Adopted) -> (Plan, Vec<Action>) {
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    let actions = plan.apply(Event::Adopted(adopted.clone()));
    plan.apply_without_effect(Event::Adopted(adopted));
    plan.apply(Event::Recovered { provider: 0 });
    (plan, actions)
}

#[test]
fn a_running_container_without_a_job_serves_the_next_one() {
    let (mut plan, _) = adopting(found("a", None, AdoptedContainer::Running));
    assert_eq!(plan.phase("a"), "starting");
    assert_eq!(plan.queue(1), []);
    assert_eq!(look_ups(&plan.wait(15_000)).len(), 1);
    plan.list("a", true, false);
    assert_eq!(plan.phase("a"), "idle");
}

#[test]
fn a_running_container_with_a_job_is_busy_and_counts() {
    let (mut plan, actions) = adopting(found("a", Some(1), AdoptedContainer::Running));
    assert_eq!(actions, [Action::Record("a".into())]);
    assert_eq!(plan.phase("a"), "busy");
    assert_eq!(launches(&plan.queue(2)).len(), 1);
    assert_eq!(plan.queue(3), []);
    plan.exit("a", 0);
    assert_eq!(plan.why("a"), EndReason::Done);
}

#[test]
fn a_restart_does_not_extend_the_limit_of_a_job() {
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    plan.now += 10_000_000;
    // The store has when it started.
    let started = plan.moment().at_wall(plan.moment().wall - 3_000_000);
    let event = Event::JobStarted { job: linux(1), runner: "a".into() };
    super::super::plan(&mut plan.state, event, started);
    plan.apply(Event::Adopted(found("a", Some(1), AdoptedContainer::Running)));
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(removals(&plan.wait(599_000)), [] as [&Removal; 0]);
    assert!(one_removal(&plan.wait(1_000)).force);
    assert_eq!(plan.why("a"), EndReason::JobTooLong);
}

/// The event comes while the provider lists its containers.
#[test]
fn a_job_that_starts_before_its_runner_is_adopted_is_known_to_be_there() {
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    plan.apply(Event::JobStarted { job: linux(1), runner: "a".into() });
    plan.apply(Event::Adopted(found("a", None, AdoptedContainer::Running)));
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(plan.phase("a"), "busy");
    plan.complete(1, "a");
    plan.exit("a", 0);
    assert_eq!(plan.why("a"), EndReason::Done);
}

#[test]
fn a_job_that_ends_before_its_runner_is_adopted_needs_no_confirmation() {
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    plan.apply(Event::JobStarted { job: linux(1), runner: "a".into() });
    plan.apply(Event::JobCompleted { job: linux(1), runner: "a".into() });
    let actions = plan.apply(Event::Adopted(found("a", None, AdoptedContainer::Exited(0.into()))));
    assert!(!one_removal(&actions).deregister);
    plan.apply(Event::Recovered { provider: 0 });
    assert!(matches!(plan.apply(removed("a"))[..], [Action::Forget(_, EndReason::Done)]));
}

#[test]
fn an_exited_container_is_removed_and_does_not_count_against_its_pool() {
    let (plan, actions) = adopting(found("a", None, AdoptedContainer::Exited(1.into())));
    assert!(one_removal(&actions).deregister);
    assert_eq!(plan.why("a"), EndReason::Unused { exit_code: 1 });
    assert_eq!((plan.state.live(), plan.state.backoffs().count()), (0, 0));

    let (plan, actions) = adopting(found("a", Some(1), AdoptedContainer::Exited(0.into())));
    assert!(!one_removal(&actions).deregister);
    assert_eq!(plan.why("a"), EndReason::Done);

    let (plan, actions) = adopting(found("a", Some(1), AdoptedContainer::Exited(137.into())));
    assert!(one_removal(&actions).keep_logs);
    assert_eq!(plan.why("a"), EndReason::Exited { exit_code: 137 });
}

#[test]
fn a_registration_without_a_container_is_removed() {
    for job in [None, Some(1)] {
        let (mut plan, actions) = adopting(found("a", job, AdoptedContainer::Missing));
        let removal = one_removal(&actions);
        assert!(removal.deregister && !removal.keep_logs);
        assert_eq!((plan.why("a"), plan.state.live()), (EndReason::Vanished, 0));
        assert!(matches!(plan.apply(removed("a"))[..], [Action::Forget(_, EndReason::Vanished)]));
    }
}

/// The process of an earlier planner may have been stopped in the middle of its call.
#[test]
fn a_registration_of_an_earlier_planner_may_appear_after_it_was_looked_up() {
    let settings = Settings { term: Some(2), ..settings(vec![linux_pool(2)]) };
    let mut plan = Plan::unrecovered_with(settings.clone());
    let created_at = plan.moment().wall;
    let found = Adopted { created_at, ..found("a", None, AdoptedContainer::Missing) };
    let actions = plan.apply(Event::Adopted(found.clone()));
    assert!(one_removal(&actions).deregister);
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(plan.apply(removed("a")), []);
    assert_eq!(removals(&plan.wait(59_000)), [] as [&Removal; 0]);
    assert!(one_removal(&plan.wait(2_000)).deregister);
    assert!(matches!(plan.apply(removed("a"))[..], [Action::Forget(_, EndReason::Vanished)]));

    // That of an old runner would be there by now.
    let mut plan = Plan::unrecovered_with(settings);
    plan.now += 301_000;
    assert!(one_removal(&plan.apply(Event::Adopted(found))).deregister);
    assert!(matches!(plan.apply(removed("a"))[..], [Action::Forget(_, EndReason::Vanished)]));
}

/// Docker may still start it.
#[test]
fn a_container_that_was_not_started_counts_until_it_is_removed() {
    let (mut plan, actions) = adopting(found("a", None, AdoptedContainer::Created));
    assert!(one_removal(&actions).deregister);
    assert_eq!((plan.why("a"), plan.state.live()), (EndReason::Vanished, 1));
    plan.apply(removed("a"));
    assert_eq!(plan.state.live(), 0);

    // It was started after all, and took a job.
    let (mut plan, _) = adopting(found("a", None, AdoptedContainer::Created));
    plan.apply(Event::RemovalRefused { runner: "a".into() });
    assert_eq!((plan.phase("a"), plan.state.live()), ("busy", 1));
}

#[test]
fn a_runner_whose_pool_is_no_longer_configured_may_finish_its_job() {
    let gone = |job| Adopted { pool: "gone".into(), ..found("a", job, AdoptedContainer::Running) };
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    plan.apply(Event::JobStarted { job: linux(1), runner: "a".into() });
    plan.apply(Event::Adopted(gone(Some(1))));
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(removals(&plan.wait(10 * 3_600_000)), [] as [&Removal; 0]);
    assert_eq!(plan.state.live(), 1);
    plan.exit("a", 0);
    assert_eq!(plan.why("a"), EndReason::Done);

    let (mut plan, _) = adopting(gone(None));
    plan.list("a", true, false);
    assert_eq!(one_removal(&plan.wait(1_000)).runner, "a");
}

#[test]
fn runners_beyond_max_are_kept_but_none_is_added() {
    let mut plan = Plan::unrecovered(vec![linux_pool(1)]);
    for name in ["a", "b", "c"] {
        plan.apply(Event::Adopted(found(name, Some(1), AdoptedContainer::Running)));
    }
    plan.queue(2);
    assert_eq!(plan.apply(Event::Recovered { provider: 0 }), []);
    for name in ["a", "b"] {
        assert_eq!(launches(&plan.exit(name, 0)), [] as [String; 0]);
    }
    assert_eq!(launches(&plan.exit("c", 0)).len(), 1);
}

pub(super) fn survey(plan: &mut Plan, containers: Vec<Adopted>) -> Vec<Action> {
    let taken_at = plan.moment().instant;
    plan.now += 500;
    plan.apply(Event::Survey { provider: 0, containers, taken_at })
}

#[test]
fn a_survey_finds_exits_and_removals_that_no_event_reported() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (exited, vanished, runs) = (plan.busy(1), plan.busy(2), plan.busy(3));
    plan.now += 1;
    let containers = vec![
        found(&exited, None, AdoptedContainer::Exited(0.into())),
        found(&runs, None, AdoptedContainer::Running),
    ];
    survey(&mut plan, containers.clone());
    assert_eq!(plan.why(&exited), EndReason::Done);
    assert_eq!(plan.why(&vanished), EndReason::Vanished);
    assert_eq!(plan.phase(&runs), "busy");
    assert_eq!(survey(&mut plan, containers), []);
}

#[test]
fn a_survey_ignores_containers_that_are_newer() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let launching = plan.provisioning(1);
    let taken_at = plan.moment().instant;
    plan.now += 10;
    plan.launched(&launching);
    plan.apply_without_effect(Event::Survey { provider: 0, containers: Vec::new(), taken_at });
}

#[test]
fn a_survey_that_is_older_than_a_removal_does_not_revive_the_runner() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    let taken_at = plan.moment().instant;
    plan.now += 10;
    plan.complete(1, &runner);
    plan.exit(&runner, 0);
    plan.apply(removed(&runner));
    let containers = vec![found(&runner, None, AdoptedContainer::Running)];
    plan.apply_without_effect(Event::Survey {
        provider: 0,
        containers: containers.clone(),
        taken_at,
    });
    // A container that still exists after the removal is real: it counts until it is removed.
    plan.now += 1;
    let removal = one_removal(&survey(&mut plan, containers));
    assert!(removal.container && !removal.deregister);
    assert_eq!((plan.phase(&runner), plan.state.live()), ("leaving", 1));
}

#[test]
fn a_survey_before_recovery_adopts_nothing() {
    let mut plan = Plan::unrecovered(vec![linux_pool(2)]);
    let running = found("a", None, AdoptedContainer::Running);
    assert_eq!(survey(&mut plan, vec![running]), []);
    plan.apply(Event::Adopted(found("a", Some(1), AdoptedContainer::Running)));
    assert_eq!(plan.phase("a"), "busy");
}
