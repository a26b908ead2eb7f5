//! A runner's life from its launch to its exit. Every launch ends in [`Action::Forget`].

use std::{collections::BTreeSet, mem, time::Duration};

use super::{
    Action, EndReason, ExitStatus, LaneKey, LifeLimits, Phase, Runner, Stage, State,
    backoff::Failure,
    demand::count_unreachable,
    held::{HELD_AT_ONCE_MAX, PICK_UP},
};
use crate::model::{Cause, Instant, JobKey, Moment, ServerTarget};

/// The runner's own exit code for a version that GitHub no longer accepts.
pub const TOO_OLD_EXIT_CODE: i64 = 7;

/// Runners whose deadline is handled in one tick, so that no tick takes long.
const AT_ONCE_MAX: usize = 250;
/// How many runners of a pool in a row may exit with code 0 without an event about a job before
/// the pool is paused. Events about a short job often arrive after its runner's exit.
const UNEXPLAINED_EXITS_MAX: u32 = 20;
/// How long a removed runner is remembered: a survey may be older than its removal, and Docker
/// may still list a container that it did not remove.
const GONE: Duration = Duration::from_secs(6 * 3_600);
/// How long after its runner's exit the events about a job may come, for a job whose runner
/// they do not name.
const UNNAMED_LATE: Duration = Duration::from_secs(600);
/// How long the list of runners may take that is requested before a starting one is given up.
const LAST_LOOK: Duration = Duration::from_secs(15);

impl State {
    pub(super) fn insert_runner(&mut self, runner: Runner) {
        let (lane, phase, name) = (runner.lane.clone(), runner.phase.clone(), runner.name.clone());
        let (credential, unreachable) = (runner.credential, runner.unreachable.is_some());
        self.hold(runner.provider, runner.promised, &phase, true);
        self.runners.insert(name, runner);
        self.count(lane.as_ref(), credential, &phase, true);
        if unreachable {
            self.unreachable.count += 1;
            count_unreachable(&mut self.lanes, lane.as_ref(), &phase, true);
        }
    }

    pub(super) fn set_phase(&mut self, name: &str, phase: Phase, now: Moment) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        let old = mem::replace(&mut runner.phase, phase.clone());
        if !old.same_as(&phase) {
            runner.since = now;
            (runner.seen.listed, runner.seen.looked_up) = (false, false);
        }
        if !phase.waits_for_room() {
            runner.no_room = None;
        }
        let (lane, credential) = (runner.lane.clone(), runner.credential);
        let (provider, promised) = (runner.provider, runner.promised);
        let unreachable = runner.unreachable.is_some();
        self.hold(provider, promised, &old, false);
        self.hold(provider, promised, &phase, true);
        if unreachable {
            count_unreachable(&mut self.lanes, lane.as_ref(), &old, false);
        }
        self.count(lane.as_ref(), credential, &old, false);
        self.count(lane.as_ref(), credential, &phase, true);
        if unreachable {
            count_unreachable(&mut self.lanes, lane.as_ref(), &phase, true);
        }
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

    pub(super) fn set_deadline_in(&mut self, name: &str, ms: u64, now: Moment) {
        self.set_deadline(name, Some(now.instant + Duration::from_millis(ms)));
    }

    pub(super) fn limits(&self, name: &str) -> LifeLimits {
        self.limits_in(self.runners.get(name).and_then(|runner| runner.lane.as_ref()))
    }

    pub(super) fn limits_in(&self, lane: Option<&LaneKey>) -> LifeLimits {
        lane.map_or(
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

    pub(super) fn progress(
        &mut self,
        name: &str,
        stage: Stage,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Some(before) = runner.phase.launch_stage() else {
            return;
        };
        let parks = matches!(runner.phase, Phase::Parking(_));
        let (got_room, lane) = (before == Stage::Room, runner.lane.clone());
        // GitHub has registered the runner, or issued a token for it.
        if stage == Stage::Container
            && before < Stage::Container
            && let Some(lane) = &runner.lane
            && self.backoffs.registered(
                self.dependencies(lane, runner.credential),
                runner.created.instant,
                now.instant,
            )
        {
            let target = runner.target.clone();
            self.resume_removals(&target, now, actions);
        }
        let phase = if parks { Phase::Parking(stage) } else { Phase::Provisioning(stage) };
        self.set_phase(name, phase, now);
        if got_room {
            self.limit_launch(name, now.instant);
            if let Some(lane) = lane {
                self.has_room(&lane);
            }
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
        self.launch_worked(name);
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let lane = runner.lane.clone();
        if matches!(runner.phase, Phase::Provisioning(_)) {
            self.set_phase(name, Phase::Starting, now);
            self.set_deadline_in(name, self.limits(name).starting_ms, now);
            actions.push(Action::Record(name.to_owned()));
        }
        if let Some(lane) = lane {
            self.has_room(&lane);
        }
        if self.forced.remove(name) {
            self.remove_runner(name, true, now, actions);
        }
    }

    /// What it needed works.
    pub(super) fn launch_worked(&mut self, name: &str) {
        if let Some(Runner { lane: Some(lane), credential, created, .. }) = self.runners.get(name) {
            let needs = self.dependencies(lane, *credential);
            self.backoffs.launched(needs, created.instant);
        }
    }

    pub(super) fn launch_failed(
        &mut self,
        name: &str,
        failure: LaunchFailure,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let LaunchFailure { cause, message, retry_after_ms, may_exist } = failure;
        let retry_after = Duration::from_millis(retry_after_ms);
        if self.runners.get(name).is_some_and(|runner| runner.phase.launch_stage().is_some()) {
            self.blame_launch(name, cause, message, retry_after, now);
            self.start_removal(name, EndReason::LaunchFailed(cause), !may_exist, now, actions);
        }
    }

    /// Whether or not the runner was to be parked.
    fn blame_launch(
        &mut self,
        name: &str,
        cause: Cause,
        message: String,
        retry_after: Duration,
        now: Moment,
    ) {
        match self.runners.get(name).map(|runner| &runner.phase) {
            Some(Phase::Parking(_)) => self.parking_failed(name, cause, message, retry_after, now),
            _ => self.failed(name, cause, message, retry_after, now),
        }
    }

    pub(super) fn failed(
        &mut self,
        name: &str,
        cause: Cause,
        message: String,
        retry_after: Duration,
        now: Moment,
    ) {
        let Some(Runner { lane: Some(lane), created, credential, .. }) = self.runners.get(name)
        else {
            return;
        };
        let failure = Failure {
            needs: self.dependencies(lane, *credential),
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
        if let Some(runner) = self.runners.get_mut(name) {
            runner.seen.online = true;
        }
        let idle = Duration::from_millis(self.limits(name).idle_ms);
        self.set_deadline(name, Some(now.instant + idle.min(PICK_UP)));
        actions.push(Action::Record(name.to_owned()));
    }

    /// GitHub lists an idle runner as offline. Until it is back it can take no job,
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
        let lane = runner.lane.clone();
        runner.seen.online = true;
        if runner.job.is_none() && job.is_some() {
            runner.job = job;
            changed = true;
        }
        match runner.phase {
            Phase::Busy => {}
            // A removal goes on: GitHub refuses it if the runner really is busy.
            Phase::Removing(_) => changed |= self.keep_if_undecided(name, now, actions),
            Phase::Parking(_)
            | Phase::Parked { .. }
            | Phase::Provisioning(_)
            | Phase::Starting
            | Phase::Idle => {
                self.set_phase(name, Phase::Busy, now);
                self.set_deadline_in(name, self.limits(name).job_ms, now);
                if let (None, Some(key)) = (job, lane) {
                    if let Some(lane) = self.lanes.get_mut(&key) {
                        lane.unnamed_jobs.pop_front();
                    }
                    self.picked_up_unknown(&key, now.instant);
                }
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
            let pool = *pool;
            self.pool_is_healthy(pool);
        }
    }

    fn pool_is_healthy(&mut self, pool: usize) {
        self.unexplained_exits[pool] = 0;
        self.wakes_doubtful[pool] = false;
        self.backoffs.healthy(pool);
    }

    /// Like [`Self::mark_healthy`], for a runner that may already be forgotten: its job was so
    /// short that the `in_progress` event arrives after its exit.
    pub(super) fn mark_healthy_by_name(&mut self, name: &str) {
        if let Some(pool) = self.pool_of_runner(name) {
            self.pool_is_healthy(pool);
        }
    }

    /// A job of this lane runs or ran on a runner that GitHub did not name. If there is or was
    /// a runner that it may be, the pool's image works.
    pub(super) fn unnamed_runner_works(&mut self, key: &LaneKey, started: bool, now: Instant) {
        let Some(lane) = self.lanes.get_mut(key) else {
            return;
        };
        let free = lane.starting + lane.idle;
        if started && free > 0 {
            lane.unnamed_jobs.push_back(now);
            while lane.unnamed_jobs.len() > free {
                lane.unnamed_jobs.pop_front();
            }
        }
        let exited = lane.unexplained_exit.is_some_and(|exit| now < exit + UNNAMED_LATE);
        if free + lane.busy > 0 || exited {
            self.pool_is_healthy(key.0);
        }
    }

    /// Whether the runner may have run a job that started without the name of its runner.
    fn ran_unnamed_job(&mut self, name: &str, now: Instant) -> bool {
        let Some(Runner { lane: Some(key), .. }) = self.runners.get(name) else {
            return false;
        };
        let key = key.clone();
        let Some(lane) = self.lanes.get_mut(&key) else {
            return false;
        };
        if lane.unnamed_jobs.pop_front().is_none() {
            return false;
        }
        // It may also have run another job.
        lane.unexplained_exit = Some(now);
        self.unnamed_runner_works(&key, false, now);
        true
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
        status: ExitStatus,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let exit_code = status.code;
        match &runner.phase {
            Phase::Removing(_) => self.stopped_while_removed(name, now, actions),
            Phase::Busy => {
                let reason =
                    if exit_code == 0 { EndReason::Done } else { EndReason::Exited { exit_code } };
                self.start_removal(name, status.end_reason(reason), true, now, actions);
            }
            Phase::Parked { .. } => self.died_parked(name, exit_code, now, actions),
            Phase::Parking(_) | Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                let reason = if exit_code == 0 && self.ran_unnamed_job(name, now.instant) {
                    EndReason::Done
                } else {
                    if !self.exited_after_wake(name, exit_code, now, actions) {
                        self.exited_unused(name, status, now);
                    }
                    EndReason::Unused { exit_code }
                };
                self.start_removal(name, status.end_reason(reason), true, now, actions);
            }
        }
    }

    fn exited_unused(&mut self, name: &str, status: ExitStatus, now: Moment) {
        let ExitStatus { code: exit_code, out_of_memory } = status;
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
            TOO_OLD_EXIT_CODE => (
                Cause::RunnerTooOld,
                ": the runner in the image is too old for GitHub; use a newer image",
            ),
            _ if out_of_memory => (
                Cause::RunnerExited,
                " after a process was killed for lack of memory; raise memory_mib",
            ),
            _ => (Cause::RunnerExited, " without taking a job; see its log"),
        };
        let message = format!("the runner exited with code {exit_code}{hint}");
        self.failed(name, cause, message, Duration::ZERO, now);
    }

    // Time

    pub(super) fn tick(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.hold_left = HELD_AT_ONCE_MAX;
        let mut looked_up = BTreeSet::new();
        for _ in 0..AT_ONCE_MAX {
            match self.deadlines.first() {
                Some((at, name)) if *at <= now.instant => {
                    let name = name.clone();
                    self.set_deadline(&name, None);
                    self.deadline_passed(&name, now, &mut looked_up, actions);
                }
                _ => break,
            }
        }
        self.start_probes(now.instant);
        self.remove_drained(now, actions);
        self.forget_old_jobs(now.instant, actions);
        while let Some((at, _)) = self.gone_by_age.front()
            && *at + GONE <= now.instant
        {
            if let Some((at, name)) = self.gone_by_age.pop_front()
                && self.gone.get(&name) == Some(&at)
            {
                self.gone.remove(&name);
            }
        }
        self.backoffs.forget_old(now.instant);
        self.look_up_backoffs.forget_old(now.instant);
        self.launch_rates.forget_old(now.instant);
    }

    /// `looked_up`: the targets that this tick looks up for such runners.
    fn deadline_passed(
        &mut self,
        name: &str,
        now: Moment,
        looked_up: &mut BTreeSet<ServerTarget>,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if matches!(runner.phase, Phase::Starting | Phase::Idle)
            && let Some(lost_at) = runner.lost_at()
        {
            // Whatever its time limit, and whether or not GitHub answers.
            if lost_at <= now.instant {
                return self.start_removal(name, EndReason::MachineLost, false, now, actions);
            }
            if runner.phase == Phase::Starting {
                return self.set_deadline(name, Some(lost_at));
            }
        }
        match &runner.phase {
            Phase::Provisioning(Stage::Room) => {
                let reason = match runner.lane {
                    Some(_) => EndReason::CredentialsExpired,
                    // Its pool is no longer configured.
                    None => EndReason::NotNeeded,
                };
                self.start_removal(name, reason, false, now, actions);
            }
            Phase::Parked { .. } => self.parked_deadline_passed(name, now, actions),
            Phase::Parking(_) | Phase::Provisioning(_) => {
                let message = "the launch took too long".into();
                self.blame_launch(name, Cause::TimedOut, message, Duration::ZERO, now);
                self.start_removal(name, EndReason::LaunchTimedOut, false, now, actions);
            }
            Phase::Starting if !runner.seen.listed && !runner.seen.looked_up => {
                self.look_before_giving_up(name, now, looked_up, actions);
            }
            Phase::Starting if runner.seen.online => {
                self.start_removal(name, EndReason::WentOffline, false, now, actions);
            }
            Phase::Starting => {
                let (cause, message) = match runner.seen.listed {
                    true => {
                        (Cause::NeverOnline, "the runner did not come online in time; see its log")
                    }
                    // The pool's image is not to blame.
                    false => (
                        Cause::TimedOut,
                        "GitHub did not list the runners, so it is unknown whether one is online",
                    ),
                };
                if !self.doubt_wakes(name) {
                    self.failed(name, cause, message.into(), Duration::ZERO, now);
                }
                self.start_removal(name, EndReason::NeverOnline, false, now, actions);
            }
            Phase::Idle => self.idle_deadline_passed(name, now, actions),
            Phase::Busy if runner.finished => {
                self.start_removal(name, EndReason::DidNotEnd, false, now, actions);
            }
            Phase::Busy => self.start_removal(name, EndReason::JobTooLong, false, now, actions),
            Phase::Removing(_) => self.remove_again(name, now, actions),
        }
    }
}

impl State {
    /// Nobody has seen whether the runner is online.
    fn look_before_giving_up(
        &mut self,
        name: &str,
        now: Moment,
        looked_up: &mut BTreeSet<ServerTarget>,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        runner.seen.looked_up = true;
        let target = runner.target.clone();
        if self.backoffs.allowances.allows_look_up(&target, now.instant)
            && looked_up.insert(target.clone())
        {
            actions.push(Action::LookUp(target));
        }
        self.set_deadline(name, Some(now.instant + LAST_LOOK));
    }

    fn idle_deadline_passed(&mut self, name: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let (since, lane) = (runner.since.instant, runner.lane.clone());
        // GitHub may assign nothing to it because it is not there.
        let reachable = runner.unreachable.is_none();
        let idle = now.instant.duration_since(since);
        let limit = Duration::from_millis(self.limits(name).idle_ms);
        if let Some(lane) = &lane
            && idle >= PICK_UP
            && reachable
        {
            self.passed_over(lane, now.instant);
        }
        let needless = lane.as_ref().is_none_or(|lane| {
            self.surplus(lane)
                && (idle >= limit || (reachable && self.assigns_nothing(lane, since)))
        });
        if needless {
            self.start_removal(name, EndReason::IdleTooLong, false, now, actions);
            return;
        }
        let again = match idle < limit {
            true => since + limit,
            false => now.instant + limit.max(Duration::from_secs(1)),
        };
        let check = if self.hold_left == 0 { Duration::from_secs(1) } else { PICK_UP };
        self.set_deadline(name, Some(again.min(now.instant + check)));
    }

    /// Whether GitHub holds jobs back and has assigned none in the lane since then.
    fn assigns_nothing(&self, key: &LaneKey, since: Instant) -> bool {
        self.lanes.get(key).is_some_and(|lane| {
            !lane.held.is_empty() && lane.picked_up.is_none_or(|at| at <= since)
        })
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
