//! Launches that wait until their provider has room, because no machine has the CPUs, the memory
//! or the labels that the runner needs.
//!
//! Such a launch waits for as long as a job needs it, but not until its credentials end: then it
//! ends, and another takes its place. Meanwhile jobs that another pool could serve as well move
//! there.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{
    Action, EndReason, LaneKey, Phase, Runner, Stage, State, demand::Lane, launch::LAUNCHING_MAX,
};
use crate::model::{Instant, Moment};

/// While launches of a pool wait for room, it has at most so many in flight, and nothing more is
/// launched once all of them wait. Each one may be a registration at GitHub.
pub(super) const WAITING_FOR_ROOM_MAX: usize = 16;
/// How long after a pool lacked room the jobs that other pools can serve avoid it. Then one launch
/// tries it again.
const AVOIDED: Duration = Duration::from_secs(300);

/// A launch that waits ends this long before its credentials do. A runner that got room has yet to
/// pull its image and to start.
pub(super) const CREDENTIALS_LEFT_MIN: Duration = Duration::from_secs(300);
/// The least that a launch waits: GitHub may have issued credentials that end at once.
const WAIT_MIN: Duration = Duration::from_secs(60);

/// A launch of a pool waits for room, or did a while ago and was ended.
#[derive(Clone, Debug)]
pub(super) struct LackOfRoom {
    /// The provider's last message.
    message: String,
    /// Until when the pool is avoided, even if none of its launches waits any more.
    until: Instant,
}

impl State {
    /// The launch has no other time limit than that of its credentials until it gets room.
    pub(super) fn no_room(
        &mut self,
        name: &str,
        message: String,
        credentials_end: Instant,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let Some(Runner { phase: Phase::Provisioning(_), lane, created, .. }) =
            self.runners.get(name)
        else {
            return;
        };
        let (lane, launched_at) = (lane.clone(), created.instant);
        if let Some(LaneKey { pool, .. }) = &lane {
            let until = now.instant + AVOIDED;
            self.lack_room[*pool] = Some(LackOfRoom { message: message.clone(), until });
            self.backoffs.waits_for_room(self.pool(*pool).provider, launched_at);
        }
        self.set_phase(name, Phase::Provisioning(Stage::Room), now);
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        runner.no_room = Some(message);
        let left = credentials_end.duration_since(now.instant + CREDENTIALS_LEFT_MIN);
        let until = (now.instant + left).max(runner.since.instant + WAIT_MIN);
        self.set_deadline(name, Some(until));
        if self.forced.remove(name) {
            self.remove_runner(name, true, now, actions);
        } else if self.runners.get(name).is_some_and(|runner| self.is_draining(runner)) {
            self.start_removal(name, EndReason::Drained, false, now, actions);
        } else if lane.is_none() {
            // Its pool is no longer configured.
            self.start_removal(name, EndReason::NotNeeded, false, now, actions);
        }
    }

    /// A launch of the lane got room, or needed to wait for none.
    pub(super) fn has_room(&mut self, lane: &LaneKey) {
        if self.pool_counts[lane.pool].without_room == 0 {
            self.lack_room[lane.pool] = None;
        }
    }

    /// How many more jobs a pool has room for, as far as is known.
    pub(super) fn known_room(&self, pool: usize, now: Instant) -> usize {
        let counts = &self.pool_counts[pool];
        match &self.lack_room[pool] {
            None => usize::MAX,
            Some(lack) if counts.without_room > 0 || now < lack.until => 0,
            Some(_) => usize::from(counts.provisioning == 0),
        }
    }

    /// The limit of launches in flight in a pool, those that wait for room included.
    pub(super) fn launches_max(&self, pool: usize) -> usize {
        match self.pool_counts[pool].without_room {
            0 => LAUNCHING_MAX,
            _ => WAITING_FOR_ROOM_MAX,
        }
    }

    /// The provider's message, if nothing more is launched in a pool since too many of its
    /// launches wait for room.
    pub(super) fn held_up_by_room(&self, pool: usize) -> Option<&str> {
        let counts = &self.pool_counts[pool];
        let held_up = counts.without_room > 0 && counts.provisioning >= WAITING_FOR_ROOM_MAX;
        self.lack_room[pool].as_ref().filter(|_| held_up).map(|lack| lack.message.as_str())
    }

    /// Ends launches that wait for room although nothing needs them any more, the youngest first.
    /// Returns whether there were any.
    pub(super) fn end_needless_launches(&mut self, now: Moment, actions: &mut Vec<Action>) -> bool {
        if self.needless.is_empty() {
            return false;
        }
        let mut waiting: BTreeMap<&LaneKey, Vec<(Reverse<Instant>, &str)>> = BTreeMap::new();
        for runner in self.runners.values().filter(|runner| runner.phase.waits_for_room()) {
            if let Some(key) = runner.lane.as_ref().filter(|key| self.needless.contains(*key)) {
                let since = Reverse(runner.since.instant);
                waiting.entry(key).or_default().push((since, runner.name.as_str()));
            }
        }
        let mut ended = Vec::new();
        for (key, mut runners) in waiting {
            if let Some(lack) = &mut self.lack_room[key.pool] {
                lack.until = now.instant + AVOIDED;
            }
            runners.sort_unstable();
            let needless = self.lanes.get(key).map_or(0, Lane::needless);
            ended.extend(runners.into_iter().take(needless).map(|(_, name)| name.to_owned()));
        }
        for name in &ended {
            self.start_removal(name, EndReason::NotNeeded, false, now, actions);
        }
        !ended.is_empty()
    }
}
