//! One target's trouble never becomes another's.

use super::*;

const CAUSES_AT_GITHUB: [Cause; 4] =
    [Cause::Forbidden, Cause::UnexpectedResponse, Cause::Unauthorized, Cause::GitHubUnavailable];

fn queue_at(plan: &mut Plan, repository: &str, id: u64) -> Vec<Action> {
    plan.apply(Event::JobQueued(at(repository, linux(id))))
}

/// The launch for a job at the repository fails as soon as GitHub is asked.
fn fail(plan: &mut Plan, runner: &str, cause: Cause) -> Vec<Action> {
    plan.progress(runner, Stage::Credentials);
    plan.now += 100;
    let target = &plan.state.runner(runner).unwrap().target;
    let message = format!("registering at {target}");
    plan.apply(Event::LaunchFailed {
        runner: runner.into(),
        cause,
        message,
        retry_after_ms: 0,
        may_exist: false,
    })
}

fn works(plan: &mut Plan, runner: &str) {
    plan.progress(runner, Stage::Container);
    plan.launched(runner);
}

fn target_of(plan: &Plan, runner: &str) -> String {
    plan.state.runner(runner).unwrap().target.to_string()
}

/// Every launch at these repositories fails for an hour, those elsewhere work. Calls
/// `each_second` once a second. How many launches failed.
fn fail_for_an_hour(
    plan: &mut Plan,
    failing: &[&str],
    cause: Cause,
    mut each_second: impl FnMut(&mut Plan),
) -> usize {
    let mut failures = 0;
    for _ in 0..3_600 {
        let mut actions = plan.wait(1_000);
        while let Some(action) = actions.pop() {
            let Action::Launch(Launch { runner, target, .. }) = action else { continue };
            if failing.contains(&target.to_string().as_str()) {
                failures += 1;
                actions.extend(fail(plan, &runner, cause));
            } else {
                works(plan, &runner);
            }
        }
        each_second(plan);
    }
    failures
}

#[test]
fn a_target_that_fails_delays_no_job_of_another() {
    for cause in CAUSES_AT_GITHUB {
        let mut plan = Plan::new(vec![linux_pool(100)]);
        let mut failing: Vec<String> = (1..=3).flat_map(|id| launches(&plan.queue(id))).collect();
        let mut other = 100;
        fail_for_an_hour(&mut plan, &["repo:acme/app"], cause, |plan| {
            for runner in failing.drain(..) {
                fail(plan, &runner, cause);
            }
            other += 1;
            if other % 60 != 0 {
                return;
            }
            let runner = one_launch(&queue_at(plan, "acme/other", other));
            assert_eq!(target_of(plan, &runner), "repo:acme/other", "{cause:?}");
            works(plan, &runner);
            plan.apply(Event::JobStarted {
                job: at("acme/other", linux(other)),
                runner: runner.clone(),
            });
            plan.exit(&runner, 0);
            plan.apply(removed(&runner));
        });
        let blocked: Vec<&Blocked> = plan.state.backoffs().map(|(blocked, _)| blocked).collect();
        assert_eq!(blocked, [&Blocked::Target("repo:acme/app".parse().unwrap())], "{cause:?}");
    }
}

#[test]
fn a_target_that_only_fails_gets_fewer_than_twelve_requests_in_any_hour() {
    for cause in CAUSES_AT_GITHUB.into_iter().chain([Cause::Rejected, Cause::TimedOut]) {
        // Pools share what is known about a target, but not about their own settings.
        let shared = CAUSES_AT_GITHUB.contains(&cause);
        let mut pools = vec![linux_pool(100)];
        if shared {
            pools.push(pool("gpu", &["gpu"]));
        }
        let mut plan = Plan::new(pools);
        plan.queue(1);
        plan.apply(Event::JobQueued(job(2, &["gpu"])));
        let mut first: Vec<String> = plan.state.runners().map(|it| it.name.clone()).collect();
        let mut requests: Vec<u64> = Vec::new();
        for _ in 0..6 * 3_600 {
            let mut actions = plan.wait(1_000);
            for runner in first.drain(..) {
                // The executor asks once for launches that wait for each other.
                requests.truncate(0);
                requests.push(plan.now);
                actions.extend(fail(&mut plan, &runner, cause));
            }
            while let Some(action) = actions.pop() {
                match action {
                    Action::Launch(Launch { runner, .. }) => {
                        requests.push(plan.now);
                        actions.extend(fail(&mut plan, &runner, cause));
                    }
                    Action::Remove(removal) if removal.deregister => {
                        requests.push(plan.now);
                        actions.extend(plan.apply(removal_failed(&removal.runner, cause)));
                    }
                    Action::LookUp(target) => {
                        requests.push(plan.now);
                        plan.apply(Event::LookUpFailed {
                            target,
                            cause,
                            message: String::new(),
                            retry_after_ms: 0,
                        });
                    }
                    Action::LookUpJob { .. } => requests.push(plan.now),
                    _ => {}
                }
            }
        }
        for (index, first) in requests.iter().enumerate() {
            let in_hour = requests[index..].iter().filter(|at| **at < first + 3_600_000).count();
            assert!(in_hour < 12, "{cause:?}: {in_hour} in an hour, {requests:?}");
        }
        assert!(requests.len() >= 6 * 3, "{cause:?}: it is tried again: {requests:?}");
        let left = plan.state.runners().filter(|it| it.phase.as_str() == "leaving").count();
        assert!(left <= 2, "{cause:?}: {left} runners are left");
    }
}

#[test]
fn a_credential_that_fails_at_two_targets_is_paused_where_it_failed_and_tried_elsewhere() {
    for cause in [Cause::Unauthorized, Cause::GitHubUnavailable] {
        let mut plan = Plan::new(vec![linux_pool(100)]);
        let one = one_launch(&queue_at(&mut plan, "acme/one", 1));
        let two = one_launch(&queue_at(&mut plan, "acme/two", 2));
        fail(&mut plan, &one, cause);
        fail(&mut plan, &two, cause);
        assert!(plan.state.backoffs().any(|(blocked, _)| *blocked == Blocked::Credential(0)));
        // Each job's reason is about its own target.
        assert!(plan.reason(1).to_string().ends_with("registering at repo:acme/one"));
        assert!(plan.reason(2).to_string().ends_with("registering at repo:acme/two"));

        let three = one_launch(&queue_at(&mut plan, "acme/three", 3));
        assert_eq!(queue_at(&mut plan, "acme/three", 4), [], "one finds out whether it works");
        let four = one_launch(&queue_at(&mut plan, "acme/four", 5));
        fail(&mut plan, &four, cause);
        works(&mut plan, &three);
        // It works, so only the targets that failed are left, each with its own wait.
        assert!(!plan.state.backoffs().any(|(blocked, _)| *blocked == Blocked::Credential(0)));
        assert_eq!(plan.state.backoffs().count(), 3);
    }
}

#[test]
fn targets_take_turns_to_try_whether_their_credential_works_again() {
    let mut plan = Plan::new(vec![linux_pool(100)]);
    let repositories = ["acme/one", "acme/two", "acme/three"];
    for (id, repository) in (1..).zip(repositories) {
        let runner = one_launch(&queue_at(&mut plan, repository, id));
        fail(&mut plan, &runner, Cause::GitHubUnavailable);
    }
    // Two answer nothing, ever; the third would work.
    let mut tried = Vec::new();
    for _ in 0..30 {
        let mut actions = plan.wait(1_000);
        while let Some(action) = actions.pop() {
            let Action::Launch(Launch { runner, .. }) = action else { continue };
            tried.push(target_of(&plan, &runner));
            match tried.last().is_some_and(|it| it == "repo:acme/three") {
                true => works(&mut plan, &runner),
                false => actions.extend(fail(&mut plan, &runner, Cause::GitHubUnavailable)),
            }
        }
    }
    let third = tried.iter().position(|it| it == "repo:acme/three");
    assert!(third.is_some_and(|third| third <= 2), "{tried:?}");
}

#[test]
fn two_targets_that_never_answer_keep_no_other_waiting() {
    let mut plan = Plan::new(vec![linux_pool(100)]);
    for (id, repository) in [(1, "acme/one"), (2, "acme/two")] {
        let runner = one_launch(&queue_at(&mut plan, repository, id));
        fail(&mut plan, &runner, Cause::GitHubUnavailable);
    }
    let failing = ["repo:acme/one", "repo:acme/two"];
    let tries = fail_for_an_hour(&mut plan, &failing, Cause::GitHubUnavailable, |_| {});
    assert!(tries < 2 * 12, "{tries}");
    let runner = one_launch(&queue_at(&mut plan, "acme/other", 3));
    works(&mut plan, &runner);
    assert_eq!(launches(&queue_at(&mut plan, "acme/other", 4)).len(), 1);
}

#[test]
fn a_probe_is_not_given_to_a_target_that_cannot_use_it() {
    let pools = vec![Pool { max: 1, ..linux_pool(1) }, pool("gpu", &["gpu"])];
    let mut plan = Plan::new(pools);
    // The pool of this one is full when the credential may be tried again.
    let failed = one_launch(&plan.queue(1));
    fail(&mut plan, &failed, Cause::GitHubUnavailable);
    let gpu = at("acme/gpu", job(2, &["gpu"]));
    let second = one_launch(&plan.apply(Event::JobQueued(gpu)));
    fail(&mut plan, &second, Cause::GitHubUnavailable);
    plan.apply(Event::Adopted(Adopted {
        runner: "edge-linux-adopted".into(),
        pool: "linux".into(),
        provider: 0,
        target: "repo:acme/app".parse().unwrap(),
        registration_id: None,
        job: Some(linux(9).key),
        created_at: 1,
        container: AdoptedContainer::Running,
        parameters: Parameters::default(),
        devices: Vec::new(),
        parked: None,
    }));
    let probe = one_launch(&plan.wait(3_000));
    assert_eq!(target_of(&plan, &probe), "repo:acme/gpu");
}

#[test]
fn a_probe_that_its_pool_has_no_place_for_goes_to_another_target_in_the_same_tick() {
    let first = TargetPattern::parse("first/*").unwrap();
    let credentials = vec![credential("first", first), credential("github", TargetPattern::Any)];
    let pools = vec![linux_pool(100), pool("gpu", &["gpu"])];
    let mut plan = Plan::with(Settings { credentials, ..settings(pools) });
    let failed = plan.provisioning(1);
    plan.fail(&failed, Cause::Image);
    let gpu = at("first/gpu", job(2, &["gpu"]));
    let limited = one_launch(&plan.apply(Event::JobQueued(gpu)));
    plan.fail(&limited, Cause::RateLimited);
    assert_eq!(queue_at(&mut plan, "first/lib", 3), [], "the pool is paused");
    // One launch may try the pool's image, and one the credential.
    plan.now += 5_000;
    let launched = launches(&plan.tick());
    let mut targets: Vec<String> = launched.iter().map(|it| target_of(&plan, it)).collect();
    targets.sort();
    assert_eq!(targets, ["repo:acme/app", "repo:first/gpu"]);
}

#[test]
fn requests_of_different_kinds_about_a_failing_target_share_one_allowance() {
    let mut plan = Plan::new(vec![linux_pool(100)]);
    let first = plan.provisioning(1);
    let target = plan.state.runner(&first).unwrap().target.clone();
    let cause = Cause::Unauthorized;
    for _ in 0..4 {
        let (target, message) = (target.clone(), String::new());
        plan.apply(Event::LookUpFailed { target, cause, message, retry_after_ms: 0 });
    }
    let began = plan.now;
    fail(&mut plan, &first, cause);
    let mut tries = 5;
    while plan.now < began + 3_600_000 - 1_000 {
        for runner in launches(&plan.wait(1_000)) {
            tries += 1;
            fail(&mut plan, &runner, cause);
        }
    }
    assert!((9..12).contains(&tries), "{tries}");
}

#[test]
fn back_offs_of_targets_that_nobody_asks_for_any_more_are_forgotten() {
    let mut plan = Plan::new(vec![linux_pool(100)]);
    let runner = plan.provisioning(1);
    fail(&mut plan, &runner, Cause::Forbidden);
    plan.complete(1, "");
    plan.now += 2 * 3_600_000;
    plan.tick();
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn look_ups_at_a_target_that_fails_are_rare_and_do_not_hold_up_those_at_others() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for (id, repository) in [(1, "acme/a"), (2, "acme/b")] {
        let runner = one_launch(&queue_at(&mut plan, repository, id));
        plan.launched(&runner);
    }
    let (mut failing, mut working) = (0, 0);
    for _ in 0..100 {
        for target in look_ups(&plan.wait(1_000)) {
            if target.to_string() == "repo:acme/a" {
                failing += 1;
                plan.apply(Event::LookUpFailed {
                    target,
                    cause: Cause::Forbidden,
                    message: String::new(),
                    retry_after_ms: 0,
                });
            } else {
                working += 1;
            }
        }
    }
    assert!(failing <= 3 && working > 10, "{failing} and {working}");
    assert_eq!(plan.state.backoffs().count(), 0, "launches are not paused");
}
