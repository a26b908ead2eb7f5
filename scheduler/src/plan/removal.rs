//! Removing a runner: by a limit, a drain or an operator, and after its exit.

use std::time::Duration;

use super::{
    Action, EndReason, FINISHING, Phase, Removal, Runner, State,
    runner::{RegistrationState, Removing},
};
use crate::model::{Cause, Instant, Moment};

/// Drained runners that are removed at one event, so that no event takes long.
const AT_ONCE_MAX: usize = 500;
const RETRY: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long after its runner's exit the `completed` event of a job may arrive, and how long
/// after an abandoned call a registration may appear: GitHub ends a call after 10 s.
const CONFIRM: Duration = Duration::from_secs(60);

impl State {
    /// [`super::Event::Removed`] ends the removal. `stopped`: no container runs any more.
    pub(super) fn start_removal(
        &mut self,
        name: &str,
        reason: EndReason,
        stopped: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let job = self.runners.get(name).and_then(|runner| runner.job);
        let registered = self.runners.get(name).is_some_and(|it| it.registration_id.is_some());
        let registration = match reason {
            EndReason::Done if job.is_some() => RegistrationState::Gone,
            EndReason::LaunchTimedOut
            | EndReason::LaunchFailed(Cause::GitHubUnavailable | Cause::TimedOut)
                if !registered =>
            {
                RegistrationState::Possible
            }
            _ => RegistrationState::There,
        };
        let removing = Removing { reason, stopped, attempts: 0, registration };
        self.set_phase(name, Phase::Removing(removing), now);
        self.set_deadline(name, None);
        self.request_removal(name, actions);
        if stopped && let Some(job) = job {
            self.presume_over(job, now.instant);
        }
    }

    pub(super) fn remove_again(&mut self, name: &str, actions: &mut Vec<Action>) {
        if let Some(Runner { phase: Phase::Removing(removing), .. }) = self.runners.get_mut(name)
            && removing.registration == RegistrationState::Unconfirmed
        {
            removing.registration = RegistrationState::There;
        }
        self.request_removal(name, actions);
    }

    fn request_removal(&self, name: &str, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            return;
        };
        actions.push(Action::Record(name.to_owned()));
        actions.push(Action::Remove(Removal {
            runner: name.to_owned(),
            pool: runner.pool.clone(),
            target: runner.target.clone(),
            registration_id: runner.registration_id,
            deregister: removing.registration.needs_removal(),
            force: removing.reason.ends_its_job(),
            keep_logs: removing.reason.is_failure(),
        }));
    }

    pub(super) fn removed(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if let Phase::Removing(removing) = &runner.phase
            && removing.registration != RegistrationState::There
            && !runner.finished
        {
            // Exit code 0 does not prove that the job ran to its end.
            if matches!(
                removing.registration,
                RegistrationState::Gone | RegistrationState::Possible
            ) {
                let registration = RegistrationState::Unconfirmed;
                let removing = Removing { stopped: true, registration, ..removing.clone() };
                self.set_phase(name, Phase::Removing(removing), now);
                self.set_deadline(name, Some(now.instant + CONFIRM));
            }
            return;
        }
        self.forget(name, now, actions);
    }

    /// Its job is completed, as its exit suggested.
    pub(super) fn confirmed(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        if let Some(Runner { phase: Phase::Removing(removing), .. }) = self.runners.get(name)
            && removing.registration == RegistrationState::Unconfirmed
        {
            self.forget(name, now, actions);
        }
    }

    fn forget(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        self.set_deadline(name, None);
        let Some(runner) = self.runners.remove(name) else {
            return;
        };
        self.count(runner.lane.as_ref(), &runner.phase, false);
        if let Some(job) = runner.job {
            self.presume_over(job, now.instant);
        }
        if self.gone.insert(name.to_owned(), now.instant).is_none() {
            self.gone_by_age.push_back((now.instant, name.to_owned()));
        }
        let reason = match &runner.phase {
            Phase::Removing(removing) => removing.reason,
            _ => EndReason::Vanished,
        };
        actions.push(Action::Forget(Box::new(runner), reason));
    }

    pub(super) fn removal_refused(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            return;
        };
        if removing.stopped || removing.reason.ends_its_job() {
            // GitHub refuses until it notices that the runner is gone.
            self.retry_removal(name, now.instant);
            return;
        }
        let allowed = match runner.finished {
            true => FINISHING,
            false => Duration::from_millis(self.limits(name).job_ms),
        };
        self.set_phase(name, Phase::Busy, now);
        self.set_deadline(name, Some(now.instant + allowed));
        self.mark_healthy(name);
        actions.push(Action::Record(name.to_owned()));
    }

    pub(super) fn retry_removal(&mut self, name: &str, now: Instant) {
        let Some(Runner { phase: Phase::Removing(removing), .. }) = self.runners.get_mut(name)
        else {
            return;
        };
        let wait = (RETRY * (1 << removing.attempts.min(10))).min(RETRY_LONGEST);
        removing.attempts = removing.attempts.saturating_add(1);
        self.set_deadline(name, Some(now + wait));
    }

    /// At an operator's request. A launch in flight may still create a container, so it has to
    /// end first.
    pub(super) fn remove_runner(
        &mut self,
        name: &str,
        force: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let reason = if force { EndReason::RemovedByForce } else { EndReason::Removed };
        match self.runners.get(name).map(|runner| &runner.phase) {
            Some(Phase::Starting | Phase::Idle) => {
                self.start_removal(name, reason, false, now, actions);
            }
            Some(Phase::Busy) if force => self.start_removal(name, reason, false, now, actions),
            Some(Phase::Provisioning(_) | Phase::Busy | Phase::Removing(_)) | None => {}
        }
    }

    pub(super) fn drain(
        &mut self,
        pool: Option<usize>,
        draining: bool,
        now: Moment,
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
        self.remove_drained(now, actions);
    }

    pub(super) fn is_draining(&self, runner: &Runner) -> bool {
        self.draining || runner.lane.as_ref().is_some_and(|(pool, _)| self.pool_draining(*pool))
    }

    /// Removes idle runners of draining pools.
    pub(super) fn remove_drained(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.draining && self.draining_pools.is_empty() || self.counts.idle == 0 {
            return;
        }
        let idle: Vec<String> = self
            .runners
            .values()
            .filter(|runner| runner.phase == Phase::Idle && self.is_draining(runner))
            .take(AT_ONCE_MAX)
            .map(|runner| runner.name.clone())
            .collect();
        for name in idle {
            self.start_removal(&name, EndReason::Drained, false, now, actions);
        }
    }
}
