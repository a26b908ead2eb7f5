//! Launches and removals that GitHub or Docker refuse: every runner ends, and its place is
//! free.

use super::*;

fn remove(plan: &mut Plan, runner: &str, force: bool) -> Vec<Action> {
    plan.apply(Event::RemoveRunner { runner: runner.into(), force })
}

fn fail_with(runner: &str, cause: Cause) -> Event {
    Event::LaunchFailed {
        runner: runner.into(),
        cause,
        message: "no".into(),
        retry_after_ms: 0,
        may_exist: false,
    }
}

fn found(runner: &str, container: AdoptedContainer) -> Adopted {
    Adopted {
        runner: runner.into(),
        pool: "linux".into(),
        provider: 0,
        target: "repo:acme/app".parse().unwrap(),
        registration_id: None,
        job: None,
        created_at: 1,
        container,
        parameters: Parameters::default(),
        devices: Vec::new(),
        parked: None,
    }
}

fn survey(plan: &mut Plan, containers: Vec<Adopted>) -> Vec<Action> {
    plan.now += 1;
    let taken_at = plan.moment().instant;
    plan.now += 500;
    plan.apply(Event::Survey { provider: 0, containers, taken_at })
}

fn forgotten(actions: &[Action]) -> Vec<&Runner> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Forget(runner, _) => Some(&**runner),
            _ => None,
        })
        .collect()
}

fn left(runner: &Runner) -> String {
    let Phase::Removing(removing) = &runner.phase else { panic!("{runner:?}") };
    removing.left().unwrap_or_default()
}

// Launches

#[test]
fn a_launch_that_github_refused_for_certain_leaves_nothing_to_remove() {
    for cause in [Cause::Unauthorized, Cause::Forbidden, Cause::Rejected, Cause::RateLimited] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        plan.progress(&runner, Stage::Credentials);
        let actions = plan.apply(fail_with(&runner, cause));
        assert!(matches!(actions[..], [Action::Forget(_, EndReason::LaunchFailed(_))]));
        assert_eq!(plan.state.runners().count(), 0, "{cause:?}");
    }
}

#[test]
fn a_launch_that_failed_before_github_was_asked_leaves_nothing_to_remove() {
    for cause in [Cause::Image, Cause::DockerUnavailable, Cause::Store, Cause::GitHubUnavailable] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        plan.progress(&runner, Stage::Image);
        let actions = plan.apply(fail_with(&runner, cause));
        assert!(matches!(actions[..], [Action::Forget(..)]), "{cause:?}: {actions:?}");
    }
}

#[test]
fn a_registration_that_may_be_there_is_not_searched_for_while_its_target_fails() {
    for cause in [Cause::GitHubUnavailable, Cause::UnexpectedResponse] {
        let mut plan = Plan::new(vec![linux_pool(10)]);
        let runner = plan.provisioning(1);
        plan.progress(&runner, Stage::Credentials);
        plan.apply(fail_with(&runner, cause));
        plan.complete(1, "");
        assert_eq!((plan.phase(&runner), plan.state.live()), ("leaving", 0));
        let actions = plan.wait(UNANSWERED_MAX.as_millis() as u64 + 10_000);
        assert_eq!(removals(&actions), [] as [&Removal; 0], "{cause:?}");
        assert_eq!(forgotten(&actions).len(), 1, "{cause:?}");
    }
}

// Removals

/// A pool with one place, an idle runner in it, and a job elsewhere that needs the place. GitHub
/// answers every request to remove the registration so. When the other job's launch came, in
/// milliseconds, how often GitHub was asked, and how the runner ended.
fn refuse_removal(cause: Cause) -> (u64, usize, Runner) {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let idle = plan.surplus(1);
    let mut actions = plan.apply(Event::JobQueued(at("acme/lib", linux(2))));
    let begun = plan.now;
    let (mut requests, mut ended) = (0, None);
    for _ in 0..7_200 {
        while !actions.is_empty() {
            match actions.remove(0) {
                Action::Remove(removal) if removal.deregister => {
                    requests += 1;
                    assert!(!removal.container_first, "it may be busy");
                    actions.extend(plan.apply(removal_failed(&idle, cause)));
                }
                Action::Remove(removal) => {
                    assert!(removal.container && !removal.force);
                    actions.extend(plan.apply(removed(&idle)));
                }
                Action::Forget(runner, reason) => {
                    assert_eq!(reason, EndReason::Preempted);
                    ended = Some(*runner);
                }
                Action::Launch(launch) => {
                    assert_eq!(launch.target.to_string(), "repo:acme/lib");
                    return (plan.now - begun, requests, ended.expect("it ended"));
                }
                _ => {}
            }
        }
        actions = plan.wait(1_000);
    }
    panic!("{cause:?}: the job waits for ever");
}

#[test]
fn a_registration_that_github_does_not_remove_holds_its_place_for_a_limited_time() {
    for (cause, limit) in [
        (Cause::Forbidden, REFUSED_MAX),
        (Cause::Unauthorized, REFUSED_MAX),
        (Cause::UnexpectedResponse, REFUSED_MAX),
        (Cause::GitHubUnavailable, UNANSWERED_MAX),
        (Cause::RateLimited, UNANSWERED_MAX),
    ] {
        let (waited, requests, runner) = refuse_removal(cause);
        assert!(limit < REMOVAL_MAX);
        assert!(waited <= limit.as_millis() as u64 + 2_000, "{cause:?}: {waited} ms");
        assert!(requests <= 10, "{cause:?}: {requests}");
        let expected = format!("its registration may be left at GitHub: {cause:?}");
        assert_eq!(left(&runner), expected);
        let Phase::Removing(removing) = &runner.phase else { panic!("{runner:?}") };
        assert!(removing.to_string().ends_with(&expected) && removing.leaves_registration());
    }
}

#[test]
fn a_runner_that_takes_a_job_while_its_registration_cannot_be_removed_stays() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    remove(&mut plan, &runner, false);
    plan.apply(removal_failed(&runner, Cause::GitHubUnavailable));
    plan.start(2, &runner);
    assert_eq!(plan.phase(&runner), "busy");
    let an_hour = Duration::from_secs(3_599);
    assert_eq!(removals(&plan.wait(an_hour.as_millis() as u64)), [] as [&Removal; 0]);
}

#[test]
fn a_container_in_which_nothing_runs_does_not_wait_for_github() {
    let mut plan = Plan::new(vec![linux_pool(4)]);
    let runner = plan.busy(1);
    // GitHub cannot be asked about the target.
    let failed = plan.provisioning(2);
    plan.progress(&failed, Stage::Credentials);
    plan.apply(fail_with(&failed, Cause::Forbidden));

    let removal = one_removal(&plan.exit(&runner, 1));
    assert!(removal.container && !removal.deregister);
    plan.apply_without_effect(removed(&runner));
    assert_eq!((plan.phase(&runner), plan.state.live()), ("leaving", 0));
    // It is asked once more.
    let again = plan.wait(10_000);
    let again = removals(&again)[0];
    assert!(again.deregister && !again.container);
    plan.apply(removal_failed(&runner, Cause::Forbidden));
    let actions = plan.wait(REFUSED_MAX.as_millis() as u64);
    assert!(forgotten(&actions).iter().any(|it| it.name == runner), "{actions:?}");

    // One that is removed while it runs, and exits meanwhile.
    let mut plan = Plan::new(vec![linux_pool(4)]);
    let runner = plan.surplus(1);
    remove(&mut plan, &runner, false);
    plan.apply(removal_failed(&runner, Cause::Forbidden));
    let removal = one_removal(&plan.exit(&runner, 0));
    assert!(removal.container && removal.container_first);
}

#[test]
fn a_dead_runner_that_github_considers_busy_ends_at_last() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.busy(1);
    let mut actions = plan.exit(&runner, 137);
    let mut tries = 0;
    for _ in 0..BUSY_MAX.as_secs() + 300 {
        while let Some(action) = actions.pop() {
            match action {
                Action::Remove(removal) if removal.deregister => {
                    tries += 1;
                    actions.extend(
                        plan.apply(Event::RemovalRefused { runner: removal.runner.clone() }),
                    );
                }
                Action::Remove(removal) => actions.extend(plan.apply(removed(&removal.runner))),
                _ => {}
            }
        }
        assert_eq!(plan.state.live(), 0);
        actions = plan.wait(1_000);
    }
    assert_eq!(plan.phase(&runner), "gone");
    assert!(tries < 20, "{tries}");
}

#[test]
fn a_removal_of_which_nothing_is_heard_is_repeated() {
    for (start, end) in [("idle", "gone"), ("busy", "gone")] {
        let mut plan = Plan::new(vec![linux_pool(1)]);
        let runner = if start == "idle" { plan.surplus(1) } else { plan.busy(1) };
        match start {
            "idle" => drop(remove(&mut plan, &runner, false)),
            _ => drop(plan.exit(&runner, 1)),
        }
        let again = one_removal(&plan.wait(REMOVAL_MAX.as_millis() as u64 / 2));
        assert_eq!(again.runner, runner);
        plan.apply(removed(&runner));
        assert_eq!(plan.phase(&runner), end);
    }
}

#[test]
fn a_runner_ends_even_if_nothing_is_ever_heard_of_its_removal() {
    for reason in ["done", "removed"] {
        let mut plan = Plan::new(vec![linux_pool(1)]);
        let runner = if reason == "done" { plan.busy(1) } else { plan.surplus(1) };
        match reason {
            "done" => drop(plan.exit(&runner, 1)),
            _ => drop(remove(&mut plan, &runner, false)),
        }
        let mut alone = false;
        for _ in 0..4 {
            let actions = plan.wait(REMOVAL_MAX.as_millis() as u64);
            alone |= removals(&actions).iter().any(|it| it.container && !it.deregister);
            // Its container is gone.
            survey(&mut plan, Vec::new());
        }
        assert!(alone, "{reason}: the container does not wait for GitHub");
        assert_eq!((plan.phase(&runner), plan.state.live()), ("gone", 0), "{reason}");
    }
}

#[test]
fn a_container_that_is_gone_frees_its_place_although_its_removal_is_not_heard_of() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    remove(&mut plan, &runner, false);
    plan.queue(2);
    assert_eq!(plan.state.live(), 1);
    assert_eq!(launches(&survey(&mut plan, Vec::new())).len(), 1);
    assert_eq!(plan.phase(&runner), "leaving");

    // So does one that Docker is removing, or cannot remove.
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    remove(&mut plan, &runner, false);
    plan.queue(2);
    let stuck = found(&runner, AdoptedContainer::Missing);
    assert_eq!(launches(&survey(&mut plan, vec![stuck])).len(), 1);

    // The container of a launch that failed may still appear.
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.provisioning(1);
    plan.wait(130_000);
    assert_eq!(plan.why(&runner), EndReason::LaunchTimedOut);
    survey(&mut plan, Vec::new());
    assert_eq!(plan.state.live(), 1);
}

// What is left

/// A runner that ended without its registration.
fn with_left_registration() -> (Plan, String) {
    let mut plan = Plan::new(vec![linux_pool(5)]);
    let runner = plan.surplus(1);
    let mut actions = remove(&mut plan, &runner, false);
    for _ in 0..90 {
        while let Some(action) = actions.pop() {
            if let Action::Remove(removal) = action {
                let event = match removal.deregister {
                    true => removal_failed(&runner, Cause::Forbidden),
                    false => removed(&runner),
                };
                actions.extend(plan.apply(event));
            }
        }
        actions = plan.wait(1_000);
    }
    assert_eq!(plan.phase(&runner), "gone");
    (plan, runner)
}

fn listed(plan: &Plan, names: &[&str]) -> Event {
    let runners = names
        .iter()
        .map(|name| Registration { name: (*name).into(), id: 9, online: false, busy: false })
        .collect();
    let requested_at = plan.moment().instant;
    Event::Registrations { target: "repo:acme/app".parse().unwrap(), runners, requested_at }
}

#[test]
fn a_registration_that_was_left_is_removed_once_its_target_works_again() {
    let (mut plan, runner) = with_left_registration();
    assert_eq!(look_ups(&plan.wait(5_000)), []);
    plan.queue(2);
    let other = loop {
        if let [name] = &launches(&plan.wait(1_000))[..] {
            break name.clone();
        }
    };
    plan.progress(&other, Stage::Container);
    assert_eq!(look_ups(&plan.tick()).len(), 1);
    let event = listed(&plan, &[&runner, "somebody-elses"]);
    let actions = plan.apply(event);
    let target: ServerTarget = "repo:acme/app".parse().unwrap();
    let expected =
        Action::Deregister { runner: runner.clone(), target: target.clone(), registration_id: 9 };
    assert_eq!(actions, [expected]);
    let event = listed(&plan, &[&runner]);
    plan.apply_without_effect(event);
    plan.apply_without_effect(Event::Deregistered { runner, target });
    assert!(plan.state.left.is_empty());
}

#[test]
fn a_registration_that_was_left_is_looked_for_now_and_then_for_a_day() {
    let (mut plan, runner) = with_left_registration();
    let mut tries = 0;
    for _ in 0..48 {
        for _ in look_ups(&plan.wait(3_600_000)) {
            tries += 1;
            plan.apply(Event::LookUpFailed {
                target: "repo:acme/app".parse().unwrap(),
                cause: Cause::Forbidden,
                message: String::new(),
                retry_after_ms: 0,
            });
        }
    }
    assert!((20..=30).contains(&tries), "{tries}");
    assert!(plan.state.left.is_empty());

    let (mut plan, _) = (with_left_registration().0, runner);
    plan.now += 3_600_000;
    assert_eq!(look_ups(&plan.tick()).len(), 1);
    let event = listed(&plan, &[]);
    plan.apply_without_effect(event);
    assert!(plan.state.left.is_empty(), "GitHub does not list it any more");
}

// By an operator

#[test]
fn force_removes_the_container_of_a_runner_that_waits_for_github() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.surplus(1);
    remove(&mut plan, &runner, false);
    plan.apply(removal_failed(&runner, Cause::GitHubUnavailable));
    assert_eq!(remove(&mut plan, &runner, false), []);
    let removal = one_removal(&remove(&mut plan, &runner, true));
    assert!(removal.container && removal.container_first && removal.force);
    assert_eq!(remove(&mut plan, &runner, true), [], "once is enough");
    let actions = plan.apply(removed(&runner));
    let [Action::Forget(gone, EndReason::RemovedByForce)] = &actions[..] else {
        panic!("{actions:?}");
    };
    assert!(left(gone).starts_with("its registration may be left"));
}

#[test]
fn force_ends_a_runner_of_which_only_the_registration_is_left() {
    let mut plan = Plan::new(vec![linux_pool(4)]);
    let runner = plan.busy(1);
    plan.exit(&runner, 1);
    let failure = RemovalFailure {
        deregistered: false,
        container_removed: true,
        cause: Cause::Forbidden,
        message: "archived".into(),
        retry_after_ms: 0,
    };
    plan.apply(Event::RemovalFailed { runner: runner.clone(), failure });
    assert_eq!(plan.phase(&runner), "leaving");
    let actions = remove(&mut plan, &runner, true);
    // Its end is still the one that it had.
    let reason = EndReason::Exited { exit_code: 1 };
    assert!(matches!(&actions[..], [Action::Forget(_, it)] if *it == reason), "{actions:?}");
}

#[test]
fn force_removes_a_runner_that_is_being_launched_once_its_launch_has_ended() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.provisioning(1);
    assert_eq!(remove(&mut plan, &runner, true), []);
    assert!(plan.state.removed_after_launch(&runner));
    assert!(one_removal(&plan.launched(&runner)).force);
    assert_eq!(plan.why(&runner), EndReason::RemovedByForce);

    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.provisioning(1);
    remove(&mut plan, &runner, true);
    plan.fail(&runner, Cause::Image);
    assert_eq!(plan.phase(&runner), "gone");
    assert!(!plan.state.removed_after_launch(&runner));
}

// Docker

#[test]
fn a_container_whose_runner_is_on_record_as_gone_is_removed_and_its_record_stays() {
    for container in [AdoptedContainer::Missing, AdoptedContainer::Exited(1.into())] {
        let mut plan = Plan::new(vec![linux_pool(1)]);
        let runner = plan.busy(1);
        plan.exit(&runner, 1);
        assert_eq!(forgotten(&plan.apply(removed(&runner))).len(), 1);
        // Docker said that it was removed, and lists it for hours.
        let mut requests = 0;
        for _ in 0..120 {
            for action in survey(&mut plan, vec![found(&runner, container)]) {
                match action {
                    Action::Remove(removal) => {
                        requests += 1;
                        assert!(removal.container && !removal.deregister);
                    }
                    action => panic!("{action:?}"),
                }
            }
            assert_eq!(plan.state.live(), 0);
            plan.apply_without_effect(removal_failed(&runner, Cause::Container));
            for action in plan.wait(30_000) {
                match action {
                    Action::Remove(_) => {
                        requests += 1;
                        plan.apply_without_effect(removal_failed(&runner, Cause::Container));
                    }
                    // Nothing reports the end of its job.
                    Action::LookUpJob { .. } => {}
                    action => panic!("{action:?}"),
                }
            }
        }
        assert!((10..40).contains(&requests), "{requests} in an hour");
    }
}

#[test]
fn a_container_of_an_earlier_process_whose_runner_is_on_record_as_gone_is_removed() {
    let mut plan = Plan::unrecovered(vec![linux_pool(1)]);
    let stray = found("edge-linux-1", AdoptedContainer::Running);
    let removal = one_removal(&plan.apply(Event::OnRecordAsGone(stray.clone())));
    assert!(removal.container && removal.container_first && !removal.deregister);
    // It runs, so it counts.
    assert_eq!(plan.state.live(), 1);
    plan.apply_without_effect(Event::OnRecordAsGone(stray));
    plan.apply_without_effect(removed("edge-linux-1"));
    assert_eq!(plan.state.live(), 0);
}

#[test]
fn a_runner_whose_container_docker_cannot_remove_ends_at_last() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let runner = plan.busy(1);
    let mut actions = plan.exit(&runner, 1);
    let mut ended = Vec::new();
    for _ in 0..CONTAINER_MAX.as_secs() + 600 {
        while let Some(action) = actions.pop() {
            match action {
                Action::Remove(removal) => {
                    let failure = RemovalFailure {
                        deregistered: removal.deregister,
                        container_removed: false,
                        cause: Cause::Container,
                        message: "device or resource busy".into(),
                        retry_after_ms: 0,
                    };
                    let runner = removal.runner;
                    actions.extend(plan.apply(Event::RemovalFailed { runner, failure }));
                }
                Action::Forget(runner, _) => ended.push(left(&runner)),
                _ => {}
            }
        }
        assert_eq!(plan.state.live(), 0);
        actions = plan.wait(1_000);
    }
    assert_eq!(ended, ["its container is left: device or resource busy"]);
}

#[test]
fn a_runner_that_one_list_did_not_contain_goes_on_if_the_next_one_does() {
    let mut plan = Plan::new(vec![linux_pool(2)]);
    let runner = plan.busy(1);
    let removal = one_removal(&survey(&mut plan, Vec::new()));
    assert!(removal.deregister && !removal.container_first, "it may still work");
    assert_eq!(plan.why(&runner), EndReason::Vanished);
    plan.apply(Event::RemovalRefused { runner: runner.clone() });
    survey(&mut plan, vec![found(&runner, AdoptedContainer::Running)]);
    assert_eq!((plan.phase(&runner), plan.state.live()), ("busy", 1));
    plan.exit(&runner, 0);
    assert_eq!(plan.why(&runner), EndReason::Done);
}

#[test]
fn every_runner_has_a_limit_in_every_phase() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (busy, idle) = (plan.busy(2), plan.surplus(1));
    remove(&mut plan, &idle, false);
    remove(&mut plan, &busy, true);
    plan.provisioning(3);
    plan.starting(4);
    let done = plan.busy(5);
    plan.exit(&done, 0);
    plan.apply(removed(&done));
    for runner in plan.state.runners() {
        assert!(runner.deadline.is_some(), "{runner:?}");
    }
}
