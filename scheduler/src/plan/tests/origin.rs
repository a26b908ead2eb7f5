//! Whose code a pool runs: public repositories, and pull requests from forks.

use super::*;
use crate::model::Visibility;

const MINUTE_MS: u64 = 60_000;

fn job_of_run(id: u64, run_id: u64) -> Job {
    Job { run_id, ..linux(id) }
}

fn of_visibility(id: u64, visibility: Visibility) -> Job {
    Job { visibility, ..job_of_run(id, id) }
}

/// `linux`, which refuses forks, and `forks`, which is for them.
fn two_pools() -> Vec<Pool> {
    vec![
        Pool { forks: Forks::Refuse, ..linux_pool(10) },
        Pool { forks: Forks::Only, ..pool("forks", &["linux"]) },
    ]
}

fn runs_asked(actions: &[Action]) -> Vec<u64> {
    let asked = actions.iter().filter_map(|action| match action {
        Action::LookUpRun { run_id, .. } => Some(*run_id),
        _ => None,
    });
    asked.collect()
}

/// The pools in which runners are launched.
fn launched_in(plan: &Plan, actions: &[Action]) -> Vec<String> {
    let of = |name: &String| plan.state.runner(name).unwrap().pool.clone();
    launches(actions).iter().map(of).collect()
}

fn found(run_id: u64, from_fork: bool) -> Event {
    let origin = Some(RunOrigin { visibility: Visibility::Private, from_fork });
    Event::RunFound { host: Host::default(), run_id, repository: "acme/app".into(), origin }
}

fn failed(run_id: u64, repository: &str, failure: LookUpFailure) -> Event {
    let repository = repository.into();
    Event::RunLookUpFailed { host: Host::default(), run_id, repository, failure }
}

const UNAVAILABLE: LookUpFailure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };

impl Plan {
    fn queue_run(&mut self, id: u64, run_id: u64) -> Vec<Action> {
        self.apply(Event::JobQueued(job_of_run(id, run_id)))
    }

    fn problem(&self, id: u64) -> Option<String> {
        match self.reason(id) {
            Waiting::NoPool(NoMatch::RunUnknown { problem }) => problem,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_job_of_a_public_repository_launches_nothing_unless_a_pool_permits_it() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let public = |id| Event::JobQueued(of_visibility(id, Visibility::Public));
    assert_eq!(plan.apply(public(1)), []);
    assert_eq!(plan.reason(1), Waiting::NoPool(NoMatch::PublicRepository { reported: true }));
    assert_eq!(plan.state.waiting_figures(plan.moment().instant)["public_repository"].jobs, 1);
    for visibility in [Visibility::Private, Visibility::Internal] {
        let id = 10 + visibility as u64;
        assert_eq!(launches(&plan.apply(Event::JobQueued(of_visibility(id, visibility)))).len(), 1);
    }
    // The next pool that permits it takes it, although another is better.
    let permits = Pool { public_repositories: true, priority: -1, ..pool("public", &["linux"]) };
    let pools = vec![linux_pool(10), permits];
    let actions = plan.apply(Event::Pools(pools.clone()));
    assert_eq!(launched_in(&plan, &actions), ["public"]);
    let mut plan = Plan::new(pools);
    let actions = plan.apply(public(1));
    assert_eq!(launched_in(&plan, &actions), ["public"]);
}

#[test]
fn a_job_that_runs_is_known_to_run_whatever_pools_permit() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let job = of_visibility(1, Visibility::Public);
    plan.apply(Event::JobQueued(job.clone()));
    plan.apply(Event::JobStarted { job: job.clone(), runner: "elsewhere".into() });
    plan.apply(Event::JobCompleted { job, runner: "elsewhere".into() });
    assert!(plan.state.job(JobKey::new(1, 1)).is_none());
}

#[test]
fn an_unreported_visibility_counts_as_public_until_the_run_shows_it() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let unknown = |id, run_id| {
        let job = Job { visibility: Visibility::Unknown, ..job_of_run(id, run_id) };
        Event::JobQueued(job)
    };
    // Without a run, nobody can be asked.
    assert_eq!(plan.apply(unknown(1, 0)), []);
    assert_eq!(plan.reason(1), Waiting::NoPool(NoMatch::PublicRepository { reported: false }));
    assert_eq!(runs_asked(&plan.apply(unknown(2, 2))), [2]);
    assert_eq!(plan.problem(2), None);
    let actions = plan.apply(failed(2, "acme/app", LookUpFailure::Refused));
    assert_eq!(launches(&actions), [""; 0]);
    assert_eq!(plan.reason(2), Waiting::NoPool(NoMatch::PublicRepository { reported: false }));
    let actions = plan.wait(10 * MINUTE_MS);
    assert_eq!(runs_asked(&actions), [2]);
    let actions = plan.apply(found(2, false));
    assert_eq!(launched_in(&plan, &actions), ["linux"]);
    let recorded = RunOrigin { visibility: Visibility::Private, from_fork: false };
    assert!(actions.contains(&Action::RecordOrigins(vec![(JobKey::new(2, 1), recorded)])));
}

#[test]
fn jobs_of_forks_go_to_the_pool_that_is_for_them_and_no_others_do() {
    let mut plan = Plan::new(two_pools());
    for (id, from_fork, expected) in [(1, true, "forks"), (2, false, "linux")] {
        let actions = plan.queue_run(id, id);
        assert_eq!((runs_asked(&actions), launches(&actions).len()), (vec![id], 0));
        let actions = plan.apply(found(id, from_fork));
        assert_eq!(launched_in(&plan, &actions), [expected]);
    }
    let mut plan = Plan::new(vec![two_pools().remove(0)]);
    plan.queue_run(1, 1);
    assert_eq!(launches(&plan.apply(found(1, true))), [""; 0]);
    assert_eq!(plan.reason(1), Waiting::NoPool(NoMatch::Fork));
    let mut plan = Plan::new(vec![two_pools().remove(1)]);
    plan.queue_run(1, 1);
    assert_eq!(launches(&plan.apply(found(1, false))), [""; 0]);
    assert_eq!(plan.reason(1), Waiting::NoPool(NoMatch::NotFork));
}

#[test]
fn a_run_is_looked_up_once_and_only_if_a_pool_needs_to_know() {
    let mut plan = Plan::new(two_pools());
    let mut asked = Vec::new();
    for id in 1..=3 {
        asked.extend(runs_asked(&plan.queue_run(id, 7)));
    }
    let actions = plan.apply(found(7, true));
    assert_eq!(launches(&actions).len(), 3);
    asked.extend(runs_asked(&actions));
    let actions = plan.queue_run(4, 7);
    assert_eq!(launched_in(&plan, &actions), ["forks"]);
    asked.extend(runs_asked(&actions));
    asked.extend(runs_asked(&plan.wait(30 * MINUTE_MS)));
    assert_eq!(asked, [7]);
    // A restart remembers it with its jobs.
    let mut plan = Plan::new(two_pools());
    let stored = Job { from_fork: Some(true), ..job_of_run(1, 7) };
    assert_eq!(runs_asked(&plan.apply(Event::JobQueued(stored))), [0; 0]);
    let actions = plan.queue_run(2, 7);
    assert_eq!((runs_asked(&actions), launches(&actions).len()), (vec![], 1));
    // Neither a pool that serves both nor one that does not match needs it.
    let other = Pool { forks: Forks::Refuse, ..pool("gpu", &["gpu"]) };
    let mut plan = Plan::new(vec![linux_pool(10), other]);
    let actions = plan.queue_run(1, 1);
    assert_eq!((runs_asked(&actions), launches(&actions).len()), (vec![], 1));
}

#[test]
fn while_github_does_not_answer_the_job_waits_and_the_look_ups_become_rare() {
    let mut plan = Plan::new(two_pools());
    assert_eq!(runs_asked(&plan.queue_run(1, 1)), [1]);
    assert_eq!(plan.problem(1), None);
    plan.apply(failed(1, "acme/app", UNAVAILABLE));
    assert_eq!(plan.problem(1).as_deref(), Some("GitHub does not answer"));
    let mut asked = 0;
    for _ in 0..3_600 {
        if let [run] = runs_asked(&plan.wait(1_000))[..] {
            asked += 1;
            plan.apply(failed(run, "acme/app", UNAVAILABLE));
        }
    }
    assert!((3..12).contains(&asked), "{asked}");
    while runs_asked(&plan.wait(1_000)).is_empty() {}
    let actions = plan.apply(found(1, false));
    assert_eq!(launched_in(&plan, &actions), ["linux"]);
}

#[test]
fn a_job_that_another_pool_serves_waits_for_the_first_answer_only() {
    let mut plan = Plan::new(vec![
        Pool { forks: Forks::Refuse, priority: 1, ..linux_pool(10) },
        pool("any", &["linux"]),
    ]);
    assert_eq!(launches(&plan.queue_run(1, 1)), [""; 0]);
    let actions = plan.apply(failed(1, "acme/app", LookUpFailure::Refused));
    assert_eq!(launched_in(&plan, &actions), ["any"]);
    let actions = plan.queue_run(2, 2);
    assert_eq!((runs_asked(&actions), launched_in(&plan, &actions)), (vec![], vec!["any".into()]));
}

#[test]
fn an_answer_that_never_comes_is_a_failure_and_holds_up_no_other_repository() {
    let mut plan = Plan::new(two_pools());
    let mut asked = Vec::new();
    for id in 1..=50 {
        asked.extend(runs_asked(&plan.queue_run(id, id)));
    }
    assert_eq!(asked, [1, 2]);
    let elsewhere = Job { repository: "acme/lib".into(), ..job_of_run(51, 51) };
    assert_eq!(runs_asked(&plan.apply(Event::JobQueued(elsewhere))), [51]);
    plan.wait(3 * MINUTE_MS);
    assert_eq!(plan.problem(50).as_deref(), Some("GitHub does not answer"));
    let actions = plan.apply(found(1, false));
    assert_eq!(launches(&actions).len(), 1);
    assert_eq!(runs_asked(&actions), [2, 3], "the others go on");
}

#[test]
fn a_run_that_is_gone_has_its_jobs_looked_up() {
    let mut plan = Plan::new(two_pools());
    plan.queue_run(1, 1);
    let gone = Event::RunFound {
        host: Host::default(),
        run_id: 1,
        repository: "acme/app".into(),
        origin: None,
    };
    plan.apply(gone);
    assert_eq!(plan.problem(1).as_deref(), Some("GitHub no longer has its run"));
    let looked_up =
        |action: &Action| matches!(action, Action::LookUpJob { job, .. } if job.id == 1);
    let actions = plan.wait(20_000);
    assert!(actions.iter().any(looked_up), "{actions:?}");
    assert_eq!(runs_asked(&actions), [0; 0]);
}

#[test]
fn a_job_that_ended_is_not_asked_about() {
    let mut plan = Plan::new(two_pools());
    plan.queue_run(1, 1);
    plan.apply(failed(1, "acme/app", UNAVAILABLE));
    plan.apply(Event::JobCompleted { job: job_of_run(1, 1), runner: String::new() });
    assert_eq!(runs_asked(&plan.wait(60 * MINUTE_MS)), [0; 0]);
    assert_eq!(plan.apply(found(1, false)), []);
}

#[test]
fn a_reload_asks_about_the_jobs_that_wait() {
    let mut plan = Plan::new(vec![Pool { max: 1, ..linux_pool(1) }]);
    plan.queue_run(1, 1);
    plan.queue_run(2, 2);
    let actions = plan.apply(Event::Pools(two_pools()));
    assert_eq!(runs_asked(&actions), [1, 2]);
    // The answers still arrive after another one.
    plan.apply(Event::Pools(two_pools().into_iter().rev().collect()));
    plan.apply(found(1, true));
    let actions = plan.apply(found(2, true));
    assert_eq!(launched_in(&plan, &actions), ["forks"]);
}

#[test]
fn a_rate_limit_pauses_the_credential() {
    let mut plan = Plan::new(two_pools());
    plan.queue_run(1, 1);
    let retry_after = Duration::from_secs(300);
    plan.apply(failed(1, "acme/app", LookUpFailure::Unavailable { retry_after }));
    let elsewhere = Job { repository: "acme/lib".into(), ..job_of_run(2, 2) };
    assert_eq!(runs_asked(&plan.apply(Event::JobQueued(elsewhere))), [0; 0]);
    assert_eq!(runs_asked(&plan.wait(290_000)), [0; 0]);
    assert_eq!(runs_asked(&plan.wait(20_000)), [1, 2]);
}
