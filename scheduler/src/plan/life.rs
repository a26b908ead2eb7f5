//! A runner's life from its launch to its exit. Every launch ends in [`Action::Forget`].

use std::{mem, time::Duration};

use super::{
    Action, EndReason, LifeLimits, Phase, Runner, Stage, State, backoff::Failure, runner::Removing,
};
use crate::model::{Cause, Instant, JobKey, Moment};

/// Runners whose deadline is handled in one tick, so that no tick takes long.
const AT_ONCE_MAX: usize = 500;
/// How many runners of a pool in a row may exit with code 0 without an event about a job before
/// the pool is paused. Events about a short job often arrive after its runner's exit.
const UNEXPLAINED_EXITS_MAX: u32 = 20;
/// How long a removed runner is remembered: a survey may be older than its removal.
const GONE: Duration = Duration::from_secs(600);

impl State {
    pub(super) fn insert_runner(&mut self, runner: Runner) {
        let (lane, phase, name) = (runner.lane.clone(), runner.phase.clone(), runner.name.clone());
        self.runners.insert(name, runner);
        self.count(lane.as_ref(), &phase, true);
    }

    pub(super) fn set_phase(&mut self, name: &str, phase: Phase, now: Moment) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        let old = mem::replace(&mut runner.phase, phase.clone());
        if !old.same_as(&phase) {
            runner.since = now;
        }
        let lane = runner.lane.clone();
        self.count(lane.as_ref(), &old, false);
        self.count(lane.as_ref(), &phase, true);
    }

    pub(super) fn set_deadline(&mut self, name: &str, deadline: Option<Instant>) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        if let Some(old) = mem::replace(&mut runner.deadline, deadline) {
            self.deadlines.remove(&(old, name.to_owned()));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, name.to_owned()));
        }
    }

    fn set_deadline_in(&mut self, name: &str, ms: u64, now: Moment) {
        self.set_deadline(name, Some(now.instant + Duration::from_millis(ms)));
    }

    pub(super) fn limits(&self, name: &str) -> LifeLimits {
        self.runners.get(name).and_then(|runner| runner.lane.as_ref()).map_or(
            // Its pool is no longer configured: it may finish its job, but not wait for one.
            LifeLimits {
                provisioning_ms: 60_000,
                starting_ms: 60_000,
                idle_ms: 0,
                job_ms: u64::MAX / 2,
            },
            |(pool, _)| self.pool(*pool).limits,
        )
    }

    // Launch

    pub(super) fn progress(&mut self, name: &str, stage: Stage, now: Moment) {
        if let Some(Runner { phase: Phase::Provisioning(_), .. }) = self.runners.get(name) {
            self.set_phase(name, Phase::Provisioning(stage), now);
        }
    }

    pub(super) fn registered(&mut self, name: &str, id: u64, actions: &mut Vec<Action>) {
        if let Some(runner) = self.runners.get_mut(name)
            && runner.registration_id != Some(id)
        {
            runner.registration_id = Some(id);
            actions.push(Action::Record(name.to_owned()));
        }
    }

    pub(super) fn launched(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if let Some(lane) = &runner.lane {
            self.backoffs.launched(self.dependencies(lane), runner.created.instant);
        }
        if matches!(runner.phase, Phase::Provisioning(_)) {
            self.set_phase(name, Phase::Starting, now);
            self.set_deadline_in(name, self.limits(name).starting_ms, now);
            actions.push(Action::Record(name.to_owned()));
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        name: &str,
        failure: LaunchFailure,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(Runner { phase: Phase::Provisioning(_), .. }) = self.runners.get(name) else {
            return;
        };
        let LaunchFailure { cause, message, retry_after_ms, may_exist } = failure;
        self.failed(name, cause, message, Duration::from_millis(retry_after_ms), now);
        self.start_removal(name, EndReason::LaunchFailed(cause), !may_exist, now, actions);
    }

    fn failed(
        &mut self,
        name: &str,
        cause: Cause,
        message: String,
        retry_after: Duration,
        now: Moment,
    ) {
        let Some(Runner { lane: Some(lane), created, .. }) = self.runners.get(name) else {
            return;
        };
        let failure = Failure {
            needs: self.dependencies(lane),
            cause,
            message,
            launched_at: created.instant,
            retry_after,
        };
        let jitter = (self.random.next() % 1024) as u32;
        self.backoffs.failed(failure, now, jitter);
    }

    // Work

    pub(super) fn runner_idle(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        self.mark_healthy(name);
        if self.runners.get(name).is_some_and(|runner| self.is_draining(runner)) {
            self.start_removal(name, EndReason::Drained, false, now, actions);
            return;
        }
        self.set_phase(name, Phase::Idle, now);
        self.set_deadline_in(name, self.limits(name).idle_ms, now);
        actions.push(Action::Record(name.to_owned()));
    }

    /// GitHub no longer lists an idle runner as online. Until it is back it can take no job,
    /// and it has the time limit of a start for that.
    pub(super) fn runner_lost(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        self.set_phase(name, Phase::Starting, now);
        self.set_deadline_in(name, self.limits(name).starting_ms, now);
        actions.push(Action::Record(name.to_owned()));
    }

    pub(super) fn runner_busy(
        &mut self,
        name: &str,
        job: Option<JobKey>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        let mut changed = false;
        if runner.job.is_none() && job.is_some() {
            runner.job = job;
            changed = true;
        }
        match runner.phase {
            // A removal goes on: GitHub refuses it if the runner really is busy.
            Phase::Busy | Phase::Removing(_) => {}
            Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                self.set_phase(name, Phase::Busy, now);
                self.set_deadline_in(name, self.limits(name).job_ms, now);
                changed = true;
            }
        }
        if changed {
            self.mark_healthy(name);
            actions.push(Action::Record(name.to_owned()));
        }
    }

    /// The runner reached GitHub, so its pool's image works.
    pub(super) fn mark_healthy(&mut self, name: &str) {
        if let Some(Runner { lane: Some((pool, _)), .. }) = self.runners.get(name) {
            self.unexplained_exits[*pool] = 0;
            self.backoffs.healthy(*pool);
        }
    }

    /// Like [`Self::mark_healthy`], for a runner that may already be forgotten: its job was so
    /// short that the `in_progress` event arrives after its exit.
    pub(super) fn mark_healthy_by_name(&mut self, name: &str) {
        if let Some(pool) = self.pool_of_runner(name) {
            self.unexplained_exits[pool] = 0;
            self.backoffs.healthy(pool);
        }
    }

    /// The pool that launched a runner, by its name. `None` if it is somebody else's.
    pub(super) fn pool_of_runner(&self, name: &str) -> Option<usize> {
        let rest = name.strip_prefix(&self.settings.instance)?.strip_prefix('-')?;
        let (pool, _) = rest.rsplit_once('-')?;
        self.settings.pools.iter().position(|it| it.name == pool)
    }

    // Exit

    pub(super) fn container_exited(
        &mut self,
        name: &str,
        exit_code: i64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        match &runner.phase {
            Phase::Removing(removing) => {
                let removing = Removing { stopped: true, ..removing.clone() };
                self.set_phase(name, Phase::Removing(removing), now);
            }
            Phase::Busy => {
                let reason =
                    if exit_code == 0 { EndReason::Done } else { EndReason::Exited { exit_code } };
                self.start_removal(name, reason, true, now, actions);
            }
            Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                self.exited_unused(name, exit_code, now);
                self.start_removal(name, EndReason::Unused { exit_code }, true, now, actions);
            }
        }
    }

    fn exited_unused(&mut self, name: &str, exit_code: i64, now: Moment) {
        if exit_code == 0
            && let Some(Runner { lane: Some(key), .. }) = self.runners.get(name)
        {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.unexplained_exit = Some(now.instant);
            }
            let exits = &mut self.unexplained_exits[key.0];
            *exits += 1;
            if *exits <= UNEXPLAINED_EXITS_MAX {
                return;
            }
        }
        let (cause, hint) = match exit_code {
            // The runner's own code for a version that GitHub no longer accepts.
            7 => (
                Cause::RunnerTooOld,
                ": the runner in the image is too old for GitHub; use a newer image",
            ),
            _ => (Cause::RunnerExited, " without taking a job; see its log"),
        };
        let message = format!("the runner exited with code {exit_code}{hint}");
        self.failed(name, cause, message, Duration::ZERO, now);
    }

    // Time

    pub(super) fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for _ in 0..AT_ONCE_MAX {
            match self.deadlines.first() {
                Some((at, name)) if *at <= now.instant => {
                    let name = name.clone();
                    self.set_deadline(&name, None);
                    self.deadline_passed(&name, now, actions);
                }
                _ => break,
            }
        }
        self.remove_drained(now, actions);
        self.forget_old_jobs(now.instant, actions);
        while let Some((at, _)) = self.gone_by_age.front()
            && *at + GONE <= now.instant
        {
            if let Some((_, name)) = self.gone_by_age.pop_front() {
                self.gone.remove(&name);
            }
        }
        self.look_up(now.instant, actions);
        self.look_up_job(now.instant, actions);
    }

    fn deadline_passed(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        match &runner.phase {
            Phase::Provisioning(_) => {
                let message = "the launch took too long".into();
                self.failed(name, Cause::TimedOut, message, Duration::ZERO, now);
                self.start_removal(name, EndReason::LaunchTimedOut, false, now, actions);
            }
            Phase::Starting => {
                let message = "the runner did not come online in time; see its log".into();
                self.failed(name, Cause::NeverOnline, message, Duration::ZERO, now);
                self.start_removal(name, EndReason::NeverOnline, false, now, actions);
            }
            Phase::Idle => {
                let surplus = runner.lane.as_ref().is_none_or(|lane| self.surplus(lane));
                if surplus {
                    self.start_removal(name, EndReason::IdleTooLong, false, now, actions);
                } else {
                    self.set_deadline_in(name, self.limits(name).idle_ms.max(1_000), now);
                }
            }
            Phase::Busy if runner.finished => {
                self.start_removal(name, EndReason::DidNotEnd, false, now, actions);
            }
            Phase::Busy => self.start_removal(name, EndReason::JobTooLong, false, now, actions),
            Phase::Removing(_) => self.remove_again(name, actions),
        }
    }
}

/// What a failed launch reports.
pub(super) struct LaunchFailure {
    pub(super) cause: Cause,
    pub(super) message: String,
    /// Zero unless GitHub asked to wait.
    pub(super) retry_after_ms: u64,
    /// Whether a container may exist.
    pub(super) may_exist: bool,
}
