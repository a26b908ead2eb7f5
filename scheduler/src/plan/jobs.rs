//! Jobs, from `queued` to `completed`, as webhooks and look-ups report them.

use std::time::Duration;

use super::{Action, FINISHING, LaneKey, NoMatch, Phase, State, Waiting, spill::Candidates};
use crate::model::{Instant, Job, JobKey, JobState, Moment};

/// How long a completed job is remembered, so that a `queued` that was overtaken by its
/// `completed` cannot revive it. The store remembers for longer; this covers the time between
/// its commit and the planner's turn.
const TOMBSTONE: Duration = Duration::from_secs(3_600);
/// GitHub ends every job after five days. If one seems to run longer, its `completed` was lost,
/// and it must not count against its repository forever.
pub(super) const JOB_LONGEST: Duration = Duration::from_secs(5 * 24 * 3_600 + 3_600);
/// Old records that one tick forgets, so that no tick takes long.
const FORGET_AT_ONCE_MAX: usize = 2_000;

/// A job that is queued or in progress.
#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) job: Job,
    /// `Err`: no pool serves it.
    pub(super) lane: Result<LaneKey, NoMatch>,
    pub(super) candidates: Candidates,
    /// Never `Completed`.
    pub(super) state: JobState,
    /// When it entered the state, also if an earlier process learned of it.
    pub(super) since: Instant,
    /// The runner that took it; empty if none did or no event named it.
    pub(super) runner: String,
    /// When it was last looked up at GitHub.
    pub(super) looked_up: Option<Instant>,
    /// How often it was looked up in this state.
    pub(super) look_ups: u32,
    /// When it is looked up at the latest.
    pub(super) look_up_due: Instant,
    /// The reason that was last announced for its waiting.
    pub(super) waiting: Option<Waiting>,
}

impl State {
    pub(super) fn job_queued(&mut self, job: Job, now: Moment) {
        if self.jobs.contains_key(&job.key) || self.is_over(job.key) {
            return;
        }
        let (key, since) = (job.key, now.instant_of(job.queued_at));
        self.track(job, JobState::Queued, since, false);
        self.schedule_look_up(key, since);
    }

    pub(super) fn job_started(
        &mut self,
        job: Job,
        runner: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let key = job.key;
        let unnamed = runner.is_empty();
        let runner = self.on_same_server(key, runner);
        if self.is_over(key) {
            return;
        }
        let known = self.jobs.get(&key).map(|tracked| tracked.state);
        if known != Some(JobState::InProgress) {
            self.mark_healthy_by_name(runner);
            self.picked_up(key, now.instant);
            let job = self.untrack(key).unwrap_or(job);
            self.track(job, JobState::InProgress, now.instant, false);
            self.schedule_look_up(key, now.instant);
            if self.gone.contains_key(runner) {
                // The event is late: a job whose runner is gone is over.
                self.presume_over(key, now.instant);
                return;
            }
            if unnamed {
                self.unnamed_runner(key, true, now.instant);
            }
        }
        if let Some(tracked) = self.jobs.get_mut(&key)
            && tracked.runner.is_empty()
        {
            runner.clone_into(&mut tracked.runner);
        }
        if self.runners.contains_key(runner) {
            self.runner_busy(runner, Some(key), now, actions);
        } else {
            self.may_be_adopted(runner, key);
        }
    }

    /// The event of a job may arrive before its runner is adopted.
    fn may_be_adopted(&mut self, runner: &str, job: JobKey) {
        if !runner.is_empty() && self.recovered.contains(&false) {
            self.before_adoption.insert(runner.to_owned(), job);
        }
    }

    pub(super) fn job_completed(
        &mut self,
        job: &Job,
        runner: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let state = self.jobs.get(&job.key).map(|tracked| tracked.state);
        if runner.is_empty() && state == Some(JobState::InProgress) {
            self.unnamed_runner(job.key, false, now.instant);
        }
        let runner = self.on_same_server(job.key, runner);
        self.end_job(job.key, now.instant);
        // A re-run sends `completed` again for old jobs. It says nothing about a runner that
        // is busy with another job by now.
        let Some(found) = self.runners.get(runner) else {
            self.may_be_adopted(runner, job.key);
            return;
        };
        if found.finished || found.job.is_some_and(|current| current != job.key) {
            return;
        }
        self.runner_busy(runner, Some(job.key), now, actions);
        if let Some(found) = self.runners.get_mut(runner) {
            found.finished = true;
            if found.phase == Phase::Busy {
                self.set_deadline(runner, Some(now.instant + FINISHING));
            }
            self.confirmed(runner, now, actions);
        }
    }

    /// A job started or ended on a runner that GitHub did not name.
    fn unnamed_runner(&mut self, job: JobKey, started: bool, now: Instant) {
        if let Some(Tracked { lane: Ok(key), .. }) = self.jobs.get(&job) {
            let key = key.clone();
            self.unnamed_runner_works(&key, started, now);
        }
    }

    /// The runner, unless it is on another server than the job: that one cannot have taken it.
    fn on_same_server<'a>(&self, job: JobKey, runner: &'a str) -> &'a str {
        match self.runners.get(runner) {
            Some(found) if !found.target.host.may_be(job.host) => "",
            _ => runner,
        }
    }

    /// The result of a look-up at GitHub, which replaces a lost webhook.
    pub(super) fn job_found(
        &mut self,
        key: JobKey,
        state: JobState,
        runner: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.job_look_up_succeeded(key, now.instant);
        let Some(job) = self.jobs.get(&key).map(|tracked| tracked.job.clone()) else {
            // For a job that was over already, this confirms it.
            if state == JobState::Completed {
                self.confirm_job(key);
            }
            return;
        };
        if let (Some(Ok(lane)), true) =
            (self.jobs.get(&key).map(|tracked| &tracked.lane), state != JobState::Queued)
            && let Some(lane) = self.lanes.get_mut(lane)
        {
            // A webhook was lost, and others may be.
            lane.job_look_ups.reset();
        }
        match state {
            JobState::Queued => {}
            JobState::InProgress => self.job_started(job, runner, now, actions),
            JobState::Completed => self.job_completed(&job, runner, now, actions),
        }
    }

    fn is_over(&self, key: JobKey) -> bool {
        self.tombstones.contains_key(&key) || self.job_look_ups.unconfirmed.contains_key(&key)
    }

    /// Later events about the job are ignored.
    pub(super) fn end_job(&mut self, key: JobKey, now: Instant) {
        let ended = self.jobs.get(&key).filter(|tracked| tracked.state == JobState::InProgress);
        let repository =
            ended.map(|tracked| (tracked.job.key.host, tracked.job.repository.clone()));
        self.untrack(key);
        if let Some(repository) = repository {
            self.job_ended(&repository, now);
        }
        self.confirm_job(key);
        if self.tombstones.insert(key, now).is_none() {
            self.tombstones_by_age.push_back((now, key));
        }
    }

    /// `was_served`: by a pool, before all jobs are matched again.
    pub(super) fn track(
        &mut self,
        mut job: Job,
        state: JobState,
        since: Instant,
        was_served: bool,
    ) {
        let key = job.key;
        self.complete_origin(&mut job);
        let (lane, candidates) = match self.lanes_of(&job, state, was_served) {
            Ok(mut lanes) if lanes.len() == 1 => (Ok(lanes.swap_remove(0)), Candidates::default()),
            Ok(lanes) => (Ok(lanes[0].clone()), lanes.into()),
            Err(why) => (Err(why), Candidates::default()),
        };
        if state == JobState::InProgress {
            self.in_progress.insert((since, key));
        }
        let (best, running) = (lane.clone().ok(), job.clone());
        let tracked = Tracked {
            job,
            lane,
            candidates,
            state,
            since,
            runner: String::new(),
            looked_up: None,
            look_ups: 0,
            look_up_due: since,
            waiting: None,
        };
        self.jobs.insert(key, tracked);
        match (best, state) {
            (Some(lane), JobState::Queued) => self.enqueue(key, since, &lane),
            (Some(_), _) => self.running_changed(&running, true),
            (None, JobState::Queued) => self.unserved.push(key),
            (None, _) => {}
        }
    }

    pub(super) fn untrack(&mut self, key: JobKey) -> Option<Job> {
        let Tracked { job, lane, candidates, state, since, look_up_due, .. } =
            self.jobs.remove(&key)?;
        self.job_look_ups.due.remove(&(look_up_due, key));
        self.forget_wanted(&job);
        if state == JobState::InProgress {
            self.in_progress.remove(&(since, key));
        }
        if let Ok(lane_key) = &lane {
            if state == JobState::Queued {
                let lane = self.lanes.get_mut(lane_key);
                if lane.is_some_and(|lane| lane.held.remove(&(since, key))) {
                    self.held_job_left(&job.repository, lane_key);
                } else {
                    self.dequeue((since, key), lane_key, &candidates);
                    self.queue_changed(&job.repository, lane_key, false);
                }
            } else {
                self.running_changed(&job, false);
            }
        }
        Some(job)
    }

    pub(super) fn forget_old_jobs(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for _ in 0..FORGET_AT_ONCE_MAX {
            match self.tombstones_by_age.front().copied() {
                Some((at, key)) if at + TOMBSTONE <= now => {
                    self.tombstones_by_age.pop_front();
                    self.tombstones.remove(&key);
                }
                _ => break,
            }
        }
        for _ in 0..FORGET_AT_ONCE_MAX {
            match self.in_progress.first().copied() {
                Some((since, key)) if since + JOB_LONGEST <= now => {
                    self.give_up_job(key, "it started more than five days ago", now, actions);
                }
                _ => break,
            }
        }
    }
}
