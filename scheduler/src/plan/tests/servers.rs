//! Several GitHub servers: each counts ids and names repositories by itself.

use super::*;
use crate::model::Target;

fn ours() -> Host {
    Host::new("ghe.example.com")
}

fn public() -> Host {
    Host::new("github.com")
}

/// A credential of each server that serves everything there.
fn two_servers(pools: Vec<Pool>) -> Settings {
    let on = |host: Host| Credential { host, ..credential(host.as_str(), TargetPattern::Any) };
    Settings { credentials: vec![on(ours()), on(public())], ..settings(pools) }
}

fn on(host: Host, job: Job) -> Job {
    Job { key: job.key.on(host), ..job }
}

fn app_on(host: Host) -> ServerTarget {
    "repo:acme/app".parse::<Target>().unwrap().on(host)
}

/// The targets of all launches, in their order.
fn launched_at(actions: &[Action]) -> Vec<ServerTarget> {
    let launch = |action: &Action| match action {
        Action::Launch(launch) => Some(launch.target.clone()),
        _ => None,
    };
    actions.iter().filter_map(launch).collect()
}

#[test]
fn jobs_of_the_same_id_on_two_servers_are_two_jobs() {
    let mut plan = Plan::with(two_servers(vec![linux_pool(10)]));
    for host in [ours(), public()] {
        let launched = plan.apply(Event::JobQueued(on(host, linux(1))));
        assert_eq!(launched_at(&launched), [app_on(host)]);
    }
    // The end of one is not the end of the other.
    plan.apply(Event::JobCompleted { job: on(ours(), linux(1)), runner: String::new() });
    assert!(plan.state.queued_job(linux(1).key.on(public())).is_some());
    assert!(plan.state.queued_job(linux(1).key.on(ours())).is_none());
}

#[test]
fn a_repository_of_the_same_name_uses_the_credential_of_its_own_server() {
    let mut plan = Plan::with(two_servers(vec![linux_pool(10)]));
    let first = one_launch(&plan.apply(Event::JobQueued(on(ours(), linux(1)))));
    plan.fail(&first, Cause::Unauthorized);
    // What fails for one server does not keep the other from launching.
    let second = plan.apply(Event::JobQueued(on(public(), linux(2))));
    assert_eq!(launched_at(&second), [app_on(public())]);
    let (blocked, _) = plan.state.backoffs().next().unwrap();
    assert_eq!(plan.state.describe(blocked), "all launches at repo:acme/app on ghe.example.com");
}

#[test]
fn repositories_of_the_same_name_do_not_share_a_limit() {
    let settings = two_servers(vec![linux_pool(10)]);
    let mut plan = Plan::with(Settings { max_per_repository: 1, ..settings });
    for (host, launched) in [(ours(), 1), (ours(), 0), (public(), 1), (public(), 0)] {
        let id = plan.state.jobs.len() as u64;
        let actions = plan.apply(Event::JobQueued(on(host, linux(id))));
        assert_eq!(launches(&actions).len(), launched, "{host}");
        if let [runner] = &launches(&actions)[..] {
            let job = on(host, linux(id));
            plan.apply(Event::JobStarted { job, runner: runner.clone() });
        }
    }
}

#[test]
fn a_list_of_runners_says_nothing_about_another_server() {
    let mut plan = Plan::with(two_servers(vec![linux_pool(10)]));
    let runner = one_launch(&plan.apply(Event::JobQueued(on(ours(), linux(1)))));
    plan.launched(&runner);
    let listed = Registration { name: runner.clone(), id: 7, online: true, busy: false };
    let requested_at = plan.moment().instant;
    let list = |host| {
        let (target, runners) = (app_on(host), vec![listed.clone()]);
        Event::Registrations { target, runners, requested_at }
    };
    plan.apply(list(public()));
    assert_eq!(plan.phase(&runner), "starting");
    plan.apply(list(ours()));
    assert_eq!(plan.phase(&runner), "idle");
}

#[test]
fn an_event_about_a_job_of_one_server_leaves_the_runners_of_another_alone() {
    let mut plan = Plan::with(two_servers(vec![linux_pool(10)]));
    let runner = one_launch(&plan.apply(Event::JobQueued(on(ours(), linux(1)))));
    plan.launched(&runner);
    let theirs = on(public(), linux(1));
    plan.apply(Event::JobStarted { job: theirs.clone(), runner: runner.clone() });
    plan.apply(Event::JobCompleted { job: theirs, runner: runner.clone() });
    assert_eq!(plan.phase(&runner), "starting");
    plan.apply(Event::JobStarted { job: on(ours(), linux(1)), runner: runner.clone() });
    assert_eq!(plan.phase(&runner), "busy");
}

#[test]
fn a_job_of_a_server_without_a_credential_waits_and_says_so() {
    let mut plan = Plan::with(two_servers(vec![linux_pool(10)]));
    let elsewhere = on(Host::new("old.example.com"), linux(1));
    assert_eq!(plan.apply(Event::JobQueued(elsewhere)), []);
    let reason = plan.reason(1);
    assert_eq!(reason.as_str(), "no_credential");
    assert!(reason.to_string().starts_with("no credential for old.example.com: "), "{reason}");
}

#[test]
fn idle_runners_are_kept_on_the_first_server_that_serves_their_target() {
    let repositories = vec![RepositoryPattern::parse("acme/app").unwrap()];
    let pool = Pool { repositories, min_idle: 1, ..linux_pool(10) };
    let mut plan = Plan::with(two_servers(vec![pool]));
    let launched: Vec<_> = plan.state.runners().map(|runner| runner.target.clone()).collect();
    assert_eq!(launched, [app_on(ours())]);
    // A server that is not the only one is named.
    let runner = plan.state.runners().next().unwrap().name.clone();
    plan.fail(&runner, Cause::Rejected);
    let (blocked, _) = plan.state.backoffs().next().unwrap();
    let described = "pool linux at repo:acme/app on ghe.example.com";
    assert_eq!(plan.state.describe(blocked), described);
}
