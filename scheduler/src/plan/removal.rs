//! Removing a runner: by a limit, a drain or an operator, and after its exit.
//!
//! The registration goes first, because GitHub refuses to remove that of a busy runner; then
//! the container. Once nothing runs any more, the container goes first. Any other refusal of
//! GitHub says nothing about the runner, so the removal goes on without the registration after
//! a limit.

use std::time::Duration;

use super::{
    Action, EndReason, Gate, Phase, Removal, RemovalFailure, Runner, Stage, State,
    allowance::Request,
    backoff::Problem,
    credential_for,
    demand::count_unreachable,
    runner::{Attempt, ContainerState, Refusal, RefusalKind, RegistrationState, Removing},
};
use crate::model::{Cause, Instant, Moment, ServerTarget};

/// The longest time from the start of a removal until the runner's place is free, provided that
/// Docker removes the container.
pub const REMOVAL_MAX: Duration = Duration::from_secs(45 * 60);
/// How long a removal waits for GitHub while it refuses to remove the registration, other than
/// because the runner is busy.
pub const REFUSED_MAX: Duration = Duration::from_secs(60);
/// How long a removal waits for GitHub while it does not answer, or limits requests.
pub const UNANSWERED_MAX: Duration = Duration::from_secs(10 * 60);
/// How long GitHub may consider a runner busy that does not run any more.
pub const BUSY_MAX: Duration = Duration::from_secs(30 * 60);
/// How long Docker may fail to remove a container that does not run any more.
pub const CONTAINER_MAX: Duration = Duration::from_secs(60 * 60);
/// An attempt of which nothing is heard for this long is repeated. The executor ends each one
/// sooner, unless the pool's grace period is longer.
const ATTEMPT_MAX: Duration = Duration::from_secs(15 * 60);

/// Drained runners that are removed at one event, so that no event takes long.
const AT_ONCE_MAX: usize = 500;
const RETRY: Duration = Duration::from_secs(5);
const RETRY_LONGEST: Duration = Duration::from_secs(300);
/// How long after its runner's exit the `completed` event of a job may arrive, and how long
/// after an abandoned call a registration may appear: GitHub ends a call after 10 s.
const CONFIRM: Duration = Duration::from_secs(60);
/// How long after its creation an earlier planner may still register a runner. A process that is
/// stopped in the middle of a call for longer has lost the connection.
const LATE_REGISTRATION: Duration = Duration::from_secs(5 * 60);

impl RefusalKind {
    /// How long after the start of its removal a runner ends without GitHub's consent.
    fn limit(self) -> Duration {
        match self {
            Self::Busy => BUSY_MAX,
            Self::Refused => REFUSED_MAX,
            Self::Unanswered => UNANSWERED_MAX,
        }
    }
}

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
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let registration = match reason {
            EndReason::Done if runner.job.is_some() => RegistrationState::Gone,
            // An earlier planner may have been stopped in the middle of the call, and go on later.
            EndReason::Vanished
                if runner.registration_id.is_none()
                    && self.settings.term.is_some()
                    && now.instant < runner.created.instant + LATE_REGISTRATION =>
            {
                RegistrationState::Possible
            }
            _ => registration_after(reason, runner),
        };
        // A launch that failed before its container was requested.
        let container = match reason {
            EndReason::LaunchFailed(_) if stopped => ContainerState::Removed,
            _ => ContainerState::There,
        };
        let job = runner.job;
        let removing = Removing {
            launching: runner.phase.launch_stage().is_some(),
            parked: matches!(runner.phase, Phase::Parking(_) | Phase::Parked { .. }),
            job_deadline: runner.deadline.filter(|_| runner.phase == Phase::Busy),
            ..Removing::new(reason, stopped, registration, container)
        };
        if stopped {
            self.regained_contact(name);
        }
        self.set_phase(name, Phase::Removing(removing), now);
        self.set_deadline(name, None);
        self.continue_removal(name, now, actions);
        if stopped && let Some(job) = job {
            self.presume_over(job, now.instant);
        }
    }

    /// The deadline of a removal has passed: an attempt is due, or nothing was heard of one.
    pub(super) fn remove_again(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        if let Some(removing) = self.removing_mut(name) {
            if let Some(attempt) = removing.attempt.take() {
                removing.attempts = removing.attempts.saturating_add(1);
                removing.is_unheard_of(attempt);
            }
            if removing.registration == RegistrationState::Unconfirmed {
                removing.registration = RegistrationState::There;
            }
        }
        self.continue_removal(name, now, actions);
    }

    fn removing_mut(&mut self, name: &str) -> Option<&mut Removing> {
        match &mut self.runners.get_mut(name)?.phase {
            Phase::Removing(removing) => Some(removing),
            _ => None,
        }
    }

    /// Requests what is left to remove, waits, or ends the runner.
    pub(super) fn continue_removal(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            return;
        };
        let (began, finished) = (runner.since.instant, runner.finished);
        let age = now.instant.duration_since(began);
        let mut removing = removing.clone();
        let mut paused = None;
        if removing.registration.needs_removal() {
            paused = self.deregistration_paused(&runner.target, removing.registration, now.instant);
            if let Some((_, refusal)) = &paused {
                removing.refusal.get_or_insert_with(|| refusal.clone());
            }
            if removing.refusal.as_ref().is_some_and(|refusal| refusal.kind.limit() <= age) {
                removing.registration = RegistrationState::Left;
            }
        }
        if removing.container_problem.is_some() && removing.stopped && CONTAINER_MAX <= age {
            removing.container = ContainerState::Left;
        }
        let registered = removing.registration.needs_removal();
        let deregister = registered && paused.is_none();
        let container = removing.container == ContainerState::There
            && (deregister || !registered || removing.container_first());
        if deregister || container {
            let (container_first, began) = (removing.container_first(), now.instant);
            let attempt = Attempt { registration: deregister, container, container_first, began };
            removing.attempt = Some(attempt);
            self.set_phase(name, Phase::Removing(removing), now);
            self.set_deadline(name, Some(now.instant + ATTEMPT_MAX));
            self.request_removal(name, attempt, actions);
            return;
        }
        let registration = removing.registration;
        let refusal = removing.refusal.as_ref().map(|refusal| refusal.kind);
        self.set_phase(name, Phase::Removing(removing), now);
        match registration {
            // At the limit of the refusal at the latest.
            RegistrationState::There | RegistrationState::Possible => {
                let until = paused.map_or(now.instant, |(until, _)| until);
                let limit = refusal.map_or(now.instant, |kind| began + kind.limit());
                let soonest = now.instant + RETRY;
                self.set_deadline(name, Some(until.min(limit).max(soonest)));
            }
            // Exit code 0 does not prove that the job ran to its end.
            RegistrationState::Gone if !finished => self.confirm_later(name, now),
            RegistrationState::Unconfirmed if !finished => {}
            _ => self.forget(name, now, actions),
        }
    }

    fn confirm_later(&mut self, name: &str, now: Moment) {
        if let Some(removing) = self.removing_mut(name) {
            removing.registration = RegistrationState::Unconfirmed;
        }
        self.set_deadline(name, Some(now.instant + CONFIRM));
    }

    /// Until when, and why, no request to remove a registration is sent at a target. A target
    /// that only fails gets few requests of any kind. Whether a registration is there that may
    /// not be is looked up only where registering works.
    fn deregistration_paused(
        &self,
        target: &ServerTarget,
        registration: RegistrationState,
        now: Instant,
    ) -> Option<(Instant, Refusal)> {
        let gate = self.best_gate(target, |it| self.backoffs.gate_of_requests(target, it, now));
        let backoff = match gate {
            Gate::Open => return None,
            Gate::OneAtATime(..) if registration == RegistrationState::There => return None,
            Gate::OneAtATime(_, backoff) | Gate::Closed(_, backoff) => backoff,
        };
        let kind = RefusalKind::for_cause(backoff.cause);
        Some((backoff.until, Refusal { kind, message: backoff.message.clone() }))
    }

    fn request_removal(&self, name: &str, attempt: Attempt, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            return;
        };
        if !removing.on_record_as_gone {
            actions.push(Action::Record(name.to_owned()));
        }
        actions.push(Action::Remove(Removal {
            runner: name.to_owned(),
            pool: runner.pool.clone(),
            provider: runner.provider,
            target: runner.target.clone(),
            registration_id: runner.registration_id,
            deregister: attempt.registration,
            container: attempt.container,
            container_first: attempt.container_first,
            force: removing.reason.ends_its_job(),
            attempts: removing.attempts,
            keep_logs: removing.reason.is_failure(),
        }));
    }

    /// Everything that the attempt under way was to remove is gone.
    pub(super) fn removed(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            self.forget(name, now, actions);
            return;
        };
        let mut removing = removing.clone();
        let Some(attempt) = removing.attempt.take() else {
            return;
        };
        let mut unconfirmed = false;
        if attempt.container {
            removing.container_is_removed();
        }
        if attempt.registration {
            unconfirmed = removing.deregistered();
            let target = runner.target.clone();
            self.backoffs.allowances.succeeded(&target);
        }
        removing.attempts = 0;
        let requests_more =
            removing.registration.needs_removal() || removing.container == ContainerState::There;
        self.set_phase(name, Phase::Removing(removing), now);
        if unconfirmed && !self.runners.get(name).is_some_and(|runner| runner.finished) {
            self.confirm_later(name, now);
        } else if requests_more {
            // At the next tick: this event may be repeated.
            self.set_deadline(name, Some(now.instant));
        } else {
            self.continue_removal(name, now, actions);
        }
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
        if runner.unreachable.is_some() {
            self.unreachable.count -= 1;
            count_unreachable(&mut self.lanes, runner.lane.as_ref(), &runner.phase, false);
        }
        self.count(runner.lane.as_ref(), runner.credential, &runner.phase, false);
        self.hold(runner.provider, runner.promised, &runner.phase, false);
        if let Some(job) = runner.job {
            self.presume_over(job, now.instant);
        }
        self.remember_as_gone(name, now.instant);
        let (reason, on_record) = match &runner.phase {
            Phase::Removing(removing) => {
                if removing.leaves_registration() {
                    self.left.insert(&runner.target, name, now.instant);
                }
                (removing.reason, removing.on_record_as_gone)
            }
            _ => (EndReason::Vanished, false),
        };
        self.forced.remove(name);
        self.devices.release(name);
        if !on_record {
            // Its last record says it all.
            actions.retain(|action| !matches!(action, Action::Record(record) if record == name));
            actions.push(Action::Forget(Box::new(runner), reason));
        }
    }

    /// For as long as Docker lists its container, and some time after.
    pub(super) fn remember_as_gone(&mut self, name: &str, now: Instant) {
        self.gone.insert(name.to_owned(), now);
        self.gone_by_age.push_back((now, name.to_owned()));
    }

    /// GitHub refuses because the runner is busy.
    pub(super) fn removal_refused(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Removing(removing) = &runner.phase else {
            return;
        };
        let Some(attempt) = removing.attempt else {
            return;
        };
        let may_be_busy = !removing.stopped && !removing.reason.ends_its_job() && !runner.finished;
        if may_be_busy {
            self.back_to_work(name, now, actions);
            self.mark_healthy(name);
            return;
        }
        let mut removing = removing.clone();
        if attempt.container && attempt.container_first {
            removing.container_is_removed();
        }
        // GitHub refuses until it notices that the runner is gone.
        let message = "GitHub considers the runner busy".into();
        removing.refusal = Some(Refusal { kind: RefusalKind::Busy, message });
        self.set_phase(name, Phase::Removing(removing), now);
        self.retry_removal(name, now.instant);
    }

    /// The runner works on a job, so it stays.
    fn back_to_work(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let allowed = Duration::from_millis(self.limits(name).job_ms);
        let deadline = self.removing_mut(name).and_then(|removing| removing.job_deadline);
        if let Some(runner) = self.runners.get_mut(name) {
            // GitHub would not keep it otherwise.
            runner.seen.offline = None;
        }
        self.set_phase(name, Phase::Busy, now);
        self.set_deadline(name, Some(deadline.unwrap_or(now.instant + allowed)));
        if let Some(lane) = self.runners.get(name).and_then(|runner| runner.lane.clone()) {
            self.picked_up_unknown(&lane, now.instant);
        }
        actions.push(Action::Record(name.to_owned()));
    }

    /// A runner took a job while its registration could not be removed: nothing but this
    /// keeps its container. Returns whether it is kept.
    pub(super) fn keep_if_undecided(
        &mut self,
        name: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> bool {
        let Some(removing) = self.removing_mut(name) else {
            return false;
        };
        let undecided = removing.refusal.is_some()
            && removing.registration.needs_removal()
            && !removing.stopped
            && !removing.reason.ends_its_job();
        if undecided {
            self.back_to_work(name, now, actions);
        }
        undecided
    }

    pub(super) fn removal_failed(&mut self, name: &str, failure: RemovalFailure, now: Moment) {
        let Some(Runner { phase: Phase::Removing(removing), target, .. }) = self.runners.get(name)
        else {
            return;
        };
        let RemovalFailure { deregistered, container_removed, cause, message, retry_after_ms } =
            failure;
        let (target, mut removing) = (target.clone(), removing.clone());
        let Some(attempt) = removing.attempt.take() else {
            return;
        };
        if container_removed {
            removing.container_is_removed();
        }
        let mut unconfirmed = false;
        if deregistered {
            unconfirmed = removing.deregistered();
        }
        match cause {
            Cause::DockerUnavailable | Cause::Container => {
                removing.container_problem = Some(message);
            }
            _ => {
                let kind = RefusalKind::for_cause(cause);
                removing.refusal = Some(Refusal { kind, message: message.clone() });
                let problem = Problem {
                    cause,
                    message,
                    began: attempt.began,
                    retry_after: Duration::from_millis(retry_after_ms),
                    credential: credential_for(&self.settings.credentials, &target),
                };
                self.backoffs.count_request(&target, Request::Removal, &problem, now.instant);
                let jitter = self.jitter();
                self.backoffs.failed_at(&target, problem, now, jitter);
            }
        }
        self.set_phase(name, Phase::Removing(removing), now);
        if unconfirmed && container_removed {
            self.confirm_later(name, now);
            return;
        }
        self.retry_removal(name, now.instant);
    }

    /// The next attempt is due after a growing wait, and at the latest when the runner ends
    /// without GitHub's consent.
    fn retry_removal(&mut self, name: &str, now: Instant) {
        let Some(Runner { phase: Phase::Removing(removing), since, .. }) =
            self.runners.get_mut(name)
        else {
            return;
        };
        removing.attempt = None;
        let wait = (RETRY * (1 << removing.attempts.min(10))).min(RETRY_LONGEST);
        removing.attempts = removing.attempts.saturating_add(1);
        let mut at = now + wait;
        if removing.registration.needs_removal()
            && let Some(refusal) = &removing.refusal
        {
            at = at.min((since.instant + refusal.kind.limit()).max(now));
        }
        self.set_deadline(name, Some(at));
    }

    /// GitHub works again at a target: removals that wait for it go on.
    pub(super) fn resume_removals(
        &mut self,
        target: &ServerTarget,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let waits = |runner: &&Runner| {
            runner.target == *target
                && matches!(&runner.phase, Phase::Removing(removing)
                    if removing.attempt.is_none() && removing.registration.needs_removal())
        };
        let names: Vec<String> = self
            .runners
            .values()
            .filter(waits)
            .take(AT_ONCE_MAX)
            .map(|it| it.name.clone())
            .collect();
        for name in names {
            self.continue_removal(&name, now, actions);
        }
        self.left.try_now(target, now.instant);
    }

    /// Its container was seen not to run any more, or not at all.
    pub(super) fn stopped_while_removed(
        &mut self,
        name: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(Runner { phase: Phase::Removing(removing), .. }) = self.runners.get(name) else {
            return;
        };
        if removing.stopped {
            return;
        }
        let waits = removing.attempt.is_none();
        let removing = Removing { stopped: true, ..removing.clone() };
        self.set_phase(name, Phase::Removing(removing), now);
        if waits {
            self.continue_removal(name, now, actions);
        }
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
            Some(
                Phase::Parked { .. }
                | Phase::Starting
                | Phase::Idle
                | Phase::Provisioning(Stage::Room),
            ) => {
                self.start_removal(name, reason, false, now, actions);
            }
            Some(Phase::Busy) if force => self.start_removal(name, reason, false, now, actions),
            Some(Phase::Parking(_) | Phase::Provisioning(_)) if force => {
                self.forced.insert(name.to_owned());
            }
            Some(Phase::Removing(_)) if force => self.force_removal(name, now, actions),
            Some(Phase::Parking(_) | Phase::Provisioning(_) | Phase::Busy | Phase::Removing(_))
            | None => {}
        }
    }

    /// Nothing is waited for any more: the container goes now, and if GitHub does not remove the
    /// registration, the runner ends without.
    fn force_removal(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(Runner { phase: Phase::Removing(removing), .. }) = self.runners.get(name) else {
            return;
        };
        let mut removing = removing.clone();
        let under_way = removing.attempt.is_some_and(|attempt| attempt.container);
        if under_way && removing.reason.ends_its_job() {
            return;
        }
        if removing.registration.needs_removal() && removing.refusal.is_some() {
            removing.registration = RegistrationState::Left;
        }
        if !removing.stopped {
            removing.reason = EndReason::RemovedByForce;
        }
        removing.attempts = 0;
        removing.attempt = None;
        self.set_phase(name, Phase::Removing(removing), now);
        self.continue_removal(name, now, actions);
    }

    pub(super) fn drain(
        &mut self,
        pool: Option<usize>,
        draining: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        match pool {
            Some(pool) if draining => self.drain_pool(&self.pool(pool).name.clone()),
            Some(pool) => drop(self.draining_pools.remove(&self.settings.pools[pool].name)),
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
        self.draining || runner.lane.as_ref().is_some_and(|lane| self.pool_draining(lane.pool))
    }

    /// Removes idle and parked runners of draining pools, and launches that wait for room.
    pub(super) fn remove_drained(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.draining && self.draining_pools.is_empty()
            || self.counts.idle + self.counts.parked + self.counts.without_room == 0
        {
            return;
        }
        let ends = |phase: &Phase| {
            matches!(phase, Phase::Idle | Phase::Parked { .. }) || phase.waits_for_room()
        };
        let idle: Vec<String> = self
            .runners
            .values()
            .filter(|runner| ends(&runner.phase) && self.is_draining(runner))
            .take(AT_ONCE_MAX)
            .map(|runner| runner.name.clone())
            .collect();
        for name in idle {
            self.start_removal(&name, EndReason::Drained, false, now, actions);
        }
    }
}

/// Whether GitHub may know a runner whose removal begins now.
fn registration_after(reason: EndReason, runner: &Runner) -> RegistrationState {
    if runner.registration_id.is_some() {
        return RegistrationState::There;
    }
    let (stage, cause) = match (&runner.phase, reason) {
        (Phase::Parking(stage) | Phase::Provisioning(stage), EndReason::LaunchFailed(cause)) => {
            (*stage, cause)
        }
        (_, EndReason::LaunchTimedOut) => return RegistrationState::Possible,
        _ => return RegistrationState::There,
    };
    let answered_late =
        matches!(cause, Cause::GitHubUnavailable | Cause::TimedOut | Cause::UnexpectedResponse);
    match stage {
        Stage::Accepted | Stage::Image => RegistrationState::Absent,
        Stage::Credentials if !answered_late => RegistrationState::Absent,
        // An image that registers its runner itself may have done so.
        Stage::Container | Stage::Room if !answered_late => RegistrationState::There,
        Stage::Credentials | Stage::Container | Stage::Room => RegistrationState::Possible,
    }
}

impl Removing {
    /// Nothing was heard of an attempt. That counts as no answer from those it asked.
    fn is_unheard_of(&mut self, attempt: Attempt) {
        const MESSAGE: &str = "the last attempt to remove it had no result";
        if attempt.registration {
            let refusal = Refusal { kind: RefusalKind::Unanswered, message: MESSAGE.into() };
            self.refusal.get_or_insert(refusal);
        }
        if attempt.container && (attempt.container_first || !attempt.registration) {
            self.container_problem.get_or_insert_with(|| MESSAGE.into());
        }
    }

    fn container_is_removed(&mut self) {
        self.stopped = true;
        self.container = ContainerState::Removed;
        self.container_problem = None;
    }

    /// GitHub removed the registration, or does not know it. Returns whether it may appear
    /// later.
    fn deregistered(&mut self) -> bool {
        self.refusal = None;
        let possible = self.registration == RegistrationState::Possible;
        self.registration =
            if possible { RegistrationState::Gone } else { RegistrationState::Absent };
        possible
    }
}
