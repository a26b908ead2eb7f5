//! Observations: adopted runners, lists of registrations and containers, and when to look up
//! runners and jobs at GitHub because a webhook may be lost.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

use super::{
    Action, Adopted, AdoptedContainer, EndReason, FINISHING, LaneKey, Parked, Phase, Registration,
    Runner, State,
    allowance::Request,
    backoff::Problem,
    credential_for,
    demand::Lane,
    jobs::Tracked,
    runner::{Removing, Seen},
};
use crate::model::{Cause, Instant, JobState, Moment, ServerTarget};

/// A runner that is still starting after this long is looked up at GitHub.
const STARTING_SILENT: Duration = Duration::from_secs(15);
/// The same for one that is idle while jobs wait in its lane.
const IDLE_SILENT: Duration = Duration::from_secs(60);
/// An idle runner that GitHub has not listed for this long is looked up although no job waits,
/// since it may have been deleted there.
const IDLE_CHECK: Duration = Duration::from_secs(1_800);
/// Between look-ups of a lane's idle runners: the first pause, which doubles up to the limit
/// until one finds a change.
const IDLE_LOOK_UP_AGAIN: Duration = Duration::from_secs(60);
const IDLE_LOOK_UP_LONGEST: Duration = Duration::from_secs(1_800);
/// Between two look-ups of runners, at any target: at most 720 of the 5,000 requests that
/// GitHub allows per hour.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(5);
/// Runners that change their phase by one look-up, or become unreachable or reachable by one
/// survey, so that no event takes long.
const CHANGED_AT_ONCE_MAX: usize = 1_000;

impl State {
    pub(super) fn adopt(&mut self, adopted: Adopted, now: Moment, actions: &mut Vec<Action>) {
        let Adopted {
            runner: name,
            pool,
            provider,
            target,
            registration_id,
            job,
            created_at,
            container,
            parameters,
            devices,
            parked,
        } = adopted;
        if self.runners.contains_key(&name) {
            return;
        }
        let early = self.before_adoption.remove(&name);
        let job = job.or(early.filter(|job| target.host.may_be(job.host)));
        // All open jobs are restored before runners are adopted.
        let finished = job.is_some_and(|job| !self.jobs.contains_key(&job));
        self.devices.hold(&name, devices);
        let lane = self.lane_of(&pool, &target, &parameters);
        let promised = self.promised_by(lane.as_ref());
        let waits = parked.filter(|parked| !parked.woken && job.is_none());
        let phase = match (job, waits) {
            (Some(_), _) => Phase::Busy,
            // Only its command can have started the container of one that was not to be started.
            (None, Some(Parked { started: false, .. }))
                if container == AdoptedContainer::Running =>
            {
                Phase::Starting
            }
            (None, Some(Parked { started, .. })) => Phase::Parked { started },
            (None, None) => Phase::Starting,
        };
        let is_parked = matches!(phase, Phase::Parked { .. });
        let pool_revision = lane.as_ref().map(|lane| self.pool(lane.pool).revision);
        let revision = parked.map(|parked| parked.revision).or(pool_revision).unwrap_or_default();
        let was_started = parked.is_some_and(|parked| parked.started);
        self.insert_runner(Runner {
            name: name.clone(),
            pool,
            provider,
            target,
            parameters,
            lane,
            phase,
            created: now.at_wall(created_at),
            since: now,
            revision,
            woken: parked.is_some() && !is_parked,
            credential: None,
            registration_id,
            job,
            finished,
            no_room: None,
            unreachable: None,
            promised,
            deadline: None,
            seen: Seen::default(),
        });
        let limits = self.limits(&name);
        let (begun, allowed_ms) = match job.and_then(|job| self.jobs.get(&job)) {
            // A restart does not extend the limit of its job.
            Some(Tracked { state: JobState::InProgress, since, .. }) => (*since, limits.job_ms),
            _ if job.is_some() => (now.instant, limits.job_ms),
            _ => (now.instant, limits.starting_ms),
        };
        let limit = begun + Duration::from_millis(allowed_ms);
        self.set_deadline(&name, Some(if finished { now.instant + FINISHING } else { limit }));
        if is_parked {
            self.renew_later(&name, now);
        }
        match container {
            // The process that was to wake it may have ended before it did.
            AdoptedContainer::Running if parked.is_some() && !is_parked && job.is_none() => {
                self.wake_again(&name, actions);
            }
            AdoptedContainer::Created if parked.is_some() && !is_parked && !was_started => {
                self.wake_again(&name, actions);
            }
            AdoptedContainer::Created if is_parked && !was_started => {
                actions.push(Action::Record(name));
            }
            AdoptedContainer::Running => actions.push(Action::Record(name)),
            AdoptedContainer::Unreachable if is_parked => actions.push(Action::Record(name)),
            AdoptedContainer::Exited(status) if is_parked => {
                let reason = EndReason::DiedParked { exit_code: status.code };
                self.start_removal(&name, reason, true, now, actions);
            }
            AdoptedContainer::Unreachable => {
                self.lost_contact(&name, now);
                actions.push(Action::Record(name));
            }
            AdoptedContainer::Exited(status) if job.is_some() => {
                self.container_exited(&name, status, now, actions);
            }
            // It does not count against the pool: it may have run a job whose webhooks were
            // sent while no process was running.
            AdoptedContainer::Exited(status) => {
                let reason = status.end_reason(EndReason::Unused { exit_code: status.code });
                self.start_removal(&name, reason, true, now, actions);
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
        requested_at: Instant,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.look_up_backoffs.succeeded_at(target);
        self.backoffs.allowances.succeeded(target);
        self.remove_left(target, listed, actions);
        self.lists += 1;
        let list = self.lists;
        let mut busy = Vec::new();
        let mut online = Vec::new();
        for Registration { name, id, online: is_online, busy: is_busy } in listed {
            let Some(runner) = self.runners.get_mut(name) else {
                continue;
            };
            if runner.target != *target {
                continue;
            }
            runner.registration_id.get_or_insert(*id);
            let alive = *is_busy || *is_online;
            runner.seen.alive = alive || (runner.seen.list == list && runner.seen.alive);
            runner.seen.list = list;
            match runner.phase {
                Phase::Parked { .. } | Phase::Starting | Phase::Idle if *is_busy => {
                    busy.push(name.as_str());
                }
                Phase::Parked { .. } | Phase::Starting if *is_online => online.push(name.as_str()),
                _ => {}
            }
        }
        let (mut lost, mut missing, mut again) = (Vec::new(), Vec::new(), false);
        let mut on_lost_machines = Vec::new();
        let waits = |runner: &Runner| {
            matches!(runner.phase, Phase::Parked { .. } | Phase::Starting | Phase::Idle)
                || runner.unreachable.is_some()
        };
        for runner in self.runners.values_mut().filter(|it| it.target == *target && waits(it)) {
            // The list may be older than what is known.
            if runner.since.instant > requested_at {
                continue;
            }
            runner.seen.listed = true;
            if runner.seen.list == list {
                (runner.seen.missing, runner.seen.at) = (None, Some(now.instant));
            }
            if runner.unreachable.is_some() {
                if runner.is_lost(list, requested_at, now.instant) {
                    on_lost_machines.push(runner.name.clone());
                }
            } else if runner.seen.list == list {
                if runner.phase == Phase::Idle && !runner.seen.alive {
                    lost.push(runner.name.clone());
                }
            } else if runner.registration_id.is_some() || runner.seen.online {
                // A long list can miss a runner while others leave it: it is requested again.
                match runner.seen.missing.replace(requested_at) {
                    Some(before) if before < requested_at => missing.push(runner.name.clone()),
                    Some(_) => {}
                    None => again = true,
                }
            }
        }
        if !(busy.is_empty() && lost.is_empty() && missing.is_empty()) {
            self.for_lanes_at(target, |lane| lane.runner_look_ups.reset());
        }
        lost.sort_unstable();
        missing.sort_unstable();
        on_lost_machines.sort_unstable();
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
        for name in missing.into_iter().take(CHANGED_AT_ONCE_MAX) {
            self.start_removal(&name, EndReason::Unregistered, false, now, actions);
        }
        for name in on_lost_machines.into_iter().take(CHANGED_AT_ONCE_MAX) {
            self.start_removal(&name, EndReason::MachineLost, false, now, actions);
        }
        if again {
            self.last_look_up = Some(now.instant);
            actions.push(Action::LookUp(target.clone()));
        }
    }

    /// Handles what no event reported: exits, and containers that appeared or vanished.
    pub(super) fn survey(
        &mut self,
        provider: usize,
        containers: &[Adopted],
        taken_at: Instant,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if self.paused || !self.recovered[provider] {
            // Recovery adopts the same containers, with their jobs from the store.
            return;
        }
        let should_run = |runner: &Runner| {
            runner.provider == provider
                && runner.phase.has_container()
                && runner.since.instant < taken_at
        };
        let (mut seen, mut changed) = (0, 0);
        let mut unhandled = Vec::new();
        let mut on_record_as_gone = Vec::new();
        for found in containers {
            match (self.runners.get_mut(&found.runner), found.container) {
                (Some(runner), container) => {
                    seen += usize::from(should_run(runner));
                    if changed < CHANGED_AT_ONCE_MAX {
                        let lanes = &mut self.lanes;
                        let change =
                            self.unreachable.surveyed(runner, container, taken_at, now, lanes);
                        changed += usize::from(change);
                    }
                    if found_while_removed(runner, container, taken_at)
                        || matches!(container, AdoptedContainer::Exited(_))
                    {
                        unhandled.push(found);
                    }
                }
                (None, _) => match self.gone.get(&found.runner) {
                    // It was removed after the survey was requested.
                    Some(at) if *at >= taken_at => {}
                    Some(_) => on_record_as_gone.push(found),
                    None => unhandled.push(found),
                },
            }
        }
        self.find_removed(provider, containers, taken_at, now, actions);
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
                AdoptedContainer::Exited(status) if self.runners.contains_key(&found.runner) => {
                    self.container_exited(&found.runner, status, now, actions);
                }
                AdoptedContainer::Running if self.runners.contains_key(&found.runner) => {
                    // As an earlier process launched it.
                    self.devices.hold(&found.runner, found.devices.clone());
                    self.found_again(&found.runner, now, actions);
                }
                AdoptedContainer::Missing if self.runners.contains_key(&found.runner) => {
                    self.stopped_while_removed(&found.runner, now, actions);
                }
                _ => self.adopt(found.clone(), now, actions),
            }
        }
        for found in on_record_as_gone {
            self.on_record_as_gone(found.clone(), now, actions);
        }
    }

    /// Runners whose removal is under way and whose containers are gone already: their places
    /// are free, whatever becomes of the request.
    fn find_removed(
        &mut self,
        provider: usize,
        containers: &[Adopted],
        taken_at: Instant,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if self.counts.removing == 0 {
            return;
        }
        let listed: HashSet<&str> = containers.iter().map(|found| found.runner.as_str()).collect();
        let removed: Vec<String> = self
            .runners
            .values()
            .filter(|runner| match &runner.phase {
                // The provider may still carry out the request of a launch that did not end well.
                Phase::Removing(removing) => {
                    !removing.launching
                        && runner.provider == provider
                        && runner.since.instant < taken_at
                }
                _ => false,
            })
            .map(|runner| &runner.name)
            .filter(|name| !listed.contains(name.as_str()))
            .cloned()
            .collect();
        for name in removed {
            self.stopped_while_removed(&name, now, actions);
        }
    }

    /// A runner that an earlier list did not contain: its container is not gone.
    fn found_again(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let (job_deadline, parked) = match &runner.phase {
            Phase::Removing(removing) => (removing.job_deadline, removing.parked),
            _ => (None, false),
        };
        if parked {
            self.set_phase(name, Phase::Parked { started: true }, now);
            self.renew_later(name, now);
            actions.push(Action::Record(name.to_owned()));
            return;
        }
        let busy = runner.job.is_some() || job_deadline.is_some();
        let limits = self.limits(name);
        let (phase, allowed_ms) = match busy {
            true => (Phase::Busy, limits.job_ms),
            false => (Phase::Starting, limits.starting_ms),
        };
        let deadline = now.instant + Duration::from_millis(allowed_ms);
        self.set_phase(name, phase, now);
        self.set_deadline(name, Some(job_deadline.unwrap_or(deadline)));
        actions.push(Action::Record(name.to_owned()));
    }

    /// The container of a runner whose end is recorded. It is removed, and its record stays.
    pub(super) fn on_record_as_gone(
        &mut self,
        found: Adopted,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Adopted {
            runner: name,
            pool,
            provider,
            target,
            registration_id,
            created_at,
            container,
            parameters,
            devices,
            ..
        } = found;
        if self.runners.contains_key(&name) {
            return;
        }
        self.devices.hold(&name, devices);
        self.remember_as_gone(&name, now.instant);
        let stopped = matches!(container, AdoptedContainer::Exited(_) | AdoptedContainer::Missing);
        let lane = self.lane_of(&pool, &target, &parameters);
        let promised = self.promised_by(lane.as_ref());
        let removing = Removing::of_gone_runner(stopped);
        self.insert_runner(Runner {
            name: name.clone(),
            pool,
            provider,
            target,
            parameters,
            lane,
            phase: Phase::Removing(removing),
            created: now.at_wall(created_at),
            since: now,
            revision: 0,
            woken: false,
            credential: None,
            registration_id,
            job: None,
            finished: false,
            no_room: None,
            unreachable: None,
            promised,
            seen: Seen::default(),
            deadline: None,
        });
        self.continue_removal(&name, now, actions);
    }

    pub(super) fn look_up_failed(
        &mut self,
        target: &ServerTarget,
        cause: Cause,
        message: String,
        retry_after_ms: u64,
        now: Moment,
    ) {
        let problem = Problem {
            cause,
            message,
            began: now.instant,
            retry_after: Duration::from_millis(retry_after_ms),
            credential: credential_for(&self.settings.credentials, target),
        };
        self.backoffs.count_request(target, Request::LookUp, &problem, now.instant);
        let jitter = self.jitter();
        self.look_up_backoffs.failed_at(target, problem, now, jitter);
    }

    /// Looks up the runners of a target where at least one has been silent for too long.
    pub(super) fn look_up(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if self.last_look_up.is_some_and(|last| now < last + LOOK_UP_INTERVAL)
            || self.counts.starting + self.counts.idle + self.counts.parked + self.unreachable.count
                == 0
        {
            return;
        }
        self.unreachable.forget_old_look_ups(now);
        // Targets take turns: the one after the last, or else the first.
        let (mut first, mut next): (Option<&ServerTarget>, Option<&ServerTarget>) = (None, None);
        let mut allowed = HashMap::new();
        let unnamed = self.lanes.iter().filter(|(_, lane)| lane.has_unnamed_job());
        let unnamed: BTreeSet<&LaneKey> = unnamed.map(|(key, _)| key).collect();
        let silent = |runner: &&Runner| {
            // It may run the job whose runner GitHub did not name.
            let may_run = runner.lane.as_ref().is_some_and(|key| unnamed.contains(key))
                && matches!(runner.phase, Phase::Starting | Phase::Idle);
            may_run || self.is_silent(runner, now)
        };
        for runner in self.runners.values().filter(silent) {
            let target = &runner.target;
            if !*allowed.entry(target).or_insert_with(|| self.may_look_up(target, now)) {
                continue;
            }
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
        self.unreachable.look_up(&target, now);
        self.for_lanes_at(&target, |lane| {
            if lane.idle > 0 {
                lane.runner_look_ups.begin(IDLE_LOOK_UP_AGAIN, IDLE_LOOK_UP_LONGEST, now);
            }
            lane.unnamed_look_up = Some(now);
            if lane.parked > 0 {
                lane.parked_look_up = Some(now);
            }
        });
        actions.push(Action::LookUp(target));
    }

    fn for_lanes_at(&mut self, target: &ServerTarget, mut change: impl FnMut(&mut Lane)) {
        let keys: Vec<LaneKey> = self.lanes_at(target).map(|(key, _)| key.clone()).collect();
        for key in keys {
            if let Some(lane) = self.lanes.get_mut(&key) {
                change(lane);
            }
        }
    }

    fn is_silent(&self, runner: &Runner, now: Instant) -> bool {
        if runner.unreachable.is_some() {
            return runner.phase.runs() && self.unreachable.needs_look_up(&runner.target);
        }
        match runner.phase {
            Phase::Starting => {
                let limits = self.limits_in(runner.lane.as_ref());
                let half = Duration::from_millis(limits.starting_ms / 2);
                runner.since.instant + STARTING_SILENT.min(half) <= now
            }
            // It may have taken a job whose webhook was lost; then no runner serves the jobs
            // that wait here.
            Phase::Idle => {
                let last =
                    runner.seen.at.map_or(runner.since.instant, |at| at.max(runner.since.instant));
                let waits = |lane: &Lane| !(lane.queued.is_empty() && lane.held.is_empty());
                runner.since.instant + IDLE_SILENT <= now
                    && runner.lane.as_ref().and_then(|key| self.lanes.get(key)).is_some_and(
                        |lane| {
                            (waits(lane) || last + IDLE_CHECK <= now)
                                && lane.runner_look_ups.is_over(now)
                        },
                    )
            }
            // GitHub may have dropped it.
            Phase::Parked { .. } => {
                let last = runner.seen.at.unwrap_or(runner.since.instant);
                let looked_up =
                    runner.lane.as_ref().and_then(|key| self.lanes.get(key)?.parked_look_up);
                last + IDLE_CHECK <= now
                    && looked_up.is_none_or(|at| at + IDLE_LOOK_UP_AGAIN <= now)
            }
            Phase::Parking(_) | Phase::Provisioning(_) | Phase::Busy | Phase::Removing(_) => false,
        }
    }
}

/// Whether a list says more about a runner that is being removed than the planner knows.
fn found_while_removed(runner: &Runner, container: AdoptedContainer, taken_at: Instant) -> bool {
    let Phase::Removing(removing) = &runner.phase else {
        return false;
    };
    runner.since.instant < taken_at
        && match container {
            AdoptedContainer::Running => {
                matches!(removing.reason, EndReason::Vanished | EndReason::MachineLost)
                    && removing.is_undecided()
            }
            // Nothing runs in it, and Docker has yet to remove it.
            AdoptedContainer::Missing => !removing.stopped,
            AdoptedContainer::Exited(_)
            | AdoptedContainer::Created
            | AdoptedContainer::Unreachable => false,
        }
}
