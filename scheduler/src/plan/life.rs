//! A runner's way through its phases. Every launch ends in [`Action::Forget`].

use std::mem;

use super::{
    Action, EndReason, FINISHING_MS, LifeLimits, Phase, Removal, Runner, Stage, State,
    backoff::Failure,
    runner::{RegistrationState, Removing},
};
use crate::model::{Cause, JobKey, UnixMs};

/// Runners whose time is up or who are sent away at one event, so that none takes long.
const AT_ONCE_MAX: usize = 500;
const REMOVAL_RETRY_MS: u64 = 5_000;
const REMOVAL_RETRY_LONGEST_MS: u64 = 300_000;
/// The news that a job is completed may come this long after its runner's end, and a
/// registration this long after the call for it was given up: GitHub ends one after 10 s.
const CONFIRM_MS: u64 = 60_000;
/// So many runners of a pool in a row may end well without any news of a job: news
/// of a short job often come later than its runner's end.
const UNEXPLAINED_EXITS_MAX: u32 = 20;
/// A survey that was taken before a runner's end may come this long after it.
const GONE_MS: u64 = 600_000;

impl State {
    pub(super) fn insert_runner(&mut self, runner: Runner) {
        let (lane, phase, name) = (runner.lane.clone(), runner.phase.clone(), runner.name.clone());
        self.runners.insert(name, runner);
        self.count(lane.as_ref(), &phase, true);
    }

    pub(super) fn set_phase(&mut self, name: &str, phase: Phase, now: UnixMs) {
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

    pub(super) fn set_deadline(&mut self, name: &str, deadline: Option<UnixMs>) {
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

    pub(super) fn limits(&self, name: &str) -> LifeLimits {
        self.runners.get(name).and_then(|runner| runner.lane.as_ref()).map_or(
            // Its pool is no longer configured: let it finish, keep none waiting.
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

    pub(super) fn progress(&mut self, name: &str, stage: Stage, now: UnixMs) {
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

    pub(super) fn launched(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if let Some(lane) = &runner.lane {
            self.backoffs.launched(lane, self.credential_at(lane), runner.created_at);
        }
        if matches!(runner.phase, Phase::Provisioning(_)) {
            self.set_phase(name, Phase::Starting, now);
            self.set_deadline(name, Some(now.saturating_add(self.limits(name).starting_ms)));
            actions.push(Action::Record(name.to_owned()));
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        name: &str,
        why: LaunchFailure,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let Some(Runner { phase: Phase::Provisioning(_), .. }) = self.runners.get(name) else {
            return;
        };
        let LaunchFailure { cause, message, retry_after_ms, may_run } = why;
        self.failed(name, cause, message, retry_after_ms, now);
        self.leave(name, EndReason::LaunchFailed(cause), !may_run, now, actions);
    }

    fn failed(&mut self, name: &str, cause: Cause, message: String, wait_ms: u64, now: UnixMs) {
        let Some(Runner { lane: Some(lane), created_at, .. }) = self.runners.get(name) else {
            return;
        };
        let failure = Failure {
            lane,
            credential: self.credential_at(lane),
            cause,
            message,
            launched_at: *created_at,
            retry_after_ms: wait_ms,
        };
        self.backoffs.failed(failure, now, self.random.next() % 1024);
    }

    // Work

    pub(super) fn runner_idle(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        self.mark_healthy(name);
        if self.runners.get(name).is_some_and(|runner| self.drains(runner)) {
            self.leave(name, EndReason::Drained, false, now, actions);
            return;
        }
        self.set_phase(name, Phase::Idle, now);
        self.set_deadline(name, Some(now.saturating_add(self.limits(name).idle_ms)));
        actions.push(Action::Record(name.to_owned()));
    }

    /// GitHub does not see an idle runner any more. It serves no job until it is
    /// back, and has the time of a start for that.
    pub(super) fn runner_lost(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        self.set_phase(name, Phase::Starting, now);
        self.set_deadline(name, Some(now.saturating_add(self.limits(name).starting_ms)));
        actions.push(Action::Record(name.to_owned()));
    }

    pub(super) fn runner_busy(
        &mut self,
        name: &str,
        job: Option<JobKey>,
        now: UnixMs,
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
            // One that is being removed stays so: GitHub refuses if it really is busy.
            Phase::Busy | Phase::Removing(_) => {}
            Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                self.set_phase(name, Phase::Busy, now);
                self.set_deadline(name, Some(now.saturating_add(self.limits(name).job_ms)));
                changed = true;
            }
        }
        if changed {
            self.mark_healthy(name);
            actions.push(Action::Record(name.to_owned()));
        }
    }

    /// The runner reached GitHub, so its pool's image works.
    fn mark_healthy(&mut self, name: &str) {
        if let Some(Runner { lane: Some((pool, _)), .. }) = self.runners.get(name) {
            self.unexplained_exits[*pool] = 0;
            self.backoffs.healthy(*pool);
        }
    }

    /// The same for a runner that may be forgotten already: its job was so short
    /// that the news of its start come after its end.
    pub(super) fn mark_healthy_by_name(&mut self, name: &str) {
        let pool = name
            .strip_prefix(&self.settings.instance)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.rsplit_once('-'))
            .and_then(|(pool, _)| self.settings.pools.iter().position(|p| p.name == pool));
        if let Some(pool) = pool {
            self.unexplained_exits[pool] = 0;
            self.backoffs.healthy(pool);
        }
    }

    // End

    pub(super) fn container_exited(
        &mut self,
        name: &str,
        exit_code: i64,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        match &runner.phase {
            Phase::Removing(leaving) => {
                let leaving = Removing { stopped: true, ..leaving.clone() };
                self.set_phase(name, Phase::Removing(leaving), now);
            }
            Phase::Busy => {
                let why =
                    if exit_code == 0 { EndReason::Done } else { EndReason::Exited { exit_code } };
                self.leave(name, why, true, now, actions);
            }
            Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                self.ended_unused(name, exit_code, now);
                self.leave(name, EndReason::Unused { exit_code }, true, now, actions);
            }
        }
    }

    fn ended_unused(&mut self, name: &str, exit_code: i64, now: UnixMs) {
        if exit_code == 0
            && let Some(Runner { lane: Some(key), .. }) = self.runners.get(name)
        {
            if let Some(lane) = self.lanes.get_mut(key) {
                lane.unexplained_exit = Some(now);
            }
            let ends = &mut self.unexplained_exits[key.0];
            *ends += 1;
            if *ends <= UNEXPLAINED_EXITS_MAX {
                return;
            }
        }
        let (cause, hint) = match exit_code {
            // The runner's own code for a version that GitHub no longer accepts.
            7 => (
                Cause::RunnerTooOld,
                ": the image's runner is too old for GitHub, take a newer image",
            ),
            _ => (Cause::RunnerExited, " without having taken a job; see its log"),
        };
        let message = format!("the runner exited with code {exit_code}{hint}");
        self.failed(name, cause, message, 0, now);
    }

    /// Starts a runner's removal; [`super::Event::Removed`] ends it.
    pub(super) fn leave(
        &mut self,
        name: &str,
        why: EndReason,
        stopped: bool,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let job = self.runners.get(name).and_then(|runner| runner.job);
        let registered = self.runners.get(name).is_some_and(|it| it.registration_id.is_some());
        let registration = match why {
            EndReason::Done if job.is_some() => RegistrationState::Gone,
            EndReason::LaunchTimedOut
            | EndReason::LaunchFailed(Cause::GitHubUnavailable | Cause::TimedOut)
                if !registered =>
            {
                RegistrationState::Possible
            }
            _ => RegistrationState::There,
        };
        let leaving = Removing { why, stopped, attempts: 0, registration };
        self.set_phase(name, Phase::Removing(leaving), now);
        self.set_deadline(name, None);
        self.remove(name, actions);
        if stopped && let Some(job) = job {
            self.job_over(job, now);
        }
    }

    fn remove_again(&mut self, name: &str, actions: &mut Vec<Action>) {
        if let Some(Runner { phase: Phase::Removing(leaving), .. }) = self.runners.get_mut(name)
            && leaving.registration == RegistrationState::Unconfirmed
        {
            leaving.registration = RegistrationState::There;
        }
        self.remove(name, actions);
    }

    fn remove(&self, name: &str, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(leaving) = &runner.phase else {
            return;
        };
        actions.push(Action::Record(name.to_owned()));
        actions.push(Action::Remove(Removal {
            runner: name.to_owned(),
            pool: runner.pool.clone(),
            target: runner.target.clone(),
            registration_id: runner.registration_id,
            deregister: leaving.registration.to_be_removed(),
            force: leaving.why.ends_its_job(),
            keep_logs: leaving.why.is_failure(),
        }));
    }

    pub(super) fn removed(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if let Phase::Removing(leaving) = &runner.phase
            && leaving.registration != RegistrationState::There
            && !runner.finished
        {
            // Exit code 0 does not prove that a job ran to its end.
            if matches!(leaving.registration, RegistrationState::Gone | RegistrationState::Possible)
            {
                let registration = RegistrationState::Unconfirmed;
                let leaving = Removing { stopped: true, registration, ..leaving.clone() };
                self.set_phase(name, Phase::Removing(leaving), now);
                self.set_deadline(name, Some(now.saturating_add(CONFIRM_MS)));
            }
            return;
        }
        self.forget(name, now, actions);
    }

    /// Its job is completed, as its end made presume.
    pub(super) fn confirmed(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        if let Some(Runner { phase: Phase::Removing(leaving), .. }) = self.runners.get(name)
            && leaving.registration == RegistrationState::Unconfirmed
        {
            self.forget(name, now, actions);
        }
    }

    fn forget(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        self.set_deadline(name, None);
        let Some(runner) = self.runners.remove(name) else {
            return;
        };
        self.count(runner.lane.as_ref(), &runner.phase, false);
        if let Some(job) = runner.job {
            self.job_over(job, now);
        }
        if self.gone.insert(name.to_owned(), now).is_none() {
            self.gone_by_age.push_back((now, name.to_owned()));
        }
        let why = match &runner.phase {
            Phase::Removing(leaving) => leaving.why,
            _ => EndReason::Vanished,
        };
        actions.push(Action::Forget(Box::new(runner), why));
    }

    pub(super) fn removal_refused(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(leaving) = &runner.phase else {
            return;
        };
        if leaving.stopped || leaving.why.ends_its_job() {
            // GitHub will notice that the runner is gone; until then it refuses.
            self.retry_removal(name, now);
            return;
        }
        let allowed = if runner.finished { FINISHING_MS } else { self.limits(name).job_ms };
        self.set_phase(name, Phase::Busy, now);
        self.set_deadline(name, Some(now.saturating_add(allowed)));
        self.mark_healthy(name);
        actions.push(Action::Record(name.to_owned()));
    }

    pub(super) fn retry_removal(&mut self, name: &str, now: UnixMs) {
        let Some(Runner { phase: Phase::Removing(leaving), .. }) = self.runners.get_mut(name)
        else {
            return;
        };
        let wait = (REMOVAL_RETRY_MS << leaving.attempts.min(10)).min(REMOVAL_RETRY_LONGEST_MS);
        leaving.attempts = leaving.attempts.saturating_add(1);
        self.set_deadline(name, Some(now.saturating_add(wait)));
    }

    // Time

    pub(super) fn tick(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        for _ in 0..AT_ONCE_MAX {
            match self.deadlines.first() {
                Some((at, name)) if *at <= now => {
                    let name = name.clone();
                    self.set_deadline(&name, None);
                    self.time_is_up(&name, now, actions);
                }
                _ => break,
            }
        }
        self.send_idle_away(now, actions);
        self.forget_old_jobs(now);
        while let Some((at, _)) = self.gone_by_age.front()
            && at.saturating_add(GONE_MS) <= now
        {
            if let Some((_, name)) = self.gone_by_age.pop_front() {
                self.gone.remove(&name);
            }
        }
        self.look_up(now, actions);
        self.look_up_job(now, actions);
    }

    fn time_is_up(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        match &runner.phase {
            Phase::Provisioning(_) => {
                self.failed(name, Cause::TimedOut, "the launch took too long".into(), 0, now);
                self.leave(name, EndReason::LaunchTimedOut, false, now, actions);
            }
            Phase::Starting => {
                let message = "the runner did not come online in time; see its log".into();
                self.failed(name, Cause::NeverOnline, message, 0, now);
                self.leave(name, EndReason::NeverOnline, false, now, actions);
            }
            Phase::Idle => {
                let surplus = runner.lane.as_ref().is_none_or(|lane| self.surplus(lane));
                if surplus {
                    self.leave(name, EndReason::IdleTooLong, false, now, actions);
                } else {
                    let again = self.limits(name).idle_ms.max(1_000);
                    self.set_deadline(name, Some(now.saturating_add(again)));
                }
            }
            Phase::Busy if runner.finished => {
                self.leave(name, EndReason::DidNotEnd, false, now, actions);
            }
            Phase::Busy => self.leave(name, EndReason::JobTooLong, false, now, actions),
            Phase::Removing(_) => self.remove_again(name, actions),
        }
    }

    /// A launch under way may yet make a container, so it has to end first.
    pub(super) fn remove_runner(
        &mut self,
        name: &str,
        force: bool,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let why = if force { EndReason::RemovedByForce } else { EndReason::Removed };
        match self.runners.get(name).map(|runner| &runner.phase) {
            Some(Phase::Starting | Phase::Idle) => self.leave(name, why, false, now, actions),
            Some(Phase::Busy) if force => self.leave(name, why, false, now, actions),
            Some(Phase::Provisioning(_) | Phase::Busy | Phase::Removing(_)) | None => {}
        }
    }

    pub(super) fn drain(
        &mut self,
        pool: Option<usize>,
        draining: bool,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        match pool {
            Some(pool) if draining => drop(self.draining_pools.insert(pool)),
            Some(pool) => drop(self.draining_pools.remove(&pool)),
            None => {
                self.draining = draining;
                if !draining {
                    self.draining_pools.clear();
                }
            }
        }
        self.send_idle_away(now, actions);
    }

    fn drains(&self, runner: &Runner) -> bool {
        self.draining || runner.lane.as_ref().is_some_and(|(pool, _)| self.pool_draining(*pool))
    }

    fn send_idle_away(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if !self.draining && self.draining_pools.is_empty() || self.counts.idle == 0 {
            return;
        }
        let unused: Vec<String> = self
            .runners
            .values()
            .filter(|runner| runner.phase == Phase::Idle && self.drains(runner))
            .take(AT_ONCE_MAX)
            .map(|runner| runner.name.clone())
            .collect();
        for name in unused {
            self.leave(&name, EndReason::Drained, false, now, actions);
        }
    }
}

pub(super) struct LaunchFailure {
    pub(super) cause: Cause,
    pub(super) message: String,
    pub(super) retry_after_ms: u64,
    pub(super) may_run: bool,
}
