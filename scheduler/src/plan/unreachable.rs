//! Runners on machines that do not answer. They keep their phases and places, because they may
//! work on: only GitHub knows. One that GitHub has as offline for [`LOST_AFTER`] is removed.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    AdoptedContainer, LaneKey, Phase, Runner, State,
    demand::{Lane, count_unreachable},
};
use crate::model::{Instant, Moment, ServerTarget};

/// How long GitHub must not have an unreachable runner as online or busy before it is removed.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(600);
/// Between two look-ups of the runners at a target where one is unreachable.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct UnreachableRunners {
    /// Also those that are being removed.
    pub(super) count: usize,
    /// When a list was last requested at their targets.
    looked_up: HashMap<ServerTarget, Instant>,
}

impl UnreachableRunners {
    /// Sets since when the runner is unreachable, unless that is known.
    fn set(
        &mut self,
        runner: &mut Runner,
        since: Option<Moment>,
        lanes: &mut BTreeMap<LaneKey, Lane>,
    ) {
        if runner.unreachable.is_some() == since.is_some() {
            return;
        }
        (runner.unreachable, runner.seen.offline) = (since, None);
        match since {
            Some(_) => self.count += 1,
            None => self.count -= 1,
        }
        count_unreachable(lanes, runner.lane.as_ref(), &runner.phase, since.is_some());
    }

    /// Takes in what a list of containers says of the runner's machine. Returns whether that is
    /// a change.
    pub(super) fn surveyed(
        &mut self,
        runner: &mut Runner,
        container: AdoptedContainer,
        taken_at: Instant,
        now: Moment,
        lanes: &mut BTreeMap<LaneKey, Lane>,
    ) -> bool {
        let since = match (container, runner.unreachable) {
            (AdoptedContainer::Unreachable, None) if runner.phase.runs() => Some(now),
            (AdoptedContainer::Unreachable, _) | (_, None) => return false,
            // The list may be older than what is known.
            (_, Some(since)) if since.instant >= taken_at => return false,
            (_, Some(_)) => None,
        };
        self.set(runner, since, lanes);
        true
    }

    /// The list of a target is requested.
    pub(super) fn look_up(&mut self, target: &ServerTarget, now: Instant) {
        if self.count > 0 {
            self.looked_up.insert(target.clone(), now);
        }
    }

    pub(super) fn forget_old_look_ups(&mut self, now: Instant) {
        self.looked_up.retain(|_, at| now < *at + LOOK_UP_EVERY);
    }

    /// Call [`Self::forget_old_look_ups`] first.
    pub(super) fn needs_look_up(&self, target: &ServerTarget) -> bool {
        !self.looked_up.contains_key(target)
    }

    /// After a reload: the runners are inserted again.
    pub(super) fn keep_look_ups(&mut self, old: Self) {
        self.looked_up = old.looked_up;
    }
}

impl Runner {
    /// When it counts as lost, unless GitHub lists it as online or busy before. `None` while it
    /// is reachable.
    pub(super) fn lost_at(&self) -> Option<Instant> {
        let unreachable = self.unreachable?.instant;
        let alive = self.seen.at.filter(|_| self.seen.alive);
        let since =
            self.seen.offline.unwrap_or(alive.map_or(unreachable, |at| at.max(unreachable)));
        Some(since + LOST_AFTER)
    }

    /// Takes in what the list of this number says of a runner that is unreachable. Returns
    /// whether it is lost.
    pub(super) fn is_lost(&mut self, list: u64, requested_at: Instant, now: Instant) -> bool {
        let older = |moment: Moment| moment.instant <= requested_at;
        if !self.phase.runs() || !self.unreachable.is_some_and(older) {
            return false;
        }
        let listed = self.seen.list == list;
        let registered =
            self.registration_id.is_some() || self.seen.online || self.phase != Phase::Starting;
        if listed && self.seen.alive {
            self.seen.offline = None;
        } else if listed || registered {
            self.seen.offline.get_or_insert(now);
            return self.lost_at().is_some_and(|at| at <= now);
        }
        false
    }
}

impl State {
    /// Its machine does not answer.
    pub(super) fn lost_contact(&mut self, name: &str, now: Moment) {
        self.set_unreachable(name, Some(now));
    }

    /// Its machine answers again, or it is known to be gone.
    pub(super) fn regained_contact(&mut self, name: &str) {
        self.set_unreachable(name, None);
    }

    fn set_unreachable(&mut self, name: &str, since: Option<Moment>) {
        if let Some(runner) = self.runners.get_mut(name) {
            self.unreachable.set(runner, since, &mut self.lanes);
        }
    }
}
