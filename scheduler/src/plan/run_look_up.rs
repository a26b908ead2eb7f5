//! Run look-ups: where the code of a job's run comes from. GitHub is asked only if a pool needs to
//! know, once for each run, and the job waits for the answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use super::{
    Action, LaneKey, LookUpFailure, NoMatch, State, allowance::Request, credential::credential_for,
    pool::Matches,
};
use crate::model::{Host, Instant, Job, JobKey, JobState, RunOrigin, ServerTarget, Target};

/// Runs whose answer is remembered. Most runs are over long before.
const REMEMBERED_MAX: usize = 10_000;
/// Requests in flight, and those about one repository, so that none of them delays the others.
const AT_ONCE_MAX: usize = 30;
const IN_REPOSITORY_MAX: usize = 2;
/// Between two look-ups in a repository about which GitHub does not answer: the first and the
/// longest wait.
const UNAVAILABLE: Duration = Duration::from_secs(30);
const UNAVAILABLE_LONGEST: Duration = Duration::from_secs(15 * 60);
/// The same in a repository whose runs GitHub does not show.
const REFUSED: Duration = Duration::from_secs(10 * 60);
const REFUSED_LONGEST: Duration = Duration::from_secs(3_600);
/// A look-up without an answer has failed after this time.
const ANSWER_MAX: Duration = Duration::from_secs(120);
/// A repository is forgotten this long after its last look-up.
const FORGET: Duration = Duration::from_secs(2 * 3_600);

/// A run and its server.
type RunKey = (Host, u64);

#[derive(Debug, Default)]
pub(super) struct RunLookUps {
    /// What GitHub answered. `None`: it no longer has the run.
    answered: HashMap<RunKey, Option<RunOrigin>>,
    /// The same runs, the oldest answer first.
    by_age: VecDeque<RunKey>,
    /// By host and name.
    repositories: BTreeMap<(Host, String), Repository>,
    /// Jobs whose origin is not stored yet.
    unrecorded: Vec<JobKey>,
}

/// The look-ups in one repository.
#[derive(Debug)]
struct Repository {
    /// Where its runners are registered: a credential of this target asks.
    target: ServerTarget,
    /// The runs that are to be looked up, each with the jobs that wait for it.
    wanted: BTreeMap<u64, BTreeSet<JobKey>>,
    /// The runs whose look-up is in flight, and since when.
    asked: BTreeMap<u64, Instant>,
    /// In a row.
    failures: u32,
    /// When the next look-up may begin. `None`: nothing was asked yet.
    until: Option<Instant>,
    /// Why the last look-up failed, or none is tried. Until one succeeds, jobs that another pool
    /// can serve do not wait for theirs.
    problem: Option<&'static str>,
}

impl RunLookUps {
    fn remember(&mut self, run: RunKey, origin: Option<RunOrigin>) {
        if self.answered.insert(run, origin).is_none() {
            self.by_age.push_back(run);
            if self.by_age.len() > REMEMBERED_MAX
                && let Some(oldest) = self.by_age.pop_front()
            {
                self.answered.remove(&oldest);
            }
        }
    }

    /// Before all jobs are matched again.
    pub(super) fn without_jobs(mut self) -> Self {
        self.repositories.values_mut().for_each(|repository| repository.wanted.clear());
        self
    }
}

impl State {
    /// Adds what is known of a job's run.
    pub(super) fn complete_origin(&mut self, job: &mut Job) {
        let run = (job.key.host, job.run_id);
        match (self.run_look_ups.answered.get(&run), job.from_fork) {
            _ if job.run_id == 0 => {}
            (None, Some(from_fork)) => {
                let origin = RunOrigin { visibility: job.visibility, from_fork };
                self.run_look_ups.remember(run, Some(origin));
            }
            (Some(Some(origin)), None) => {
                job.visibility = job.visibility.or(origin.visibility);
                job.from_fork = Some(origin.from_fork);
                self.run_look_ups.unrecorded.push(job.key);
            }
            _ => {}
        }
    }

    /// Has the run of a queued job looked up, on which it depends whether these pools serve it.
    /// Returns why no answer is to be expected soon.
    fn want_origin(&mut self, job: &Job, undecided: &[LaneKey]) -> Option<&'static str> {
        if job.run_id == 0 {
            return Some("GitHub did not name its run");
        }
        if self.run_look_ups.answered.contains_key(&(job.key.host, job.run_id)) {
            return Some("GitHub no longer has its run");
        }
        let credentials = &self.settings.credentials;
        let targets = undecided.iter().map(|lane| &lane.target);
        let mut targets = targets.filter(|target| credential_for(credentials, target).is_some());
        let Some(target) = targets.next() else {
            return Some("no credential may ask GitHub about its run");
        };
        let place = (job.key.host, job.repository.clone());
        let repository =
            self.run_look_ups.repositories.entry(place).or_insert_with(|| Repository {
                target: target.clone(),
                wanted: BTreeMap::new(),
                asked: BTreeMap::new(),
                failures: 0,
                until: None,
                problem: None,
            });
        repository.target.clone_from(target);
        repository.wanted.entry(job.run_id).or_default().insert(job.key);
        repository.problem
    }

    /// The job needs no look-up any more.
    pub(super) fn forget_wanted(&mut self, job: &Job) {
        if self.run_look_ups.repositories.is_empty() {
            return;
        }
        let place = (job.key.host, job.repository.clone());
        if let Some(repository) = self.run_look_ups.repositories.get_mut(&place)
            && let Some(jobs) = repository.wanted.get_mut(&job.run_id)
        {
            jobs.remove(&job.key);
            if jobs.is_empty() {
                repository.wanted.remove(&job.run_id);
            }
        }
    }

    pub(super) fn look_up_runs(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let RunLookUps { repositories, unrecorded, .. } = &self.run_look_ups;
        if (repositories.is_empty() && unrecorded.is_empty()) || !self.recovered() {
            return;
        }
        self.record_origins(actions);
        self.end_unanswered(now);
        let RunLookUps { repositories, .. } = &mut self.run_look_ups;
        let mut left = AT_ONCE_MAX
            .saturating_sub(repositories.values().map(|repository| repository.asked.len()).sum());
        repositories.retain(|_, repository| {
            let Repository { wanted, asked, until, .. } = repository;
            !wanted.is_empty()
                || !asked.is_empty()
                || until.is_some_and(|until| until + FORGET > now)
        });
        let mut held_up = Vec::new();
        for ((host, name), repository) in repositories {
            let Repository { target, wanted, asked, failures, until, problem } = repository;
            if until.is_some_and(|until| until > now) {
                continue;
            }
            let credential = credential_for(&self.settings.credentials, target);
            let unavailable = &self.job_look_ups.unavailable;
            let unavailable = credential.and_then(|it| unavailable.get(&it).copied());
            let failing = self.backoffs.allowances.next_look_up(target, now);
            if unavailable.max(failing).is_some_and(|until| until > now) {
                if problem.is_none() {
                    *problem = Some("GitHub has not answered other requests");
                    held_up.extend(wanted.values().flatten().copied());
                }
                continue;
            }
            let here = if *failures > 0 { 1 } else { IN_REPOSITORY_MAX };
            let here = here.saturating_sub(asked.len()).min(left);
            let runs: Vec<u64> =
                wanted.keys().filter(|run| !asked.contains_key(run)).take(here).copied().collect();
            for run_id in runs {
                left -= 1;
                asked.insert(run_id, now);
                let (repository, target) = (name.clone(), target.clone());
                actions.push(Action::LookUpRun { host: *host, run_id, repository, target });
            }
        }
        for job in held_up {
            self.match_again(job, false);
        }
    }

    /// Whoever was to ask may be gone.
    fn end_unanswered(&mut self, now: Instant) {
        let unanswered: Vec<(Host, String, u64)> = self
            .run_look_ups
            .repositories
            .iter()
            .flat_map(|((host, name), it)| it.asked.iter().map(move |asked| (host, name, asked)))
            .filter(|(.., (_, since))| **since + ANSWER_MAX <= now)
            .map(|(host, name, (run_id, _))| (*host, name.clone(), *run_id))
            .collect();
        for (host, name, run_id) in unanswered {
            let failure = LookUpFailure::Unavailable { retry_after: Duration::ZERO };
            self.run_look_up_failed((host, run_id), name, failure, now);
        }
    }

    fn record_origins(&mut self, actions: &mut Vec<Action>) {
        let jobs = std::mem::take(&mut self.run_look_ups.unrecorded);
        let origin = |key: JobKey| {
            let job = &self.jobs.get(&key)?.job;
            let origin = RunOrigin { visibility: job.visibility, from_fork: job.from_fork? };
            Some((key, origin))
        };
        let origins: Vec<(JobKey, RunOrigin)> = jobs.into_iter().filter_map(origin).collect();
        if !origins.is_empty() {
            actions.push(Action::RecordOrigins(origins));
        }
    }

    /// GitHub answered. `None`: it no longer has the run.
    pub(super) fn run_found(
        &mut self,
        run: RunKey,
        name: String,
        origin: Option<RunOrigin>,
        now: Instant,
    ) {
        self.run_look_ups.remember(run, origin);
        let (host, run_id) = run;
        let Some(repository) = self.run_look_ups.repositories.get_mut(&(host, name)) else {
            return;
        };
        repository.asked.remove(&run_id);
        (repository.failures, repository.until, repository.problem) = (0, Some(now), None);
        let jobs = repository.wanted.remove(&run_id).unwrap_or_default();
        let target = repository.target.clone();
        if !self.fails_at(&target) {
            self.backoffs.allowances.succeeded(&target);
        }
        for job in jobs {
            self.match_again(job, true);
            if origin.is_none() {
                // It is probably over.
                self.reschedule_look_up(job, now);
            }
        }
    }

    pub(super) fn run_look_up_failed(
        &mut self,
        (host, run_id): RunKey,
        name: String,
        failure: LookUpFailure,
        now: Instant,
    ) {
        let Some(repository) = self.run_look_ups.repositories.get_mut(&(host, name)) else {
            return;
        };
        if repository.asked.remove(&run_id).is_none() {
            // It is not expected any more.
            return;
        }
        let (first, longest, retry_after, problem) = match failure {
            LookUpFailure::Refused => (
                REFUSED,
                REFUSED_LONGEST,
                Duration::ZERO,
                "GitHub does not show its run to the credential, which needs the permission \
                 Actions: read",
            ),
            LookUpFailure::Unexpected => (
                REFUSED,
                REFUSED_LONGEST,
                Duration::ZERO,
                "GitHub's answer about its run is not one that GitHub documents",
            ),
            LookUpFailure::Unavailable { retry_after } if retry_after.is_zero() => {
                (UNAVAILABLE, UNAVAILABLE_LONGEST, retry_after, "GitHub does not answer")
            }
            LookUpFailure::Unavailable { retry_after } => {
                (UNAVAILABLE, UNAVAILABLE_LONGEST, retry_after, "GitHub's rate limit is used up")
            }
        };
        // Two that were in flight together fail once.
        if repository.until.is_none_or(|until| until <= now) {
            let pause = (first * (1 << repository.failures.min(10))).min(longest);
            repository.failures = repository.failures.saturating_add(1);
            repository.until = Some(now + pause.max(retry_after));
        }
        repository.problem = Some(problem);
        let target = repository.target.clone();
        let jobs: Vec<JobKey> = repository.wanted.values().flatten().copied().collect();
        // One repository says nothing about its organization, and a rate limit nothing about any
        // target.
        let about_target =
            matches!(target.target, Target::Repository { .. }) || self.fails_at(&target);
        if !retry_after.is_zero() {
            if let Some(credential) = credential_for(&self.settings.credentials, &target) {
                let until = self.job_look_ups.unavailable.entry(credential).or_insert(now);
                *until = (*until).max(now + retry_after);
            }
        } else if about_target {
            self.backoffs.allowances.failed(&target, Request::LookUp, now, now);
        }
        for job in jobs {
            self.match_again(job, false);
        }
    }

    /// Matches a queued job again. One that a pool serves already stays there, and can move to more
    /// pools if GitHub has `answered`.
    fn match_again(&mut self, key: JobKey, answered: bool) {
        let Some(old) = self.jobs.get(&key).filter(|it| it.state == JobState::Queued) else {
            return;
        };
        let (since, before) = (old.since, old.lane.clone());
        if let Ok(lane) = &before {
            let lane = self.lanes.get(lane);
            if !answered || lane.is_some_and(|lane| lane.held.contains(&(since, key))) {
                return;
            }
        }
        let (looked_up, look_ups) = (old.looked_up, old.look_ups);
        let (due, waiting) = (old.look_up_due, old.waiting.clone());
        let Some(job) = self.untrack(key) else { return };
        self.track(job, JobState::Queued, since, before.is_ok());
        let Some(tracked) = self.jobs.get_mut(&key) else { return };
        (tracked.looked_up, tracked.look_ups) = (looked_up, look_ups);
        tracked.waiting = waiting;
        if let Ok(lane) = before {
            if tracked.candidates.contains(&lane) {
                self.move_job(key, lane);
            }
        } else if tracked.lane == before {
            // Its reason is announced already.
            self.unserved.pop();
        }
        self.reschedule_look_up(key, due);
    }

    /// The lanes that can serve a job, the best one first, given what is known of its run.
    /// `was_served`: by one of them, so it does not wait for an answer now.
    pub(super) fn lanes_of(
        &mut self,
        job: &Job,
        state: JobState,
        was_served: bool,
    ) -> Result<Vec<LaneKey>, NoMatch> {
        let Matches { serving, undecided, why_not } = Matches::new(&self.settings.pools, job);
        if state == JobState::Queued && !undecided.is_empty() {
            let problem = self.want_origin(job, &undecided).map(str::to_owned);
            let waits = match serving.is_empty() {
                true => problem.is_none() || matches!(why_not, NoMatch::RunUnknown { .. }),
                false => problem.is_none() && !was_served,
            };
            if waits {
                return Err(NoMatch::RunUnknown { problem });
            }
        }
        if serving.is_empty() { Err(why_not) } else { Ok(serving) }
    }
}
