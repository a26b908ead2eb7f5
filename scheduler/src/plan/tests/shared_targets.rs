//! Targets that several credentials serve.

use super::*;

const FIRST: usize = 0;
const SECOND: usize = 1;

/// Two credentials for everything on this server.
fn two_on(host: Host) -> Plan {
    let on = |name| Credential { host, ..credential(name, TargetPattern::Any) };
    let credentials = vec![on("first"), on("second")];
    Plan::with(Settings { credentials, ..settings(vec![linux_pool(1_000)]) })
}

fn two() -> Plan {
    two_on(Host::default())
}

/// The credential of each launch.
fn used(actions: &[Action]) -> Vec<usize> {
    let used = actions.iter().filter_map(|action| match action {
        Action::Launch(launch) => Some(launch.credential),
        _ => None,
    });
    used.collect()
}

/// The runner and the credential of the only launch.
fn launch(actions: &[Action]) -> (String, usize) {
    (one_launch(actions), used(actions)[0])
}

/// Fails as soon as GitHub is asked.
fn refuse(plan: &mut Plan, runner: &str, cause: Cause) -> Vec<Action> {
    plan.progress(runner, Stage::Credentials);
    plan.now += 100;
    plan.fail(runner, cause)
}

fn works(plan: &mut Plan, runner: &str) {
    plan.progress(runner, Stage::Container);
    plan.launched(runner);
}

/// Launches that use the first credential fail, the others work: each is replaced at once. Returns
/// when the first one was tried, in seconds.
fn refuse_first(plan: &mut Plan, mut actions: Vec<Action>, cause: Cause, seconds: u64) -> Vec<u64> {
    let began = plan.now;
    let mut tries = Vec::new();
    loop {
        while let Some(action) = actions.pop() {
            let Action::Launch(Launch { runner, credential, .. }) = action else { continue };
            if credential == FIRST {
                tries.push((plan.now - began) / 1_000);
                actions.extend(refuse(plan, &runner, cause));
                assert!(actions.iter().any(|it| matches!(it, Action::Launch(_))), "{cause:?}");
            } else {
                works(plan, &runner);
                plan.exit(&runner, 1);
                plan.apply(removed(&runner));
                plan.state.backoffs.healthy(0, &Parameters::default());
            }
        }
        if plan.now >= began + 1_000 * seconds {
            return tries;
        }
        actions = plan.wait(1_000);
    }
}

#[test]
fn launches_are_spread_evenly() {
    let mut plan = two();
    let used: Vec<usize> = (1..=40).flat_map(|id| used(&plan.queue(id))).collect();
    assert_eq!(used.iter().filter(|it| **it == FIRST).count(), 20, "{used:?}");
    assert_eq!(used[..4], [FIRST, SECOND, FIRST, SECOND]);
    // Also those that are launched together.
    let mut plan = two();
    plan.apply(Event::Drain { pool: None, draining: true });
    (1..=40).for_each(|id| drop(plan.queue(id)));
    let together = self::used(&plan.apply(Event::Drain { pool: None, draining: false }));
    assert_eq!(together.len(), 40);
    assert_eq!(together.iter().filter(|it| **it == FIRST).count(), 20);
}

#[test]
fn the_credential_with_the_most_left_is_used() {
    let mut plan = two();
    let quota = |credential, remaining| Quota {
        credential,
        account: String::new(),
        limit: 5_000,
        remaining,
    };
    plan.apply(Event::Quotas(vec![quota(FIRST, 4_750), quota(SECOND, 5_000)]));
    let used: Vec<usize> = (1..=20).flat_map(|id| used(&plan.queue(id))).collect();
    // Each launch takes a 180th of a minute's; the first has used a 20th of the hour's.
    assert_eq!(used[..9], [SECOND; 9]);
    assert!(used[9..].contains(&FIRST), "{used:?}");
    // What is used up is left alone, and used if there is nothing else.
    plan.apply(Event::Quotas(vec![quota(FIRST, 0), quota(SECOND, 100)]));
    let used: Vec<usize> = (21..=25).flat_map(|id| self::used(&plan.queue(id))).collect();
    assert_eq!(used, [SECOND; 5]);
    plan.apply(Event::Quotas(vec![quota(FIRST, 0), quota(SECOND, 0)]));
    assert_eq!(launches(&plan.queue(26)).len(), 1);
}

#[test]
fn a_reload_of_the_pools_keeps_what_each_has_left() {
    let mut plan = two();
    let quota = Quota { credential: FIRST, account: String::new(), limit: 5_000, remaining: 0 };
    plan.apply(Event::Quotas(vec![quota]));
    plan.apply(Event::Pools(vec![linux_pool(10), pool("gpu", &["gpu"])]));
    assert_eq!(launch(&plan.queue(1)).1, SECOND);
    assert_eq!(launch(&plan.queue(2)).1, SECOND);
}

#[test]
fn a_credential_that_is_refused_costs_one_launch_and_is_tried_again_at_a_growing_distance() {
    for cause in [Cause::Unauthorized, Cause::Forbidden, Cause::UnexpectedResponse] {
        let mut plan = two();
        let first = plan.queue(1);
        let tries = refuse_first(&mut plan, first, cause, 4);
        assert_eq!(tries, [0], "{cause:?}");
        let (blocked, _) = plan.state.backoffs().next().unwrap();
        let described = "launches at repo:acme/app with credential first";
        assert_eq!(plan.state.describe(blocked), described);

        let tries = refuse_first(&mut plan, Vec::new(), cause, 7_200);
        assert!((3..=9).contains(&tries.len()), "{cause:?}: {tries:?}");
        assert!(tries[1..].windows(2).all(|pair| pair[1] - pair[0] >= 1_200), "{tries:?}");
    }
}

#[test]
fn launches_that_were_under_way_with_the_other_credential_go_on() {
    let mut plan = two();
    let runners: Vec<(String, usize)> = (1..=10).map(|id| launch(&plan.queue(id))).collect();
    let of = |credential| {
        let own = runners.iter().filter(move |it| it.1 == credential);
        own.map(|(runner, _)| runner.clone()).collect::<Vec<_>>()
    };
    let mut again = Vec::new();
    for runner in of(FIRST) {
        again.extend(used(&refuse(&mut plan, &runner, Cause::Unauthorized)));
    }
    assert_eq!(again, [SECOND; 5], "each is replaced at once");
    of(SECOND).iter().for_each(|runner| works(&mut plan, runner));
    assert_eq!(plan.state.backoffs().count(), 1);
}

#[test]
fn a_credential_works_again_after_one_launch_that_tries_it() {
    let mut plan = two();
    let (runner, credential) = launch(&plan.queue(1));
    assert_eq!(credential, FIRST);
    assert_eq!(used(&refuse(&mut plan, &runner, Cause::Unauthorized)), [SECOND]);
    plan.now += 10_000;
    let (probe, credential) = launch(&plan.queue(2));
    assert_eq!(credential, FIRST);
    assert_eq!(used(&plan.queue(3)), [SECOND], "one at a time");
    works(&mut plan, &probe);
    assert_eq!(plan.state.backoffs().count(), 0);
    let used: Vec<usize> = (4..=7).flat_map(|id| used(&plan.queue(id))).collect();
    assert_eq!(used.iter().filter(|it| **it == FIRST).count(), 2, "{used:?}");
}

#[test]
fn a_rate_limit_pauses_its_own_credential_alone() {
    let mut plan = two();
    let (runner, _) = launch(&plan.queue(1));
    let limited = |runner: String| Event::LaunchFailed {
        runner,
        cause: Cause::RateLimited,
        message: "limited".into(),
        retry_after_ms: 60_000,
        may_exist: false,
    };
    let (second, credential) = launch(&plan.apply(limited(runner)));
    assert_eq!(credential, SECOND);
    let used: Vec<usize> = (2..=10).flat_map(|id| used(&plan.queue(id))).collect();
    assert_eq!(used, [SECOND; 9]);
    // A job has a reason that names a credential once both are paused: the one that is first.
    plan.now += 10_000;
    plan.apply(limited(second));
    let until = plan.moment().instant + Duration::from_secs(50);
    assert_eq!(plan.reason(10), Waiting::RateLimited { credential: "first".into(), until });
    let probe = launch(&plan.wait(50_000));
    assert_eq!(probe.1, FIRST);
}

#[test]
fn a_job_waits_if_both_are_refused_and_its_reason_names_one() {
    let mut plan = two();
    let (first, _) = launch(&plan.queue(1));
    let (second, credential) = launch(&refuse(&mut plan, &first, Cause::Unauthorized));
    assert_eq!(credential, SECOND);
    assert_eq!(launches(&refuse(&mut plan, &second, Cause::Unauthorized)), [""; 0]);
    let reason = plan.reason(1).to_string();
    assert!(reason.starts_with("paused after an error with credential "), "{reason}");
    assert!(plan.state.fails_at(&"repo:acme/app".parse().unwrap()));
}

#[test]
fn a_target_that_fails_with_both_costs_few_requests() {
    for cause in [Cause::GitHubUnavailable, Cause::Unauthorized, Cause::Forbidden] {
        let mut plan = two();
        let mut actions = plan.queue(1);
        let mut tries = VecDeque::new();
        for _ in 0..4 * 3_600 {
            while let Some(action) = actions.pop() {
                let Action::Launch(Launch { runner, .. }) = action else { continue };
                tries.push_back(plan.now);
                actions.extend(refuse(&mut plan, &runner, cause));
            }
            while tries.front().is_some_and(|at| at + 3_600_000 <= plan.now) {
                tries.pop_front();
            }
            assert!(tries.len() < 2 * 12, "{cause:?}: {tries:?}");
            actions = plan.wait(1_000);
        }
        assert!(!tries.is_empty(), "{cause:?}: it is tried again");
    }
}

#[test]
fn a_credential_that_fails_elsewhere_is_not_tried_while_another_works() {
    let mut plan = two();
    for (id, repository) in [(1, "acme/one"), (2, "acme/two")] {
        let queued = plan.apply(Event::JobQueued(at(repository, linux(id))));
        let (mut runner, mut credential) = launch(&queued);
        if credential == SECOND {
            works(&mut plan, &runner);
            let other = at(repository, linux(id + 10));
            (runner, credential) = launch(&plan.apply(Event::JobQueued(other)));
        }
        assert_eq!(credential, FIRST);
        refuse(&mut plan, &runner, Cause::Unauthorized);
    }
    assert!(plan.state.backoffs().any(|(blocked, _)| *blocked == Blocked::Credential(FIRST)));
    let third: Vec<usize> = (30..=35)
        .flat_map(|id| used(&plan.apply(Event::JobQueued(at("acme/three", linux(id))))))
        .collect();
    assert_eq!(third, [SECOND; 6]);
}

#[test]
fn removals_go_on_while_one_credential_works() {
    let mut plan = two();
    let idle = plan.idle(1);
    let (runner, credential) = launch(&plan.queue(2));
    assert_eq!(credential, SECOND);
    refuse(&mut plan, &runner, Cause::Forbidden);
    plan.complete(1, "");
    let actions = plan.apply(Event::RemoveRunner { runner: idle, force: false });
    assert!(one_removal(&actions).deregister);
}

/// Queues jobs of this server, whose launches work. The credential of each launch.
fn launch_all(plan: &mut Plan, host: Host, jobs: u64) -> Vec<usize> {
    let mut all = Vec::new();
    for id in 1..=jobs {
        let job = Job { key: linux(id).key.on(host), ..linux(id) };
        let actions = plan.apply(Event::JobQueued(job));
        all.extend(used(&actions));
        launches(&actions).iter().for_each(|runner| works(plan, runner));
    }
    all
}

#[test]
fn a_credential_makes_no_more_launches_in_a_minute_than_github_allows() {
    let host = Host::new("github.com");
    let credentials = vec![Credential { host, ..credential("github", TargetPattern::Any) }];
    let mut plan = Plan::with(Settings { credentials, ..settings(vec![linux_pool(1_000)]) });
    assert_eq!(launch_all(&mut plan, host, 200).len(), WITH_CREDENTIAL_MAX);
    let until = plan.moment().instant + Duration::from_secs(60);
    let reason = plan.reason(200);
    assert_eq!((reason.as_str(), reason.until()), ("rate_limited", Some(until)));
    let text = "paused: GitHub allows 180 new runners a minute with credential github";
    assert_eq!(reason.to_string(), text);
    assert_eq!(launches(&plan.wait(59_000)), [""; 0]);
    assert_eq!(launches(&plan.wait(1_000)).len(), 200 - WITH_CREDENTIAL_MAX);
}

#[test]
fn a_target_gets_no_more_launches_in_a_minute_than_github_allows() {
    let host = Host::new("github.com");
    let mut plan = two_on(host);
    let all = launch_all(&mut plan, host, 310);
    assert_eq!(all.len(), AT_TARGET_MAX);
    assert_eq!(all.iter().filter(|it| **it == FIRST).count(), AT_TARGET_MAX / 2);
    let text = "paused: GitHub allows 300 new runners a minute at repo:acme/app";
    assert_eq!(plan.reason(310).to_string(), text);
    // Other targets have their own limit, and each credential has the rest of its own.
    let other = at("acme/other", linux(500));
    let other = Job { key: other.key.on(host), ..other };
    assert_eq!(launches(&plan.apply(Event::JobQueued(other))).len(), 1);
}

#[test]
fn an_enterprise_server_has_no_such_limits() {
    let mut plan = two();
    assert_eq!(launch_all(&mut plan, Host::default(), 310).len(), 310);
}
