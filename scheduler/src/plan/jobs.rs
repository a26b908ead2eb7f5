//! What GitHub tells about jobs.

use super::{
    Action, FINISHING_MS, JobStatus, LaneKey, NoMatch, Phase, State, Waiting, demand::group_at,
    match_pool,
};
use crate::model::{Job, JobKey, UnixMs};

/// A finished job is remembered this long, so that a `queued` that was overtaken
/// by its `completed` cannot revive it. The store remembers for longer; this
/// covers the time between its commit and our turn.
const TOMBSTONE_MS: u64 = 3_600_000;
/// GitHub ends every job after five days; one that runs longer has ended unheard,
/// and must not count against its repository for ever.
const JOB_LONGEST_MS: u64 = 5 * 24 * 3_600_000 + TOMBSTONE_MS;
/// Old records to forget at one tick, so that none takes long.
const FORGET_AT_ONCE_MAX: usize = 2_000;

#[derive(Debug)]
pub(super) struct Tracked {
    pub(super) job: Job,
    /// `Err`: no pool serves it.
    pub(super) lane: Result<LaneKey, NoMatch>,
    pub(super) progress: Progress,
    /// When GitHub was last asked what became of it.
    pub(super) looked_at: UnixMs,
    /// Why it waits, as far as that has been told.
    pub(super) waiting: Option<Waiting>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Queued,
    InProgress { since: UnixMs },
}

impl State {
    pub(super) fn job_queued(&mut self, job: Job) {
        if self.jobs.contains_key(&job.key) || self.tombstones.contains_key(&job.key) {
            return;
        }
        self.track(job, Progress::Queued);
    }

    pub(super) fn job_started(
        &mut self,
        job: Job,
        runner: &str,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let key = job.key;
        if self.tombstones.contains_key(&key) {
            return;
        }
        let known = self.jobs.get(&key).map(|tracked| tracked.progress);
        if !matches!(known, Some(Progress::InProgress { .. })) {
            self.mark_healthy_by_name(runner);
            if self.gone.contains_key(runner) {
                // Late news: what it started is over, whether or not that is told as well.
                self.job_over(key, now);
                return;
            }
            let job = self.untrack(key).unwrap_or(job);
            self.track(job, Progress::InProgress { since: now });
        }
        self.runner_busy(runner, Some(key), now, actions);
    }

    pub(super) fn job_completed(
        &mut self,
        job: &Job,
        runner: &str,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        self.job_over(job.key, now);
        // A re-run sends `completed` for old jobs again, whose runners are long gone;
        // a runner that is here and busy with another job is not finished by it.
        let Some(found) = self.runners.get(runner) else {
            return;
        };
        if found.finished || found.job.is_some_and(|current| current != job.key) {
            return;
        }
        self.runner_busy(runner, Some(job.key), now, actions);
        if let Some(found) = self.runners.get_mut(runner) {
            found.finished = true;
            if found.phase == Phase::Busy {
                self.set_deadline(runner, Some(now.saturating_add(FINISHING_MS)));
            }
            self.confirmed(runner, now, actions);
        }
    }

    /// News of it were lost; GitHub was asked.
    pub(super) fn job_found(
        &mut self,
        key: JobKey,
        status: JobStatus,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let Some(job) = self.jobs.get(&key).map(|tracked| tracked.job.clone()) else {
            return;
        };
        match status {
            JobStatus::Queued => {}
            JobStatus::InProgress { runner } => self.job_started(job, &runner, now, actions),
            JobStatus::Over => self.job_over(key, now),
        }
    }

    /// The job cannot run any more, whatever is told of it later.
    pub(super) fn job_over(&mut self, key: JobKey, now: UnixMs) {
        self.untrack(key);
        if self.tombstones.insert(key, now).is_none() {
            self.tombstones_by_age.push_back((now, key));
        }
    }

    pub(super) fn track(&mut self, job: Job, progress: Progress) {
        let key = job.key;
        let lane = match_pool(&self.settings.pools, &job);
        if let Progress::InProgress { since } = progress {
            self.in_progress.insert((since, key));
        }
        if let Ok(group_key) = &lane {
            match progress {
                Progress::Queued => {
                    let entry = group_at(&mut self.lanes, &self.settings, group_key);
                    entry.queued.insert((job.queued_at, key));
                    self.queue_changed(&job.repository, group_key, true);
                }
                Progress::InProgress { .. } => self.running_changed(&job.repository, true),
            }
        }
        if lane.is_err() && progress == Progress::Queued {
            self.unserved.push(key);
        }
        self.jobs.insert(key, Tracked { job, lane, progress, looked_at: 0, waiting: None });
    }

    fn untrack(&mut self, key: JobKey) -> Option<Job> {
        let Tracked { job, lane, progress, .. } = self.jobs.remove(&key)?;
        if let Progress::InProgress { since } = progress {
            self.in_progress.remove(&(since, key));
        }
        if let Ok(group_key) = &lane {
            match progress {
                Progress::Queued => {
                    if let Some(entry) = self.lanes.get_mut(group_key) {
                        entry.queued.remove(&(job.queued_at, key));
                    }
                    self.queue_changed(&job.repository, group_key, false);
                }
                Progress::InProgress { .. } => self.running_changed(&job.repository, false),
            }
        }
        Some(job)
    }

    pub(super) fn forget_old_jobs(&mut self, now: UnixMs) {
        for _ in 0..FORGET_AT_ONCE_MAX {
            match self.tombstones_by_age.front().copied() {
                Some((at, key)) if at.saturating_add(TOMBSTONE_MS) <= now => {
                    self.tombstones_by_age.pop_front();
                    self.tombstones.remove(&key);
                }
                _ => break,
            }
        }
        for _ in 0..FORGET_AT_ONCE_MAX {
            match self.in_progress.first().copied() {
                Some((since, key)) if since.saturating_add(JOB_LONGEST_MS) <= now => {
                    self.job_over(key, now);
                }
                _ => break,
            }
        }
    }
}
