//! What failures pause, for how long, and what ends the pause.

use super::*;

fn elsewhere(id: u64) -> Event {
    Event::JobQueued(at("acme/other", linux(id)))
}

fn gpu(id: u64) -> Event {
    Event::JobQueued(job(id, &["gpu"]))
}

/// After a failure with this cause: whether another repository in the same pool, the same one in
/// another pool, and another one in another pool, are paused.
fn blocks(cause: Cause) -> (bool, bool, bool) {
    let mut plan = Plan::new(vec![linux_pool(10), pool("gpu", &["gpu"])]);
    let runner = plan.provisioning(1);
    let actions = plan.fail(&runner, cause);
    assert_eq!(launches(&actions), [] as [String; 0], "{cause:?}");
    let far = at("acme/far", job(4, &["gpu"]));
    (
        plan.apply(elsewhere(2)).is_empty(),
        plan.apply(gpu(3)).is_empty(),
        plan.apply(Event::JobQueued(far)).is_empty(),
    )
}

#[test]
fn a_failure_pauses_what_would_fail_for_the_same_cause() {
    for cause in [Cause::DockerUnavailable, Cause::RateLimited, Cause::Store] {
        assert_eq!(blocks(cause), (true, true, true), "{cause:?}");
    }
    for cause in [Cause::Image, Cause::Container, Cause::RunnerExited] {
        assert_eq!(blocks(cause), (true, false, false), "{cause:?}");
    }
    for cause in
        [Cause::Unauthorized, Cause::GitHubUnavailable, Cause::Forbidden, Cause::UnexpectedResponse]
    {
        assert_eq!(blocks(cause), (false, true, false), "{cause:?}");
    }
    for cause in [Cause::Rejected, Cause::TimedOut] {
        assert_eq!(blocks(cause), (false, false, false), "{cause:?}");
    }
}

/// Ticks until something is launched. The number of seconds, and the runners.
fn seconds_to_launch(plan: &mut Plan) -> (u64, Vec<String>) {
    for seconds in 1..1_000 {
        let launches = launches(&plan.wait(1_000));
        if !launches.is_empty() {
            return (seconds, launches);
        }
    }
    panic!("nothing is launched");
}

#[test]
fn after_the_wait_one_launch_probes_and_its_success_lets_all_others_through() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runners: Vec<String> = (1..=5).flat_map(|id| launches(&plan.queue(id))).collect();
    plan.now += 100;
    for runner in &runners {
        plan.fail(runner, Cause::GitHubUnavailable);
    }
    let (seconds, probe) = seconds_to_launch(&mut plan);
    assert!(seconds <= 2 && probe.len() == 1, "{probe:?} after {seconds} s");
    assert_eq!(launches(&plan.wait(5_000)), [] as [String; 0]);
    assert_eq!(launches(&plan.launched(&probe[0])).len(), 4);
    assert_eq!(plan.state.backoffs().count(), 0);
}

#[test]
fn a_probe_that_fails_waits_twice_as_long() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let mut runner = plan.provisioning(1);
    let mut waits = Vec::new();
    for _ in 0..10 {
        plan.now += 100;
        plan.fail(&runner, Cause::DockerUnavailable);
        let (seconds, probe) = seconds_to_launch(&mut plan);
        assert_eq!(probe.len(), 1);
        runner = probe[0].clone();
        waits.push(seconds);
    }
    for (wait, least) in waits.iter().zip([1, 2, 4, 8, 16, 32, 64, 128, 256, 300]) {
        assert!((least..=least * 5 / 4 + 1).contains(wait), "{waits:?}");
    }
}

#[test]
fn retry_after_is_obeyed_even_if_an_earlier_launch_succeeds() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let (slow, limited) = (plan.provisioning(1), plan.provisioning(2));
    plan.now += 100;
    plan.apply(Event::LaunchFailed {
        runner: limited,
        cause: Cause::RateLimited,
        message: String::new(),
        retry_after_ms: 90_000,
        may_exist: false,
    });
    plan.launched(&slow);
    assert_eq!(launches(&plan.wait(89_000)), [] as [String; 0]);
    assert_eq!(launches(&plan.wait(2_000)).len(), 1);
}

#[test]
fn a_runner_that_comes_online_proves_its_image_and_a_running_container_does_not() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.queue(2);
    plan.exit(&runner, 1);
    let second = plan.state.runners().find(|runner| runner.phase.may_run()).unwrap().name.clone();
    plan.launched(&second);
    assert_eq!(launches(&plan.wait(10_000)), [] as [String; 0]);
    assert_eq!(launches(&plan.list(&second, true, false)).len(), 1);
}

#[test]
fn a_running_container_ends_the_back_off_of_a_failed_pull() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.provisioning(1);
    plan.queue(2);
    plan.now += 100;
    plan.fail(&runner, Cause::Image);
    let second = plan.state.runners().find(|runner| runner.phase.may_run()).unwrap().name.clone();
    plan.fail(&second, Cause::Image);
    let (_, probe) = seconds_to_launch(&mut plan);
    assert_eq!(launches(&plan.launched(&probe[0])).len(), 1);
}

#[test]
fn launches_of_other_pools_do_not_delay_the_probe_of_a_pool() {
    let mut plan = Plan::new(vec![linux_pool(10), pool("gpu", &["gpu"])]);
    let runner = plan.provisioning(1);
    plan.fail(&runner, Cause::Image);
    for id in 10..15 {
        plan.apply(gpu(id));
    }
    assert!(plan.state.launching() > 0);
    assert_eq!(seconds_to_launch(&mut plan).1.len(), 1);
}

#[test]
fn an_image_whose_runners_never_come_online_is_probed_one_at_a_time() {
    let mut plan = Plan::new(vec![linux_pool(50)]);
    let runners: Vec<String> = (1..=10).flat_map(|id| launches(&plan.queue(id))).collect();
    for runner in &runners {
        plan.launched(runner);
    }
    plan.wait(119_000);
    plan.list(&runners[0], false, false);
    plan.wait(1_000);
    assert_eq!(plan.state.backoffs().next().unwrap().1.cause, Cause::NeverOnline);
    let mut probes = 0;
    for _ in 0..600 {
        let mut actions = plan.wait(1_000);
        while let Some(action) = actions.pop() {
            match action {
                Action::Launch(launch) => {
                    probes += 1;
                    actions.extend(plan.launched(&launch.runner));
                }
                Action::Remove(removal) => actions.extend(plan.apply(removed(&removal.runner))),
                Action::LookUp(_) => {
                    let runner = plan.state.runners().next().map(|it| it.name.clone());
                    actions.extend(runner.into_iter().flat_map(|it| plan.list(&it, false, false)));
                }
                _ => {}
            }
        }
    }
    assert!((4..=6).contains(&probes), "{probes} in ten minutes");
}

#[test]
fn a_failing_credential_pauses_what_it_serves_and_nothing_else() {
    let mut plan = Plan::with(Settings {
        credentials: ["acme/app", "acme/*"]
            .map(|text| credential(text, TargetPattern::parse(text).unwrap()))
            .into(),
        ..settings(vec![linux_pool(10)])
    });
    let runner = plan.provisioning(1);
    plan.fail(&runner, Cause::Unauthorized);
    assert_eq!(launches(&plan.apply(elsewhere(2))).len(), 1);
    let reason = plan.reason(1);
    assert_eq!(reason.to_string(), "paused after an error with credential acme/app: no reason");
    assert_eq!(plan.reason(2), Waiting::LaunchQueued);
    let (blocked, _) = plan.state.backoffs().next().unwrap();
    assert_eq!(plan.state.describe(blocked), "all launches at repo:acme/app");

    // The probe waits for launches with the same credential alone.
    plan.queue(3);
    let (_, probe) = seconds_to_launch(&mut plan);
    assert_eq!(probe.len(), 1);
    let reason = plan.reason(3).to_string();
    assert!(reason.starts_with("one launch at a time after an error with credential acme/app"));
    assert_eq!(launches(&plan.launched(&probe[0])).len(), 1);

    plan.apply(Event::JobQueued(at("other/app", linux(4))));
    let target = "repo:other/app".parse().unwrap();
    assert_eq!(plan.reason(4), Waiting::NoCredential { target, server_known: true });
}
