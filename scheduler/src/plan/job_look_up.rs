//! Job look-ups: which job to ask GitHub about next, because its webhooks may be lost. Every job
//! that is not over is looked up in the end.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{
    Action, Blocked, LaneKey, LookUpFailure, NoMatch, State,
    allowance::Request,
    credential::{credential_for, credentials_for},
    demand::Lane,
    jobs::{JOB_LONGEST, Tracked},
};
use crate::model::{Cause, Host, Instant, Job, JobKey, JobState, ServerTarget, Target};

/// Between two look-ups of jobs: at most 360 requests per hour.
const INTERVAL: Duration = Duration::from_secs(10);
/// A job is suspect if a runner could have taken it this long ago, or if it has run for this long
/// elsewhere while other jobs wait for its end.
const OVERDUE: Duration = Duration::from_secs(60);
/// Between two look-ups of the same suspect, doubled each time.
const AGAIN: Duration = Duration::from_secs(300);
/// Between two look-ups of a job for which there is no other reason.
const ROUTINE: Duration = Duration::from_secs(3_600);
/// How long after its runner's exit the `completed` event of a job may arrive; then it is looked
/// up, at intervals that double.
const CONFIRM: Duration = Duration::from_secs(60);
/// Jobs that one tick considers, so that no tick takes long.
const CONSIDERED_MAX: usize = 100;
/// Jobs in progress that one tick considers.
const RUNNING_CONSIDERED_MAX: usize = 1_000;

/// Between two look-ups in a repository that GitHub refuses to show: the first and the longest
/// wait. Each may cost two requests.
const REFUSED: Duration = Duration::from_secs(30 * 60);
const REFUSED_LONGEST: Duration = Duration::from_secs(3_600);
/// After so many refusals in a row, the jobs that were not over before are given up.
const REFUSALS_MAX: u32 = 3;
/// Jobs younger than this are not given up by a refusal.
const GIVEN_UP_AGE: Duration = Duration::from_secs(3_600);
/// GitHub cancels a job that was queued for so long.
const QUEUED_LONGEST: Duration = Duration::from_secs(49 * 3_600);
/// Between two look-ups with a credential with which GitHub does not answer.
const UNAVAILABLE: Duration = Duration::from_secs(60);
const UNAVAILABLE_LONGEST: Duration = Duration::from_secs(15 * 60);
/// A failure is forgotten this long after its back-off.
const FORGET_FAILURE: Duration = Duration::from_secs(2 * 3_600);

/// A repository and its server.
type Place = (Host, String);

#[derive(Debug, Default)]
pub(super) struct JobLookUps {
    last: Option<Instant>,
    /// Suspects and routine look-ups take turns, so that neither delays the other.
    routine_first: bool,
    /// When each job is looked up at the latest.
    pub(super) due: BTreeSet<(Instant, JobKey)>,
    /// Jobs that are over, since their runner is gone, but whose end GitHub has not reported.
    pub(super) unconfirmed: HashMap<JobKey, Unconfirmed>,
    /// Repositories that GitHub does not show. Their jobs share a back-off.
    refusing: HashMap<Place, Failing>,
    /// Repositories about which GitHub does not answer with this credential.
    unanswered: HashMap<(Place, usize), Failing>,
    /// Credentials with which GitHub asks to wait, or does not answer about two repositories, and
    /// until when they are paused.
    pub(super) unavailable: HashMap<usize, Instant>,
    /// When GitHub last answered a look-up with a credential.
    answered: HashMap<usize, Instant>,
}

#[derive(Debug)]
pub(super) struct Unconfirmed {
    repository: String,
    target: Option<ServerTarget>,
    since: Instant,
    pub(super) due: Instant,
    look_ups: u32,
}

#[derive(Debug)]
struct Failing {
    /// In a row.
    failures: u32,
    /// The last one. An answer that comes twice counts once.
    last: Option<Instant>,
    until: Instant,
}

impl Failing {
    /// Nothing failed yet.
    fn none(until: Instant) -> Self {
        Self { failures: 0, last: None, until }
    }

    fn fail<K: Eq + std::hash::Hash>(
        all: &mut HashMap<K, Self>,
        key: K,
        first: Duration,
        longest: Duration,
        now: Instant,
    ) -> &Self {
        all.retain(|_, failing| failing.until + FORGET_FAILURE > now);
        let failing = all.entry(key).or_insert(Self::none(now));
        if failing.last.replace(now) == Some(now) {
            return failing;
        }
        failing.until = now + doubled(first, failing.failures, longest);
        failing.failures = failing.failures.saturating_add(1);
        failing
    }
}

fn doubled(first: Duration, times: u32, longest: Duration) -> Duration {
    (first * (1 << times.min(10))).min(longest)
}

impl State {
    /// Schedules the look-up of a job that entered its state then.
    pub(super) fn schedule_look_up(&mut self, key: JobKey, since: Instant) {
        self.reschedule_look_up(key, since + ROUTINE);
    }

    pub(super) fn reschedule_look_up(&mut self, key: JobKey, at: Instant) {
        let JobLookUps { due, unconfirmed, .. } = &mut self.job_look_ups;
        let tracked = self.jobs.get_mut(&key).map(|tracked| &mut tracked.look_up_due);
        let place = tracked.or_else(|| unconfirmed.get_mut(&key).map(|it| &mut it.due));
        if let Some(place) = place {
            due.remove(&(*place, key));
            *place = at;
            due.insert((at, key));
        }
    }

    /// Its runner is gone, so the job is over and no longer counts. If no event reports its end,
    /// it is looked up after `CONFIRM`.
    pub(super) fn presume_over(&mut self, key: JobKey, now: Instant) {
        if let Some(tracked) = self.jobs.get(&key) {
            let target = self.look_up_target(&tracked.job, &tracked.lane);
            let repository = tracked.job.repository.clone();
            self.end_job(key, now);
            let due = now + CONFIRM;
            let unconfirmed = Unconfirmed { repository, target, since: now, due, look_ups: 0 };
            self.job_look_ups.unconfirmed.insert(key, unconfirmed);
            self.job_look_ups.due.insert((due, key));
        } else if !self.job_look_ups.unconfirmed.contains_key(&key) {
            self.end_job(key, now);
        }
    }

    /// The job's end is known.
    pub(super) fn confirm_job(&mut self, key: JobKey) {
        if let Some(unconfirmed) = self.job_look_ups.unconfirmed.remove(&key) {
            self.job_look_ups.due.remove(&(unconfirmed.due, key));
        }
    }

    /// Jobs in progress whose runner is not among those that were adopted ended or run elsewhere.
    /// Their webhooks may be lost, so they are looked up first.
    pub(super) fn review_jobs(&mut self, now: Instant) {
        let running: Vec<JobKey> = self.in_progress.iter().map(|(_, key)| *key).collect();
        for key in running {
            let Some(Tracked { runner, .. }) = self.jobs.get(&key) else { continue };
            if self.runners.contains_key(runner) {
                continue;
            }
            match self.pool_of_runner(runner) {
                // It may be adopted yet.
                Some(pool) if !self.recovered[self.pool(pool).provider] => continue,
                Some(_) => self.presume_over(key, now),
                None => {}
            }
            self.reschedule_look_up(key, now);
        }
    }

    /// Looks up one job, if one is suspect or due.
    pub(super) fn look_up_job(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if !self.recovered() || self.job_look_ups.last.is_some_and(|last| now < last + INTERVAL) {
            return;
        }
        let routine_first = self.job_look_ups.routine_first;
        let found = if routine_first { self.due_job(now, actions) } else { self.suspect(now) };
        let found = match found {
            Some(key) => Some(key),
            None if routine_first => self.suspect(now),
            None => self.due_job(now, actions),
        };
        let Some(key) = found else { return };
        let Some((repository, target)) = self.subject_of(key) else { return };
        let Some(target) = target else { return };
        self.job_look_ups.last = Some(now);
        self.job_look_ups.routine_first = !routine_first;
        let next = match self.jobs.get_mut(&key) {
            Some(tracked) => {
                tracked.looked_up = Some(now);
                tracked.look_ups = tracked.look_ups.saturating_add(1);
                if let (Ok(lane), JobState::Queued) = (&tracked.lane, tracked.state)
                    && let Some(lane) = self.lanes.get_mut(lane)
                {
                    lane.job_look_ups.begin(AGAIN, ROUTINE, now);
                }
                ROUTINE
            }
            None => match self.job_look_ups.unconfirmed.get_mut(&key) {
                Some(unconfirmed) => {
                    unconfirmed.look_ups = unconfirmed.look_ups.saturating_add(1);
                    doubled(CONFIRM, unconfirmed.look_ups, ROUTINE)
                }
                None => return,
            },
        };
        self.reschedule_look_up(key, now + next);
        actions.push(Action::LookUpJob { job: key, repository, target });
    }

    /// A queued job that should have been taken by now, or a job elsewhere whose end others wait
    /// for.
    fn suspect(&self, now: Instant) -> Option<JobKey> {
        let queued = self.suspect_queued(now);
        let running = self.suspect_running(now);
        queued.into_iter().chain(running).min().map(|(_, key)| key)
    }

    /// Its webhooks may be lost, and then a runner is kept for a job that is over.
    fn suspect_queued(&self, now: Instant) -> Option<(Instant, JobKey)> {
        self.lanes
            .iter()
            .filter(|(_, lane)| lane.idle > 0 || lane.unexplained_exit.is_some())
            .filter(|(key, _)| self.may_look_up(&key.target, now))
            .filter(|(_, lane)| lane.job_look_ups.is_over(now))
            .filter_map(|(_, lane)| self.suspect_in(lane, now))
            .min()
            .map(|(_, since, key)| (since, key))
    }

    /// A job of the lane that a runner could have taken long ago: the oldest that was never
    /// looked up, or else the one whose look-up is oldest.
    fn suspect_in(&self, lane: &Lane, now: Instant) -> Option<(Option<Instant>, Instant, JobKey)> {
        let overdue = |since: Instant| {
            since + OVERDUE <= now
                && (lane.idle > 0 || lane.unexplained_exit.is_some_and(|exit| since < exit))
        };
        let suspect = |(since, key): &(Instant, JobKey)| {
            if !overdue(*since) || !self.may_look_up_again(*key, now) {
                return None;
            }
            Some((self.jobs.get(key)?.looked_up, *since, *key))
        };
        let mut found = None;
        for jobs in [&lane.queued, &lane.held] {
            for suspect in jobs.iter().take(CONSIDERED_MAX).filter_map(suspect) {
                found = found.map_or(Some(suspect), |found: (_, _, _)| Some(suspect.min(found)));
                if suspect.0.is_none() {
                    // Those after it are younger.
                    break;
                }
            }
        }
        found
    }

    /// It runs on somebody else's runner, so only its `completed` would tell that it is over, and
    /// it holds up other jobs of its repository.
    fn suspect_running(&self, now: Instant) -> Option<(Instant, JobKey)> {
        if self.settings.max_per_repository == usize::MAX {
            return None;
        }
        let holds_up = |tracked: &Tracked| {
            let place = (tracked.job.key.host, tracked.job.repository.clone());
            self.repositories.get(&place).is_some_and(|repository| {
                repository.waiting.values().any(|share| share.allowed < share.queued)
            })
        };
        self.in_progress
            .iter()
            .take(RUNNING_CONSIDERED_MAX)
            .take_while(|(since, _)| *since + OVERDUE <= now)
            .find(|(_, key)| {
                self.jobs.get(key).is_some_and(|tracked| {
                    tracked.lane.is_ok()
                        && !self.runners.contains_key(&tracked.runner)
                        && holds_up(tracked)
                }) && self.may_look_up_again(*key, now)
            })
            .copied()
    }

    fn may_look_up_again(&self, key: JobKey, now: Instant) -> bool {
        self.jobs.get(&key).is_some_and(|tracked| {
            let wait = doubled(AGAIN, tracked.look_ups.saturating_sub(1), ROUTINE);
            tracked.looked_up.is_none_or(|last| last + wait <= now)
        }) && self.look_up_paused(key, now).is_none()
    }

    /// The next routine look-up. Gives up jobs that can no longer be running.
    fn due_job(&mut self, now: Instant, actions: &mut Vec<Action>) -> Option<JobKey> {
        for _ in 0..CONSIDERED_MAX {
            let (at, key) = self.job_look_ups.due.first().copied()?;
            if at > now {
                return None;
            }
            if self.is_too_old(key, now) {
                self.give_up_job(key, "it is older than any job that GitHub runs", now, actions);
            } else if let Some(until) =
                self.look_up_paused(key, now).or_else(|| self.look_up_turn(key, now))
            {
                self.reschedule_look_up(key, until);
            } else if self.subject_of(key).is_some_and(|(_, target)| target.is_some()) {
                return Some(key);
            } else {
                // No credential may ask.
                self.reschedule_look_up(key, now + ROUTINE);
            }
        }
        None
    }

    fn is_too_old(&self, key: JobKey, now: Instant) -> bool {
        match self.jobs.get(&key) {
            Some(tracked) => {
                let longest = match tracked.state {
                    // It may have started in the meantime.
                    JobState::Queued => QUEUED_LONGEST + JOB_LONGEST,
                    _ => JOB_LONGEST,
                };
                tracked.since + longest <= now
            }
            None => {
                let since = self.job_look_ups.unconfirmed.get(&key).map(|it| it.since);
                since.is_some_and(|since| since + JOB_LONGEST <= now)
            }
        }
    }

    /// When the back-off that concerns the job ends, if there is one.
    fn look_up_paused(&self, key: JobKey, now: Instant) -> Option<Instant> {
        let JobLookUps { refusing, unanswered, unavailable, .. } = &self.job_look_ups;
        let allowances = &self.backoffs.allowances;
        if refusing.is_empty()
            && unanswered.is_empty()
            && unavailable.is_empty()
            && allowances.is_empty()
        {
            return None;
        }
        let (repository, target) = self.subject_of(key)?;
        let failing = target.as_ref().and_then(|target| allowances.next_look_up(target, now));
        let credential = target.and_then(|it| credential_for(&self.settings.credentials, &it));
        let place = (key.host, repository);
        let refused = refusing.get(&place).map(|failing| failing.until);
        let unavailable = credential.and_then(|it| unavailable.get(&it).copied());
        let unanswered = credential.and_then(|it| unanswered.get(&(place, it)));
        let unanswered = unanswered.map(|it| it.until);
        let until = refused.max(unanswered).max(unavailable).max(failing);
        until.filter(|until| *until > now)
    }

    /// When the job may be looked up, if not now: the queued jobs of a lane take turns, and so do
    /// all jobs of a repository whose launches fail, for which few requests are left.
    fn look_up_turn(&mut self, key: JobKey, now: Instant) -> Option<Instant> {
        let (repository, target) = self.subject_of(key)?;
        if target.is_some_and(|target| self.fails_at(&target)) {
            let place = (key.host, repository);
            let all = &mut self.job_look_ups.refusing;
            let failing = all.entry(place).or_insert(Failing::none(now + ROUTINE));
            if failing.until > now {
                return Some(failing.until);
            }
            failing.until = now + ROUTINE;
        }
        let tracked = self.jobs.get(&key).filter(|it| it.state == JobState::Queued)?;
        let lane = self.lanes.get(tracked.lane.as_ref().ok()?)?;
        lane.job_look_ups.until().filter(|until| *until > now)
    }

    /// The repository of a job, and the target whose credential may ask about it.
    fn subject_of(&self, key: JobKey) -> Option<(String, Option<ServerTarget>)> {
        if let Some(tracked) = self.jobs.get(&key) {
            let target = self.look_up_target(&tracked.job, &tracked.lane);
            return Some((tracked.job.repository.clone(), target));
        }
        let unconfirmed = self.job_look_ups.unconfirmed.get(&key)?;
        Some((unconfirmed.repository.clone(), unconfirmed.target.clone()))
    }

    /// The target of its lane. If no pool serves the job or no credential the lane, one that has
    /// a credential.
    fn look_up_target(&self, job: &Job, lane: &Result<LaneKey, NoMatch>) -> Option<ServerTarget> {
        let credentials = &self.settings.credentials;
        let has_credential = |target: &ServerTarget| credential_for(credentials, target).is_some();
        if let Ok(LaneKey { target, .. }) = lane
            && has_credential(target)
        {
            return Some(target.clone());
        }
        let repository = format!("repo:{}", job.repository);
        let organization = format!("org:{}", job.organization);
        let enterprise = format!("enterprise:{}", job.enterprise);
        let others = [repository, organization, enterprise];
        let mut others = others.iter().filter_map(|text| {
            let target: Target = text.to_ascii_lowercase().parse().ok()?;
            Some(target.on(job.key.host))
        });
        others.find(has_credential)
    }

    /// GitHub answered about a job, so its repository and credential work.
    pub(super) fn job_look_up_succeeded(&mut self, key: JobKey, now: Instant) {
        let Some((repository, target)) = self.subject_of(key) else { return };
        let place = (key.host, repository);
        self.job_look_ups.refusing.remove(&place);
        // The job may have moved to another target since it was looked up.
        if let Some(target) = target.as_ref().filter(|target| !self.fails_at(target)) {
            self.backoffs.allowances.succeeded(target);
        }
        if let Some(target) = target
            && let Some(credential) = credential_for(&self.settings.credentials, &target)
        {
            self.job_look_ups.answered.insert(credential, now);
            self.job_look_ups.unanswered.remove(&(place, credential));
            self.job_look_ups.unavailable.remove(&credential);
        }
    }

    pub(super) fn job_look_up_failed(
        &mut self,
        key: JobKey,
        failure: LookUpFailure,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some((repository, target)) = self.subject_of(key) else { return };
        if let LookUpFailure::Unavailable { retry_after } = failure {
            let credential =
                target.as_ref().and_then(|it| credential_for(&self.settings.credentials, it));
            let (Some(credential), Some(target)) = (credential, target) else { return };
            let (until, elsewhere) =
                self.look_up_unanswered((key.host, repository), credential, retry_after, now);
            // One repository says nothing about its organization, and a rate limit nothing about
            // any target.
            let about_target = matches!(target.target, Target::Repository { .. })
                || self.fails_at(&target)
                || elsewhere;
            if about_target && retry_after.is_zero() {
                self.backoffs.allowances.failed(&target, Request::LookUp, now, now);
            }
            self.reschedule_look_up(key, until);
            return;
        }
        if let Some(target) = &target
            && matches!(target.target, Target::Repository { .. })
        {
            self.backoffs.allowances.failed(target, Request::LookUp, now, now);
        }
        let all = &mut self.job_look_ups.refusing;
        let failing =
            Failing::fail(all, (key.host, repository.clone()), REFUSED, REFUSED_LONGEST, now);
        let (failures, until) = (failing.failures, failing.until);
        self.reschedule_look_up(key, until);
        if failures >= REFUSALS_MAX && failure == LookUpFailure::Refused {
            self.give_up_jobs_of(key.host, &repository, now, actions);
        }
    }

    /// GitHub did not answer about the repository, which is then paused, or it asked to wait. The
    /// credential is paused as well if GitHub asked to wait or does not answer about another
    /// repository either. Returns when the repository is next looked up, and whether another one
    /// fails as well.
    fn look_up_unanswered(
        &mut self,
        place: Place,
        credential: usize,
        retry_after: Duration,
        now: Instant,
    ) -> (Instant, bool) {
        let JobLookUps { unanswered, unavailable, answered, .. } = &mut self.job_look_ups;
        let answered = answered.get(&credential).copied();
        let elsewhere = unanswered.iter().any(|((other, with), failing)| {
            *other != place && *with == credential && failing.until > now && failing.last > answered
        });
        let key = (place, credential);
        let failing = Failing::fail(unanswered, key, UNAVAILABLE, UNAVAILABLE_LONGEST, now);
        let mut until = failing.until.max(now + retry_after);
        if elsewhere || !retry_after.is_zero() {
            // Each repository has its own pause, which grows. This one does not: the two may be the
            // only ones that fail.
            let paused = unavailable.entry(credential).or_insert(now);
            *paused = (*paused).max(now + retry_after.max(UNAVAILABLE));
            until = until.max(*paused);
        }
        (until, elsewhere)
    }

    /// Gives up the jobs of a repository that GitHub does not show, unless something else shows
    /// that they are not over.
    fn give_up_jobs_of(
        &mut self,
        host: Host,
        repository: &str,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let is_old = |since: Instant| since + GIVEN_UP_AGE <= now;
        let tracked = self.jobs.iter().filter(|(key, tracked)| {
            (key.host, &*tracked.job.repository) == (host, repository)
                && is_old(tracked.since)
                && self.may_be_over(tracked, now)
        });
        let unconfirmed = self.job_look_ups.unconfirmed.iter();
        let unconfirmed = unconfirmed.filter(|(key, it)| {
            (key.host, &*it.repository) == (host, repository) && is_old(it.since)
        });
        let mut keys: Vec<JobKey> =
            tracked.map(|(key, _)| *key).chain(unconfirmed.map(|(key, _)| *key)).collect();
        keys.sort_unstable();
        for key in keys {
            let why = "GitHub does not show its repository to the credential";
            self.give_up_job(key, why, now, actions);
        }
    }

    fn may_be_over(&self, tracked: &Tracked, now: Instant) -> bool {
        match (tracked.state, &tracked.lane) {
            // Its runner is here and will exit.
            (JobState::InProgress, _) => !self.runners.contains_key(&tracked.runner),
            (_, Err(_)) => true,
            // A credential may register runners and still not be allowed to read jobs.
            (_, Ok(lane)) => self.is_refused(lane) || tracked.since + QUEUED_LONGEST <= now,
        }
    }

    /// Whether GitHub refuses to register runners in a lane as well.
    fn is_refused(&self, key: &LaneKey) -> bool {
        let target = &key.target;
        let refused = |wanted: Blocked| {
            let mut all = self.backoffs.all();
            all.any(|(blocked, it)| *blocked == wanted && it.cause == Cause::Forbidden)
        };
        let mut serving = credentials_for(&self.settings.credentials, target).peekable();
        refused(Blocked::Target(target.clone()))
            || refused(Blocked::Lane(key.clone()))
            || serving.peek().is_some()
                && serving.all(|it| refused(Blocked::TargetWith(target.clone(), it)))
    }

    /// Nobody will ever report the job's end.
    pub(super) fn give_up_job(
        &mut self,
        key: JobKey,
        why: &str,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        self.end_job(key, now);
        actions.push(Action::GiveUpJob { job: key, why: why.to_owned() });
    }
}
