//! What GitHub and Docker show when asked: adopted containers, registrations, surveys.

use std::collections::HashSet;

use super::{
    Action, Adopted, AdoptedContainer, EndReason, Phase, Registration, Runner, State, demand::Lane,
};
use crate::model::{Target, UnixMs};

/// A runner that is not busy this long after its start is looked up at GitHub.
const LOOK_AFTER_MS: u64 = 15_000;
/// The same for one that is idle while jobs wait.
const LOOK_AT_IDLE_AFTER_MS: u64 = 60_000;
/// Between two look-ups, whatever their target: at most 720 of the 5,000 requests
/// that GitHub allows an hour.
const LOOK_INTERVAL_MS: u64 = 5_000;
/// Runners that become busy, idle or lost by one look-up, so that none takes long.
const HEARD_OF_AT_ONCE_MAX: usize = 1_000;

/// Between two look-ups of jobs: at most 360 requests an hour.
const JOB_LOOK_INTERVAL_MS: u64 = 10_000;
/// A job that a runner could have taken for so long is looked up.
const JOB_OVERDUE_MS: u64 = 60_000;
const JOB_LOOK_AGAIN_MS: u64 = 300_000;
/// Of one lane's jobs the oldest so many are considered, so that none takes long.
const SUSPECTS_MAX: usize = 100;

impl State {
    pub(super) fn adopt(&mut self, adopted: Adopted, now: UnixMs, actions: &mut Vec<Action>) {
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
            created_at,
            since: now,
            registration_id,
            job,
            finished: false,
            deadline: None,
        });
        let limits = self.limits(&name);
        let allowed = if job.is_some() { limits.job_ms } else { limits.starting_ms };
        self.set_deadline(&name, Some(now.saturating_add(allowed)));
        match container {
            AdoptedContainer::Running => actions.push(Action::Record(name)),
            AdoptedContainer::Exited(exit_code) if job.is_some() => {
                self.container_exited(&name, exit_code, now, actions);
            }
            // Its end says nothing about the pool: it may have run a job whose
            // events came while nobody was here.
            AdoptedContainer::Exited(exit_code) => {
                self.leave(&name, EndReason::Unused { exit_code }, true, now, actions);
            }
            AdoptedContainer::Created => {
                self.leave(&name, EndReason::Vanished, false, now, actions);
            }
            AdoptedContainer::Missing => self.leave(&name, EndReason::Vanished, true, now, actions),
        }
    }

    pub(super) fn registrations(
        &mut self,
        target: &Target,
        listed: &[Registration],
        now: UnixMs,
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
        // Those that are left over are as silent as before, and asked about again.
        for name in busy.into_iter().take(HEARD_OF_AT_ONCE_MAX) {
            self.runner_busy(name, None, now, actions);
        }
        for name in online.into_iter().take(HEARD_OF_AT_ONCE_MAX) {
            self.runner_idle(name, now, actions);
        }
        for name in lost.into_iter().take(HEARD_OF_AT_ONCE_MAX) {
            self.runner_lost(&name, now, actions);
        }
    }

    /// Makes good what was missed between two surveys: exits nobody told of, and
    /// containers that came or went behind our back.
    pub(super) fn survey(
        &mut self,
        containers: &[Adopted],
        taken_at: UnixMs,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        if !self.recovered {
            // What is told one by one comes with the jobs that the store knows of.
            return;
        }
        let should_run = |runner: &Runner| match runner.phase {
            Phase::Starting | Phase::Idle | Phase::Busy => runner.since < taken_at,
            Phase::Provisioning(_) | Phase::Removing(_) => false,
        };
        let mut seen = 0;
        let mut news = Vec::new();
        for found in containers {
            match self.runners.get(&found.runner) {
                Some(runner) => {
                    seen += usize::from(should_run(runner));
                    if let AdoptedContainer::Exited(_) = found.container {
                        news.push(found);
                    }
                }
                // It was removed while the survey was on its way.
                None if self.gone.get(&found.runner).is_some_and(|at| *at >= taken_at) => {}
                None => news.push(found),
            }
        }
        // Nearly always all are there.
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
                self.leave(&name, EndReason::Vanished, true, now, actions);
            }
        }
        for found in news {
            match found.container {
                AdoptedContainer::Exited(exit_code) if self.runners.contains_key(&found.runner) => {
                    self.container_exited(&found.runner, exit_code, now, actions);
                }
                _ => self.adopt(found.clone(), now, actions),
            }
        }
    }

    /// Asks GitHub about a target where a runner should have been heard of by now.
    pub(super) fn look_up(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if now < self.looked_at.saturating_add(LOOK_INTERVAL_MS)
            || self.counts.starting + self.counts.idle == 0
        {
            return;
        }
        // Each target in turn: the next one after the last, or else the first.
        let (mut first, mut next): (Option<&Target>, Option<&Target>) = (None, None);
        for runner in self.runners.values().filter(|runner| self.silent(runner, now)) {
            let target = &runner.target;
            if first.is_none_or(|first| target < first) {
                first = Some(target);
            }
            if self.looked_target.as_ref().is_none_or(|last| target > last)
                && next.is_none_or(|next| target < next)
            {
                next = Some(target);
            }
        }
        let Some(target) = next.or(first).cloned() else {
            return;
        };
        self.looked_at = now;
        self.looked_target = Some(target.clone());
        actions.push(Action::LookUp(target));
    }

    /// Asks GitHub about a queued job that should have been taken by now: news of it
    /// may be lost, and then a runner is kept for a job that is over.
    pub(super) fn look_up_job(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if now < self.looked_at_job.saturating_add(JOB_LOOK_INTERVAL_MS) {
            return;
        }
        let overdue = |lane: &Lane, queued_at: UnixMs| {
            queued_at.saturating_add(JOB_OVERDUE_MS) <= now
                && (lane.idle > 0 || lane.unexplained_exit.is_some_and(|end| queued_at < end))
        };
        let suspect = self
            .lanes
            .values()
            .filter(|lane| lane.idle > 0 || lane.unexplained_exit.is_some())
            .filter_map(|lane| {
                lane.queued
                    .iter()
                    .take(SUSPECTS_MAX)
                    .filter(|(queued_at, _)| overdue(lane, *queued_at))
                    .find(|(_, key)| {
                        self.jobs.get(key).is_some_and(|tracked| {
                            tracked.looked_at.saturating_add(JOB_LOOK_AGAIN_MS) <= now
                        })
                    })
            })
            .min()
            .map(|(_, key)| *key);
        if let Some(tracked) = suspect.and_then(|key| self.jobs.get_mut(&key)) {
            tracked.looked_at = now;
            self.looked_at_job = now;
            let (job, repository) = (tracked.job.key, tracked.job.repository.clone());
            if let Ok((_, target)) = &tracked.lane {
                actions.push(Action::LookUpJob { job, repository, target: target.clone() });
            }
        }
    }

    fn silent(&self, runner: &Runner, now: UnixMs) -> bool {
        match runner.phase {
            Phase::Starting => runner.since.saturating_add(LOOK_AFTER_MS) <= now,
            // It may have taken a job whose news were lost, and then nothing serves
            // the jobs that wait for it.
            Phase::Idle => {
                runner.since.saturating_add(LOOK_AT_IDLE_AFTER_MS) <= now
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
