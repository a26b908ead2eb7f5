//! Parked runners: registered, with a container in which everything stands but their command, which
//! begins once they are woken.
//!
//! A pool keeps some at each target that is known beforehand. They are the first choice for a launch
//! and are replaced after it. GitHub has them as offline, so they get no job before; they take no
//! place and do not count in `max`.

use std::{cmp::Reverse, time::Duration};

use super::{
    Action, EndReason, LaneKey, Phase, Runner, State, TOO_OLD_EXIT_CODE, Wake,
    backoff::{Blocked, Gate},
    credential::host_for_name,
    demand::{Lane, lane_at},
    machine::Disk,
};
use crate::model::{Cause, Instant, Moment};

/// Launches in flight of runners that are to be parked. Those of jobs come first: no runner is
/// parked while so many are in flight.
const PARKING_MAX: usize = 8;
/// After a runner could not be parked: the first pause of its pool, which doubles up to the limit
/// until one is.
const PAUSE: Duration = Duration::from_secs(60);
const PAUSE_LONGEST: Duration = Duration::from_secs(3_600);
/// A container that ends sooner than this after it was parked counts as one that could not be.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// Runners of a lane are replaced one after the other; this is the time between two checks whether
/// it is the next one's turn.
const RENEW_AGAIN: Duration = Duration::from_secs(10);
/// A runner that is to be replaced goes at this age even if there is none in its place. A day after
/// their registration GitHub removes ephemeral runners that never connected.
const AGE_MAX: Duration = Duration::from_secs(23 * 3_600);

/// A runner that an earlier process parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Its container was to run a shell that waits; otherwise it was to be created only.
    pub started: bool,
    /// See [`super::Pool::revision`].
    pub revision: u64,
    /// Its command was to begin, and may have.
    pub woken: bool,
}

impl Lane {
    /// How many more runners are to be parked.
    pub(super) fn unparked(&self) -> usize {
        self.parked_wanted.saturating_sub(self.parking + self.parked)
    }

    /// How many parked runners are too many.
    pub(super) fn overparked(&self) -> usize {
        (self.parking + self.parked).saturating_sub(self.parked_wanted).min(self.parked)
    }
}

// Parking

impl State {
    /// Each target of the pool that is known beforehand is to have its parked runners.
    pub(super) fn set_parked(&mut self, pool: usize) {
        let parked = self.pool(pool).parked;
        if parked == 0 {
            return;
        }
        for target in self.pool(pool).known_targets() {
            let host = host_for_name(&self.settings.credentials, &target);
            let key = (pool, target.on(host));
            lane_at(&mut self.lanes, &self.settings, &key).parked_wanted = parked;
            self.update_lane(&key);
        }
    }

    /// Launches runners that are to be parked, where nothing is on hold.
    pub(super) fn park_missing(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if self.to_park.is_empty() || self.draining {
            return;
        }
        let in_flight = self.counts.provisioning - self.counts.without_room + self.counts.parking;
        let mut room = PARKING_MAX.saturating_sub(in_flight);
        if room == 0 {
            return;
        }
        for key in self.to_park.clone() {
            while room > 0
                && self.lanes.get(&key).is_some_and(|lane| lane.unparked() > 0)
                && let Some(credential) = self.credential_to_park(&key, now.instant)
            {
                let launch = self.launch(&key, credential, None, true, now);
                actions.push(Action::Launch(launch));
                room -= 1;
            }
        }
    }

    /// The credential to register a runner of the lane with that is to be parked. `None`: not now.
    fn credential_to_park(&self, key: &LaneKey, now: Instant) -> Option<usize> {
        let (pool, target) = key;
        let paused = !self.parking_pauses[*pool].is_over(now);
        let disk = self.machines[self.pool(*pool).provider].disk;
        if paused
            || disk.is_some_and(Disk::is_short)
            || !self.recovered_for(*pool)
            || self.pool_draining(*pool)
            || self.launch_rates.room_at(target, now) == 0
        {
            return None;
        }
        let usable = |credential: &usize| {
            let host = self.settings.credentials[*credential].host;
            let gate = self.backoffs.gate(self.dependencies(key, Some(*credential)), now);
            gate == Gate::Open && self.launch_rates.room_with(*credential, host, now) > 0
        };
        let usable = self.credentials_at(key).iter().copied().filter(usable);
        usable.min_by_key(|it| (Reverse(self.launch_rates.left(*it, target, 0, now)), *it))
    }

    pub(super) fn parked(
        &mut self,
        name: &str,
        started: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.launch_worked(name);
        let Some(Runner { phase: Phase::Parking(_), .. }) = self.runners.get(name) else {
            return;
        };
        self.set_phase(name, Phase::Parked { started }, now);
        self.renew_later(name, now);
        actions.push(Action::Record(name.to_owned()));
        if self.forced.remove(name) {
            self.remove_runner(name, true, now, actions);
        } else if self.runners.get(name).is_some_and(|runner| self.is_draining(runner)) {
            self.start_removal(name, EndReason::Drained, false, now, actions);
        }
    }

    /// The failure pauses launches for jobs only if those would fail in the same way.
    pub(super) fn parking_failed(
        &mut self,
        name: &str,
        cause: Cause,
        message: String,
        retry_after: Duration,
        now: Moment,
    ) {
        self.pause_parking(name, now.instant);
        if !matches!(cause, Cause::Container | Cause::TimedOut) {
            self.failed(name, cause, message, retry_after, now);
        }
    }

    /// Once for all that fail at a time.
    fn pause_parking(&mut self, name: &str, now: Instant) {
        if let Some(Runner { lane: Some((pool, _)), .. }) = self.runners.get(name) {
            let pause = &mut self.parking_pauses[*pool];
            if pause.is_over(now) {
                pause.begin(PAUSE, PAUSE_LONGEST, now);
            }
        }
    }

    /// The container of a parked runner ended.
    pub(super) fn died_parked(
        &mut self,
        name: &str,
        exit_code: i64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        if self.runners.get(name).is_some_and(|it| now.instant < it.since.instant + STABLE_AFTER) {
            self.pause_parking(name, now.instant);
        }
        self.start_removal(name, EndReason::DiedParked { exit_code }, true, now, actions);
    }

    /// Removes parked runners that are too many, the oldest first.
    pub(super) fn end_overparked(&mut self, now: Moment, actions: &mut Vec<Action>) {
        for key in self.overparked.clone() {
            let count = self.lanes.get(&key).map_or(0, Lane::overparked);
            for name in self.longest_parked(&key, count) {
                self.start_removal(&name, EndReason::NotNeeded, false, now, actions);
            }
        }
    }

    /// Those whose containers run come first, then those that are the oldest.
    fn longest_parked(&self, key: &LaneKey, count: usize) -> Vec<String> {
        let mut parked: Vec<_> = self
            .runners
            .values()
            .filter(|runner| runner.lane.as_ref() == Some(key))
            .filter_map(|runner| match runner.phase {
                Phase::Parked { started } => {
                    Some((!started, runner.created.instant, runner.name.as_str()))
                }
                _ => None,
            })
            .collect();
        parked.sort_unstable();
        parked.into_iter().take(count).map(|(.., name)| name.to_owned()).collect()
    }
}

// Renewal

impl State {
    /// Whether its pool has other settings now, or is no longer configured.
    pub(super) fn is_outdated(&self, runner: &Runner) -> bool {
        let pool = runner.lane.as_ref().map(|(pool, _)| self.pool(*pool));
        pool.is_none_or(|pool| pool.revision != runner.revision)
    }

    pub(super) fn renew_later(&mut self, name: &str, now: Moment) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let at = match &runner.lane {
            Some((pool, _)) if !self.is_outdated(runner) => {
                runner.created.instant + Duration::from_millis(self.pool(*pool).parked_ms)
            }
            _ => now.instant,
        };
        self.set_deadline(name, Some(at.max(now.instant)));
    }

    pub(super) fn parked_deadline_passed(
        &mut self,
        name: &str,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let lane = runner.lane.as_ref().and_then(|key| self.lanes.get(key));
        let all_there = lane.is_none_or(|lane| lane.parked >= lane.parked_wanted);
        let too_old = runner.created.instant + AGE_MAX <= now.instant;
        if all_there || too_old || self.is_outdated(runner) {
            self.start_removal(name, EndReason::Renewed, false, now, actions);
        } else {
            self.set_deadline(name, Some(now.instant + RENEW_AGAIN));
        }
    }

    /// All of a pool: their image is too old for GitHub.
    fn renew_all(&mut self, pool: usize, now: Moment, actions: &mut Vec<Action>) {
        let is_parked = |runner: &&Runner| {
            matches!(runner.phase, Phase::Parked { .. })
                && runner.lane.as_ref().is_some_and(|(index, _)| *index == pool)
        };
        let parked = self.runners.values().filter(is_parked);
        let mut parked: Vec<String> = parked.map(|runner| runner.name.clone()).collect();
        parked.sort_unstable();
        for name in parked {
            self.start_removal(&name, EndReason::Renewed, false, now, actions);
        }
    }
}

// Waking

impl State {
    /// How many parked runners of a lane may take the place of launches. None while something that
    /// they need as well is on hold: a launch tries first whether it works again.
    pub(super) fn wakeable(&self, key: &LaneKey, now: Instant) -> usize {
        let parked = self.lanes.get(key).map_or(0, |lane| lane.parked);
        if parked == 0 || self.wakes_doubtful[key.0] {
            return 0;
        }
        let (pool, provider) = (key.0, self.pool(key.0).provider);
        let needs = [Blocked::Store, Blocked::Provider(provider), Blocked::Pool(pool)];
        let mut gates = needs.map(|blocked| self.backoffs.gate_for(blocked, now)).into_iter();
        let open = gates.all(|gate| gate == Gate::Open)
            && self.backoffs.gate_for_lane(key, now) == Gate::Open;
        if open { parked } else { 0 }
    }

    pub(super) fn wake(
        &mut self,
        key: &LaneKey,
        count: usize,
        prompts: Vec<String>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let mut prompts = prompts.into_iter();
        for name in self.longest_parked(key, count) {
            self.set_phase(&name, Phase::Starting, now);
            self.set_deadline_in(&name, self.limits(&name).starting_ms, now);
            if let Some(runner) = self.runners.get_mut(&name) {
                runner.woken = true;
                actions.push(wake(runner, false, prompts.next()));
            }
        }
    }

    /// An earlier process may have ended before it woke a runner.
    pub(super) fn wake_again(&self, name: &str, actions: &mut Vec<Action>) {
        actions.extend(self.runners.get(name).map(|runner| wake(runner, true, None)));
    }

    pub(super) fn wake_failed(
        &mut self,
        name: &str,
        cause: Cause,
        message: String,
        gone: bool,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(Runner { phase: Phase::Starting, woken: true, .. }) = self.runners.get(name)
        else {
            return;
        };
        if cause == Cause::DockerUnavailable || cause == Cause::Store {
            self.failed(name, cause, message, Duration::ZERO, now);
        } else if !gone {
            self.doubt_wakes(name);
        }
        self.start_removal(name, EndReason::WakeFailed, gone, now, actions);
    }

    /// If the runner was woken and has not been online, no other one of its pool is woken before a
    /// runner has been: it is left to launches to find out what is wrong. Returns whether that is
    /// so.
    pub(super) fn doubt_wakes(&mut self, name: &str) -> bool {
        match self.runners.get(name) {
            Some(Runner { woken: true, seen, lane: Some((pool, _)), .. }) if !seen.online => {
                self.wakes_doubtful[*pool] = true;
                true
            }
            _ => false,
        }
    }

    /// A runner exited without a job. Returns whether its registration or its container may have
    /// been too old, so that its pool's settings are not to blame.
    pub(super) fn exited_after_wake(
        &mut self,
        name: &str,
        exit_code: i64,
        now: Moment,
        actions: &mut Vec<Action>,
    ) -> bool {
        let doubtful = self.doubt_wakes(name);
        if exit_code != TOO_OLD_EXIT_CODE {
            // One that exited with code 0 may have run a job.
            return doubtful && exit_code != 0;
        }
        if let Some(Runner { lane: Some((pool, _)), .. }) = self.runners.get(name) {
            self.renew_all(*pool, now, actions);
        }
        false
    }
}

fn wake(runner: &Runner, again: bool, prompted_by: Option<String>) -> Action {
    Action::Wake(Wake {
        runner: runner.name.clone(),
        pool: runner.pool.clone(),
        provider: runner.provider,
        target: runner.target.clone(),
        again,
        prompted_by,
    })
}
