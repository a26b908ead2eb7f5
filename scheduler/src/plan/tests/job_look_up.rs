//! Look-ups of jobs: every job that is not over is looked up in the end.

use super::*;

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const FOREIGN: &str = "someone-elses";

fn looked_up(actions: &[Action]) -> Vec<u64> {
    let jobs = actions.iter().filter_map(|action| match action {
        Action::LookUpJob { job, .. } => Some(job.id),
        _ => None,
    });
    jobs.collect()
}

fn given_up(actions: &[Action]) -> Vec<u64> {
    let jobs = actions.iter().filter_map(|action| match action {
        Action::GiveUpJob { job, .. } => Some(job.id),
        _ => None,
    });
    jobs.collect()
}

fn limited(max_per_repository: usize) -> Plan {
    Plan::with(Settings { max_per_repository, ..settings(vec![linux_pool(10)]) })
}

impl Plan {
    fn found(&mut self, id: u64, state: JobState, runner: &str) -> Vec<Action> {
        self.apply(Event::JobFound { job: linux(id).key, state, runner: runner.into() })
    }

    fn look_up_fails(&mut self, id: u64, failure: LookUpFailure) -> Vec<Action> {
        self.apply(Event::JobLookUpFailed { job: linux(id).key, failure })
    }

    /// Waits, and answers each look-up of a job with a failure. Returns when each was made, in
    /// minutes, and the jobs that were given up.
    fn failing_look_ups(&mut self, ms: u64, failure: LookUpFailure) -> (Vec<u64>, Vec<u64>) {
        let (began, mut at, mut all) = (self.now, Vec::new(), Vec::new());
        while self.now < began + ms {
            let actions = self.wait(SECOND);
            all.extend(given_up(&actions));
            for id in looked_up(&actions) {
                at.push((self.now - began) / MINUTE);
                all.extend(given_up(&self.look_up_fails(id, failure)));
                assert_eq!(self.look_up_fails(id, failure), [], "one answer that comes twice");
            }
        }
        (at, all)
    }
}

#[test]
fn a_job_whose_runner_exited_is_looked_up_until_its_end_is_known() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.exit(&runner, 0);
    assert_eq!(looked_up(&plan.wait(59 * SECOND)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(SECOND)), [1]);
    // GitHub has not noticed yet that the runner is gone.
    plan.found(1, JobState::InProgress, &runner);
    assert_eq!(looked_up(&plan.wait(119 * SECOND)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(SECOND)), [1]);
    plan.found(1, JobState::Completed, &runner);
    assert_eq!(looked_up(&plan.wait(6 * HOUR)), [] as [u64; 0]);
}

#[test]
fn a_completed_event_after_the_exit_makes_a_look_up_unnecessary() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.exit(&runner, 0);
    plan.wait(30 * SECOND);
    plan.complete(1, &runner);
    assert_eq!(looked_up(&plan.wait(6 * HOUR)), [] as [u64; 0]);
}

#[test]
fn a_job_that_started_on_a_runner_that_is_gone_is_looked_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.starting(1);
    plan.exit(&runner, 0);
    plan.apply(removed(&runner));
    plan.start(1, &runner);
    assert!(plan.state.jobs.is_empty());
    assert_eq!(looked_up(&plan.wait(MINUTE)), [1]);
}

#[test]
fn a_job_elsewhere_is_looked_up_every_hour() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.start(1, FOREIGN);
    assert_eq!(looked_up(&plan.wait(HOUR - SECOND)), [] as [u64; 0]);
    assert_eq!(looked_up(&plan.wait(3 * HOUR)), [1, 1, 1]);
    plan.found(1, JobState::Completed, FOREIGN);
    assert!(plan.state.jobs.is_empty());
}

#[test]
fn a_job_elsewhere_that_holds_up_others_is_looked_up_within_two_minutes() {
    let mut plan = limited(1);
    plan.start(1, FOREIGN);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(2) }));
    assert_eq!(looked_up(&plan.wait(2 * MINUTE)), [1]);
    // It is still running: rarer and rarer.
    plan.found(1, JobState::InProgress, FOREIGN);
    let again = looked_up(&plan.wait(4 * HOUR));
    assert_eq!(again.iter().filter(|id| **id == 1).count(), 6);
    let actions = plan.found(1, JobState::Completed, FOREIGN);
    assert_eq!(launches(&actions).len(), 1);
}

#[test]
fn a_job_on_one_of_our_runners_is_no_suspect() {
    let mut plan = limited(1);
    plan.busy(1);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(2) }));
    assert_eq!(looked_up(&plan.wait(59 * MINUTE)), [] as [u64; 0]);
}

#[test]
fn jobs_that_no_pool_serves_are_looked_up_too() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..job(1, &["windows"]) }));
    let started = Event::JobStarted { job: job(2, &["windows"]), runner: FOREIGN.into() };
    plan.apply(started);
    let mut found = looked_up(&plan.wait(HOUR + MINUTE));
    found.sort_unstable();
    assert_eq!(found, [1, 2]);
    plan.found(1, JobState::Completed, "");
    plan.found(2, JobState::Completed, "");
    assert!(plan.state.jobs.is_empty());
}

#[test]
fn a_queued_job_that_cannot_be_launched_is_looked_up_every_hour() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.busy(1);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(2) }));
    assert!(looked_up(&plan.wait(HOUR + MINUTE)).contains(&2));
    // It was cancelled, and the webhook was lost.
    plan.found(2, JobState::Completed, "");
    assert_eq!(plan.state.waiting(plan.moment().instant), []);
}

#[test]
fn after_a_start_jobs_of_runners_that_are_gone_do_not_count_and_are_looked_up() {
    let settings = Settings { max_per_repository: 1, ..settings(vec![linux_pool(10)]) };
    let mut plan = Plan { state: State::new(settings, 1), now: 1_000_000, clock_step: 0 };
    plan.start(1, "edge-linux-0123456789ab");
    plan.queue(2);
    assert_eq!(launches(&plan.apply(Event::Recovered { provider: 0 })).len(), 1);
    assert_eq!(looked_up(&plan.wait(10 * SECOND)), [1]);
}

#[test]
fn after_a_start_jobs_elsewhere_are_looked_up_first() {
    let mut plan = Plan::unrecovered(vec![linux_pool(10)]);
    for id in 1..=3 {
        plan.start(id, FOREIGN);
    }
    assert_eq!(looked_up(&plan.wait(MINUTE)), [] as [u64; 0], "runners are not known yet");
    plan.apply(Event::Recovered { provider: 0 });
    assert_eq!(looked_up(&plan.wait(MINUTE)), [1, 2, 3]);
}

#[test]
fn a_look_up_that_finds_a_job_completed_ends_a_runner_that_stays() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let runner = plan.busy(1);
    plan.found(1, JobState::Completed, &runner);
    assert_eq!(removals(&plan.wait(2 * MINUTE)).len(), 1);
    assert_eq!(plan.why(&runner), EndReason::DidNotEnd);
}

#[test]
fn a_refused_repository_costs_few_look_ups_and_its_jobs_are_given_up() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for id in 1..=50 {
        plan.start(id, FOREIGN);
    }
    plan.wait(HOUR - MINUTE);
    let (at, all) = plan.failing_look_ups(4 * HOUR, LookUpFailure::Refused);
    println!("look-ups after {at:?} minutes");
    assert_eq!(at, [1, 31, 91]);
    assert_eq!(all, (1..=50).collect::<Vec<u64>>());
    assert!(plan.state.jobs.is_empty());
}

#[test]
fn an_answer_that_is_not_githubs_gives_up_no_job() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.start(1, FOREIGN);
    plan.wait(HOUR - MINUTE);
    let (at, all) = plan.failing_look_ups(12 * HOUR, LookUpFailure::Unexpected);
    assert!((12..=14).contains(&at.len()), "{at:?}");
    assert_eq!(all, []);
}

#[test]
fn jobs_that_may_still_run_survive_a_refusal() {
    // The credential registers runners, but may not read jobs.
    let mut plan = Plan::new(vec![linux_pool(1)]);
    plan.busy(1);
    plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(2) }));
    let limits = plan.state.settings.pools[0].limits.job_ms;
    let (at, all) = plan.failing_look_ups(limits - MINUTE, LookUpFailure::Refused);
    assert_eq!((at.len(), all.len()), (0, 0));
    let (_, all) = plan.failing_look_ups(3 * HOUR, LookUpFailure::Refused);
    assert!(!all.contains(&2), "{all:?}");
    assert!(plan.state.waiting(plan.moment().instant).iter().any(|(job, _)| job.key.id == 2));
}

#[test]
fn a_queued_job_whose_launches_are_refused_as_well_is_given_up() {
    let mut plan = Plan::new(vec![linux_pool(1)]);
    let mut runner =
        one_launch(&plan.apply(Event::JobQueued(Job { queued_at: plan.now, ..linux(1) })));
    let (began, mut all) = (plan.now, Vec::new());
    while plan.now < began + 6 * HOUR {
        plan.fail(&runner, Cause::Forbidden);
        plan.apply(removed(&runner));
        loop {
            let actions = plan.wait(SECOND);
            for id in looked_up(&actions) {
                all.extend(given_up(&plan.look_up_fails(id, LookUpFailure::Refused)));
            }
            if let [launched] = &launches(&actions)[..] {
                runner = launched.clone();
                break;
            }
            if plan.now >= began + 6 * HOUR {
                break;
            }
        }
    }
    assert_eq!(all, [1]);
    assert!(plan.state.jobs.is_empty());
}

#[test]
fn one_repositorys_refusal_does_not_delay_the_others() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    plan.start(1, FOREIGN);
    plan.wait(HOUR);
    plan.look_up_fails(1, LookUpFailure::Refused);
    plan.apply(Event::JobStarted { job: at("acme/lib", linux(2)), runner: FOREIGN.into() });
    assert!(looked_up(&plan.wait(HOUR)).contains(&2));
}

#[test]
fn one_repository_without_answers_does_not_delay_the_others() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for id in 1..=30 {
        plan.start(id, FOREIGN);
    }
    plan.wait(HOUR - 10 * SECOND);
    let failure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };
    plan.apply(Event::JobStarted { job: at("acme/lib", linux(99)), runner: FOREIGN.into() });
    let (mut failed, mut found) = (0, 0);
    for _ in 0..2 * 3_600 {
        for id in looked_up(&plan.wait(SECOND)) {
            if id == 99 {
                found += 1;
                let (job, runner) = (linux(99).key, FOREIGN.into());
                plan.apply(Event::JobFound { job, state: JobState::InProgress, runner });
            } else {
                failed += 1;
                plan.look_up_fails(id, failure);
            }
        }
        assert!(plan.state.job_look_ups.unavailable.is_empty());
    }
    assert!((4..=14).contains(&failed), "{failed}");
    assert_eq!(found, 2, "once an hour");
}

#[test]
fn repositories_without_answers_do_not_delay_others_of_their_organization() {
    let mut organization = linux_pool(10);
    organization.scope = Scope::Organization;
    let mut plan = Plan::new(vec![organization]);
    for id in 1..=4 {
        let repository = format!("acme/lib-{id}");
        plan.apply(Event::JobStarted { job: at(&repository, linux(id)), runner: FOREIGN.into() });
    }
    plan.wait(HOUR - 10 * SECOND);
    let failure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };
    let mut found = 0;
    for _ in 0..4 * 3_600 {
        for id in looked_up(&plan.wait(SECOND)) {
            if id <= 2 {
                plan.look_up_fails(id, failure);
            } else {
                found += 1;
                let (job, runner) = (linux(id).key, FOREIGN.into());
                plan.apply(Event::JobFound { job, state: JobState::InProgress, runner });
            }
        }
    }
    assert_eq!(found, 2 * 4, "each of the other two once an hour");
}

#[test]
fn an_outage_at_two_repositories_pauses_the_look_ups_of_the_credential() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    for id in 1..=3 {
        let repository = format!("acme/lib-{id}");
        plan.apply(Event::JobStarted { job: at(&repository, linux(id)), runner: FOREIGN.into() });
    }
    plan.wait(HOUR - SECOND);
    let failure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };
    let mut failed = Vec::new();
    for _ in 0..60 {
        for id in looked_up(&plan.wait(SECOND)) {
            failed.push(id);
            plan.look_up_fails(id, failure);
        }
    }
    assert_eq!(failed, [1, 2], "the third waits as well");
}

#[test]
fn an_outage_pauses_the_look_ups_of_its_credential_alone() {
    let other = TargetPattern::parse("acme/lib").unwrap();
    let credentials = vec![credential("lib", other), credential("github", TargetPattern::Any)];
    let mut plan = Plan::with(Settings { credentials, ..settings(vec![linux_pool(10)]) });
    for id in 1..=30 {
        plan.start(id, FOREIGN);
    }
    plan.apply(Event::JobStarted { job: at("acme/lib", linux(99)), runner: FOREIGN.into() });
    plan.wait(HOUR - SECOND);
    let failure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };
    let (mut failed, mut others) = (0, 0);
    for _ in 0..3_600 {
        for id in looked_up(&plan.wait(SECOND)) {
            if id == 99 {
                others += 1;
                plan.apply(Event::JobFound {
                    job: linux(99).key,
                    state: JobState::InProgress,
                    runner: FOREIGN.into(),
                });
            } else {
                failed += 1;
                assert_eq!(given_up(&plan.look_up_fails(id, failure)), []);
            }
        }
    }
    assert!((4..=8).contains(&failed), "{failed}");
    assert!(others >= 1);

    let retry_after = Duration::from_secs(1_800);
    plan.wait(15 * MINUTE);
    let id = looked_up(&plan.wait(MINUTE)).into_iter().find(|id| *id != 99);
    let failure = LookUpFailure::Unavailable { retry_after };
    plan.look_up_fails(id.unwrap_or(1), failure);
    let during = looked_up(&plan.wait(29 * MINUTE));
    assert!(during.iter().all(|id| *id == 99), "{during:?}");
}

#[test]
fn the_runners_of_a_target_that_github_refuses_to_list_are_looked_up_rarely() {
    let mut plan = Plan::new(vec![linux_pool(10)]);
    let mut endless = linux_pool(10);
    endless.limits.starting_ms = u64::MAX / 2;
    plan.apply(Event::Pools(vec![endless]));
    let runner = plan.starting(1);
    let target = plan.state.runner(&runner).unwrap().target.clone();
    let (began, mut count) = (plan.now, 0);
    while plan.now < began + HOUR {
        for target in look_ups(&plan.wait(SECOND)) {
            count += 1;
            let (cause, message) = (Cause::Forbidden, "403".to_owned());
            plan.apply(Event::LookUpFailed { target, cause, message, retry_after_ms: 0 });
        }
    }
    assert!((2..12).contains(&count), "{count}");
    // GitHub answers again.
    let requested_at = plan.moment().instant;
    plan.apply(Event::Registrations { target, runners: Vec::new(), requested_at });
    assert_eq!(look_ups(&plan.wait(10 * SECOND)).len(), 2);
}

#[test]
fn a_refusal_of_one_server_does_not_concern_the_same_name_on_another() {
    let hosts = ["ghe.example.com", "github.com"].map(Host::new);
    let on = |host: Host| Credential { host, ..credential(host.as_str(), TargetPattern::Any) };
    let credentials = hosts.map(on).to_vec();
    let mut plan = Plan::with(Settings { credentials, ..settings(vec![linux_pool(10)]) });
    for host in hosts {
        let job = Job { key: linux(1).key.on(host), ..linux(1) };
        plan.apply(Event::JobStarted { job, runner: FOREIGN.into() });
    }
    let (mut answered, mut over) = (0, Vec::new());
    for _ in 0..6 * 3_600 {
        for action in plan.wait(SECOND) {
            match action {
                Action::LookUpJob { job, target, .. } => {
                    assert_eq!(target.host, job.host);
                    let event = if job.host == hosts[0] {
                        Event::JobLookUpFailed { job, failure: LookUpFailure::Refused }
                    } else {
                        answered += 1;
                        let (state, runner) = (JobState::InProgress, FOREIGN.to_owned());
                        Event::JobFound { job, state, runner }
                    };
                    over.extend(plan.apply(event));
                }
                Action::GiveUpJob { .. } => over.push(action),
                _ => {}
            }
        }
    }
    assert!(answered >= 5, "{answered}");
    assert!(
        matches!(&over[..], [Action::GiveUpJob { job, .. }] if job.host == hosts[0]),
        "{over:?}"
    );
}
