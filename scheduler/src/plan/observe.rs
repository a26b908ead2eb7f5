//! Observations: adopted runners, lists of registrations and containers, and when to look up
//! runners and jobs at GitHub because a webhook may be lost.

use std::{collections::HashSet, time::Duration};

use super::{
    Action, Adopted, AdoptedContainer, EndReason, Phase, Registration, Runner, State, demand::Lane,
};
use crate::model::{Instant, Moment, ServerTarget};

/// A runner that is still starting after this long is looked up at GitHub.
const STARTING_SILENT: Duration = Duration::from_secs(15);
/// The same for one that is idle while jobs wait in its lane.
const IDLE_SILENT: Duration = Duration::from_secs(60);
/// Between two look-ups of runners, at any target: at most 720 of the 5,000 requests that
/// GitHub allows per hour.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(5);
/// Runners that change their phase by one look-up, so that no event takes long.
const CHANGED_AT_ONCE_MAX: usize = 1_000;

/// Between two look-ups of jobs: at most 360 requests per hour.
const JOB_LOOK_UP_INTERVAL: Duration = Duration::from_secs(10);
/// A job is looked up if a runner could have taken it this long ago.
const JOB_OVERDUE: Duration = Duration::from_secs(60);
/// Between two look-ups of the same job.
const JOB_LOOK_UP_AGAIN: Duration = Duration::from_secs(300);
/// Oldest jobs of a lane that are considered, so that no tick takes long.
const SUSPECTS_MAX: usize = 100;

impl State {
    pub(super) fn adopt(&mut self, adopted: Adopted, now: Moment, actions: &mut Vec<Action>) {
        let Adopted { runner: name, pool, target, registration_id, job, created_at, container } =
            adopted;
        if self.runners.contains_key(&name) {
            return;
        }
        let lane = self
            .settings
            .pools
            .iter()
            .position(|known| known.name == pool)
            .map(|index| (index, target.clone()));
        let phase = if job.is_some() { Phase::Busy } else { Phase::Starting };
        self.insert_runner(Runner {
            name: name.clone(),
            pool,
            target,
            lane,
            phase,
            created: now.at_wall(created_at),
            since: now,
            registration_id,
            job,
            finished: false,
            deadline: None,
        });
        let limits = self.limits(&name);
        let allowed_ms = if job.is_some() { limits.job_ms } else { limits.starting_ms };
        self.set_deadline(&name, Some(now.instant + Duration::from_millis(allowed_ms)));
        match container {
            AdoptedContainer::Running => actions.push(Action::Record(name)),
            AdoptedContainer::Exited(exit_code) if job.is_some() => {
                self.container_exited(&name, exit_code, now, actions);
            }
            // It does not count against the pool: it may have run a job whose webhooks were
            // sent while no process was running.
            AdoptedContainer::Exited(exit_code) => {
                self.start_removal(&name, EndReason::Unused { exit_code }, true, now, actions);
            }
            AdoptedContainer::Created => {
                self.start_removal(&name, EndReason::Vanished, false, now, actions);
            }
            AdoptedContainer::Missing => {
                self.start_removal(&name, EndReason::Vanished, true, now, actions);
            }
        }
    }

    pub(super) fn registrations(
        &mut self,
        target: &ServerTarget,
        listed: &[Registration],
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let mut busy = Vec::new();
        let mut online = Vec::new();
        let mut seen = HashSet::new();
        for Registration { name, id, online: is_online, busy: is_busy } in listed {
            let Some(runner) = self.runners.get_mut(name) else {
                continue;
            };
            if runner.target != *target {
                continue;
            }
            runner.registration_id.get_or_insert(*id);
            match runner.phase {
                Phase::Starting | Phase::Idle if *is_busy => {
                    busy.push(name.as_str());
                    seen.insert(name.as_str());
                }
                Phase::Starting if *is_online => online.push(name.as_str()),
                Phase::Idle if *is_online => {
                    seen.insert(name.as_str());
                }
                _ => {}
            }
        }
        let lost: Vec<String> = self
            .runners
            .values()
            .filter(|runner| runner.phase == Phase::Idle && runner.target == *target)
            .map(|runner| &runner.name)
            .filter(|name| !seen.contains(name.as_str()))
            .cloned()
            .collect();
        // The rest stay as they are, and are looked up again.
        for name in busy.into_iter().take(CHANGED_AT_ONCE_MAX) {
            self.runner_busy(name, None, now, actions);
        }
        for name in online.into_iter().take(CHANGED_AT_ONCE_MAX) {
            self.runner_idle(name, now, actions);
        }
        for name in lost.into_iter().take(CHANGED_AT_ONCE_MAX) {
            self.runner_lost(&name, now, actions);
        }
    }

    /// Handles what no event reported: exits, and containers that appeared or vanished.
    pub(super) fn survey(
        &mut self,
        containers: &[Adopted],
        taken_at: Instant,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if !self.recovered {
            // Recovery adopts the same containers, with their jobs from the store.
            return;
        }
        let should_run = |runner: &Runner| match runner.phase {
            Phase::Starting | Phase::Idle | Phase::Busy => runner.since.instant < taken_at,
            Phase::Provisioning(_) | Phase::Removing(_) => false,
        };
        let mut seen = 0;
        let mut unhandled = Vec::new();
        for found in containers {
            match self.runners.get(&found.runner) {
                Some(runner) => {
                    seen += usize::from(should_run(runner));
                    if let AdoptedContainer::Exited(_) = found.container {
                        unhandled.push(found);
                    }
                }
                // It was removed after the survey was requested.
                None if self.gone.get(&found.runner).is_some_and(|at| *at >= taken_at) => {}
                None => unhandled.push(found),
            }
        }
        // A cheap check first: nearly always all are there.
        if seen < self.runners.values().filter(|runner| should_run(runner)).count() {
            let seen: HashSet<&str> =
                containers.iter().map(|container| container.runner.as_str()).collect();
            let vanished: Vec<String> = self
                .runners
                .values()
                .filter(|runner| should_run(runner) && !seen.contains(runner.name.as_str()))
                .map(|runner| runner.name.clone())
                .collect();
            for name in vanished {
                self.start_removal(&name, EndReason::Vanished, true, now, actions);
            }
        }
        for found in unhandled {
            match found.container {
                AdoptedContainer::Exited(exit_code) if self.runners.contains_key(&found.runner) => {
                    self.container_exited(&found.runner, exit_code, now, actions);
                }
                _ => self.adopt(found.clone(), now, actions),
            }
        }
    }

    /// Looks up the runners of a target where at least one has been silent for too long.
    pub(super) fn look_up(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.last_look_up.is_some_and(|last| now < last + LOOK_UP_INTERVAL)
            || self.counts.starting + self.counts.idle == 0
        {
            return;
        }
        // Targets take turns: the one after the last, or else the first.
        let (mut first, mut next): (Option<&ServerTarget>, Option<&ServerTarget>) = (None, None);
        for runner in self.runners.values().filter(|runner| self.is_silent(runner, now)) {
            let target = &runner.target;
            if first.is_none_or(|first| target < first) {
                first = Some(target);
            }
            if self.last_looked_up.as_ref().is_none_or(|last| target > last)
                && next.is_none_or(|next| target < next)
            {
                next = Some(target);
            }
        }
        let Some(target) = next.or(first).cloned() else {
            return;
        };
        self.last_look_up = Some(now);
        self.last_looked_up = Some(target.clone());
        actions.push(Action::LookUp(target));
    }

    /// Looks up a queued job that should have been taken by now. Its webhooks may be lost, and
    /// then a runner is kept for a job that is over.
    pub(super) fn look_up_job(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.last_job_look_up.is_some_and(|last| now < last + JOB_LOOK_UP_INTERVAL) {
            return;
        }
        let overdue = |lane: &Lane, since: Instant| {
            since + JOB_OVERDUE <= now
                && (lane.idle > 0 || lane.unexplained_exit.is_some_and(|exit| since < exit))
        };
        let suspect = self
            .lanes
            .values()
            .filter(|lane| lane.idle > 0 || lane.unexplained_exit.is_some())
            .filter_map(|lane| {
                lane.queued
                    .iter()
                    .take(SUSPECTS_MAX)
                    .filter(|(since, _)| overdue(lane, *since))
                    .find(|(_, key)| {
                        self.jobs.get(key).is_some_and(|tracked| {
                            tracked.looked_up.is_none_or(|last| last + JOB_LOOK_UP_AGAIN <= now)
                        })
                    })
            })
            .min()
            .map(|(_, key)| *key);
        if let Some(tracked) = suspect.and_then(|key| self.jobs.get_mut(&key)) {
            tracked.looked_up = Some(now);
            self.last_job_look_up = Some(now);
            let (job, repository) = (tracked.job.key, tracked.job.repository.clone());
            if let Ok((_, target)) = &tracked.lane {
                actions.push(Action::LookUpJob { job, repository, target: target.clone() });
            }
        }
    }

    fn is_silent(&self, runner: &Runner, now: Instant) -> bool {
        match runner.phase {
            Phase::Starting => runner.since.instant + STARTING_SILENT <= now,
            // It may have taken a job whose webhook was lost; then no runner serves the jobs
            // that wait here.
            Phase::Idle => {
                runner.since.instant + IDLE_SILENT <= now
                    && runner
                        .lane
                        .as_ref()
                        .and_then(|key| self.lanes.get(key))
                        .is_some_and(|lane| !lane.queued.is_empty())
            }
            Phase::Provisioning(_) | Phase::Busy | Phase::Removing(_) => false,
        }
    }
}
