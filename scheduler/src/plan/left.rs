//! Registrations that were left at GitHub when their runners ended, because GitHub did not
//! remove them in time.
//!
//! They are looked for again now and then, for a day: after that GitHub removes a runner that
//! never came back.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{Action, Gate, Registration, State};
use crate::model::{Instant, ServerTarget};

/// Between two tries at a target.
const TRY_EVERY: Duration = Duration::from_secs(3_600);
const KEPT: Duration = Duration::from_secs(25 * 3_600);
/// Of one target. If there are more, the oldest are left to GitHub.
const KEPT_MAX: usize = 1_000;

#[derive(Debug, Default)]
pub(super) struct LeftRegistrations {
    targets: BTreeMap<ServerTarget, AtTarget>,
}

#[derive(Debug, Default)]
struct AtTarget {
    /// Names of runners, and when each ended.
    ended: HashMap<String, Instant>,
    /// When to try next.
    next: Option<Instant>,
    /// The list of the target's runners was requested.
    requested: bool,
}

impl LeftRegistrations {
    pub(super) fn insert(&mut self, target: &ServerTarget, runner: &str, now: Instant) {
        let at = self.targets.entry(target.clone()).or_default();
        at.next.get_or_insert(now + TRY_EVERY);
        at.ended.insert(runner.to_owned(), now);
        if at.ended.len() > KEPT_MAX
            && let Some(oldest) =
                at.ended.iter().min_by_key(|(_, ended)| **ended).map(|(name, _)| name.clone())
        {
            at.ended.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, target: &ServerTarget, runner: &str) {
        if let Some(at) = self.targets.get_mut(target) {
            at.ended.remove(runner);
            if at.ended.is_empty() {
                self.targets.remove(target);
            }
        }
    }

    /// GitHub works again at the target.
    pub(super) fn try_now(&mut self, target: &ServerTarget, now: Instant) {
        if let Some(at) = self.targets.get_mut(target) {
            at.next = Some(now);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        self.targets.retain(|_, at| {
            at.ended.retain(|_, ended| *ended + KEPT > now);
            !at.ended.is_empty()
        });
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

impl State {
    /// Lists the runners of a target where registrations were left.
    pub(super) fn look_for_left(&mut self, now: Instant, actions: &mut Vec<Action>) {
        // One list at a time.
        if self.left.targets.is_empty() || self.last_look_up == Some(now) {
            return;
        }
        self.left.forget_old(now);
        let due = self
            .left
            .targets
            .iter()
            .filter(|(_, at)| at.next.is_none_or(|next| next <= now))
            .map(|(target, _)| target)
            .find(|target| self.may_look_up(target, now))
            .cloned();
        if let Some(target) = due {
            if let Some(at) = self.left.targets.get_mut(&target) {
                at.next = Some(now + TRY_EVERY);
                at.requested = true;
            }
            self.last_look_up = Some(now);
            actions.push(Action::LookUp(target));
        }
    }

    /// Removes the registrations that were left, of those that GitHub lists at their target.
    pub(super) fn remove_left(
        &mut self,
        target: &ServerTarget,
        listed: &[Registration],
        actions: &mut Vec<Action>,
    ) {
        let Some(at) = self.left.targets.get_mut(target).filter(|at| at.requested) else {
            return;
        };
        at.requested = false;
        let listed: HashMap<&str, &Registration> =
            listed.iter().map(|it| (it.name.as_str(), it)).collect();
        at.ended.retain(|name, _| listed.contains_key(name.as_str()));
        for name in at.ended.keys() {
            // One that is busy or online is not dead: the next try finds out.
            if let Some(Registration { id, online: false, busy: false, .. }) =
                listed.get(name.as_str())
            {
                actions.push(Action::Deregister {
                    runner: name.clone(),
                    target: target.clone(),
                    registration_id: *id,
                });
            }
        }
        if at.ended.is_empty() {
            self.left.targets.remove(target);
        }
    }

    /// Whether nothing speaks against asking GitHub about a target: one that fails gets few
    /// requests of any kind.
    pub(super) fn may_look_up(&self, target: &ServerTarget, now: Instant) -> bool {
        if !self.backoffs.allowances.allows_look_up(target, now) {
            return false;
        }
        if self.backoffs.is_empty() && self.look_up_backoffs.is_empty() {
            return true;
        }
        [&self.backoffs, &self.look_up_backoffs].into_iter().all(|backoffs| {
            let gate = self.best_gate(target, |it| backoffs.gate_of_requests(target, it, now));
            !matches!(gate, Gate::Closed(..))
        })
    }
}
