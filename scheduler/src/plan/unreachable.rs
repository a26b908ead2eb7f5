//! Runners on machines that do not answer. They keep their phases and places, because they may
//! work on: only GitHub knows. One that GitHub has as offline for [`LOST_AFTER`] is removed.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use super::{Phase, Runner, State};
use crate::model::{Instant, Moment, ServerTarget};

/// How long GitHub must not have an unreachable runner as online or busy before it is removed.
pub(super) const LOST_AFTER: Duration = Duration::from_secs(600);
/// Between two look-ups of the runners at a target where one is unreachable.
const LOOK_UP_EVERY: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct UnreachableRunners {
    /// Also those that are being removed.
    names: BTreeSet<String>,
    /// When a list was last requested at their targets.
    looked_up: HashMap<ServerTarget, Instant>,
}

impl UnreachableRunners {
    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.names.iter()
    }

    pub(super) fn insert(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.names.remove(name);
    }

    /// The list of a target is requested.
    pub(super) fn look_up(&mut self, target: &ServerTarget, now: Instant) {
        if !self.names.is_empty() {
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

    /// After a reload: the runners were inserted again.
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

    /// Whether it has been registered, whatever GitHub lists now.
    fn was_registered(&self) -> bool {
        self.registration_id.is_some() || self.seen.online || self.phase != Phase::Starting
    }
}

impl State {
    /// Its machine does not answer.
    pub(super) fn lost_contact(&mut self, name: &str, now: Moment) {
        if let Some(runner) = self.runners.get_mut(name)
            && runner.unreachable.is_none()
        {
            runner.unreachable = Some(now);
            self.unreachable.insert(name);
        }
    }

    /// Its machine answers again, or it is known to be gone.
    pub(super) fn regained_contact(&mut self, name: &str) {
        if let Some(runner) = self.runners.get_mut(name) {
            (runner.unreachable, runner.seen.offline) = (None, None);
            self.unreachable.remove(name);
        }
    }

    /// What the list of this number says of the unreachable runners at its target. Returns those
    /// that are lost, in order.
    pub(super) fn find_lost(
        &mut self,
        target: &ServerTarget,
        list: u64,
        requested_at: Instant,
        now: Instant,
    ) -> Vec<String> {
        let mut lost = Vec::new();
        for name in self.unreachable.names() {
            let Some(runner) = self.runners.get_mut(name) else {
                continue;
            };
            let newer = |moment: Moment| moment.instant <= requested_at;
            if runner.target != *target
                || !runner.phase.runs()
                || !newer(runner.since)
                || !runner.unreachable.is_some_and(newer)
            {
                continue;
            }
            let listed = runner.seen.list == list;
            if listed && runner.seen.alive {
                runner.seen.offline = None;
            } else if listed || runner.was_registered() {
                runner.seen.offline.get_or_insert(now);
                if runner.lost_at().is_some_and(|at| at <= now) {
                    lost.push(name.clone());
                }
            }
        }
        lost
    }
}
