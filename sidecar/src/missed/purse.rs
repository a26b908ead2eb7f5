//! A share of a budget.

use crate::github::Budget;
use edgerunner_scheduler::model::UnixMs;

/// What GitHub allows at least, until it has told.
const LIMIT_AT_FIRST: u64 = 5_000;
const HOUR_MS: u64 = 3_600_000;
/// Of an hour's share so much may be spent at once.
const AT_ONCE: f64 = 1.0 / 12.0;
const AT_ONCE_MIN: f64 = 10.0;
/// The last tenth of a budget is left to launches.
const LEFT_TO_OTHERS: u64 = 10;

/// A token bucket that an hour fills with the share.
#[derive(Debug)]
pub(super) struct RequestBudget {
    share: f64,
    limit: u64,
    /// Requests that may be sent, as it was at `filled_at`.
    level: f64,
    filled_at: UnixMs,
    /// GitHub asked to wait, or too little is left for launches.
    closed_until: UnixMs,
    spent: u64,
    hour_began: UnixMs,
    /// Nothing is left although something is due.
    pub(super) used_up: bool,
}

impl RequestBudget {
    pub(super) fn new(share: f64, now: UnixMs) -> Self {
        let mut purse = Self {
            share,
            limit: LIMIT_AT_FIRST,
            level: 0.0,
            filled_at: now,
            closed_until: 0,
            spent: 0,
            hour_began: now,
            used_up: false,
        };
        purse.level = purse.capacity();
        purse
    }

    /// Requests in an hour.
    pub(super) fn allowed(&self) -> u64 {
        self.an_hours() as u64
    }

    /// Of the hour that runs.
    pub(super) fn spent(&self, now: UnixMs) -> u64 {
        if now < self.hour_began + HOUR_MS { self.spent } else { 0 }
    }

    /// When the next request may be sent: not after `now` if at once.
    pub(super) fn opens(&self, now: UnixMs) -> UnixMs {
        let missing = (1.0 - self.level_at(now)).max(0.0);
        let filled = now + (missing / self.per_ms()).ceil() as u64;
        filled.max(self.closed_until)
    }

    pub(super) fn spend(&mut self, now: UnixMs) {
        self.fill(now);
        self.level -= 1.0;
        if now >= self.hour_began + HOUR_MS {
            (self.hour_began, self.spent) = (now, 0);
        }
        self.spent += 1;
        if self.level >= self.capacity() / 2.0 {
            self.used_up = false;
        }
    }

    /// What was spent last cost nothing.
    pub(super) fn take_back(&mut self) {
        self.level = (self.level + 1.0).min(self.capacity());
        self.spent = self.spent.saturating_sub(1);
    }

    pub(super) fn close(&mut self, until: UnixMs) {
        self.closed_until = self.closed_until.max(until);
    }

    pub(super) fn learn(&mut self, budget: Budget, now: UnixMs) {
        self.fill(now);
        self.limit = budget.limit;
        self.level = self.level.min(self.capacity());
        let reset = budget.reset.saturating_mul(1000);
        if budget.remaining < budget.limit / LEFT_TO_OTHERS && reset <= now + HOUR_MS {
            self.close(reset);
        }
    }

    fn fill(&mut self, now: UnixMs) {
        self.level = self.level_at(now);
        self.filled_at = self.filled_at.max(now);
    }

    fn level_at(&self, now: UnixMs) -> f64 {
        let elapsed = now.saturating_sub(self.filled_at) as f64;
        (self.level + elapsed * self.per_ms()).min(self.capacity())
    }

    fn per_ms(&self) -> f64 {
        self.an_hours() / HOUR_MS as f64
    }

    fn capacity(&self) -> f64 {
        (self.an_hours() * AT_ONCE).max(self.an_hours().min(AT_ONCE_MIN))
    }

    fn an_hours(&self) -> f64 {
        (self.limit as f64 * self.share).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 1_700_000_000_000;

    fn spent_within(purse: &mut RequestBudget, from: UnixMs, ms: u64) -> u64 {
        let (mut now, mut spent) = (from, 0);
        while purse.opens(now) < from + ms && spent < 10_000 {
            now = purse.opens(now).max(now);
            purse.spend(now);
            spent += 1;
        }
        spent
    }

    #[test]
    fn an_hour_spends_the_share_and_what_was_saved() {
        let mut purse = RequestBudget::new(0.2, NOW);
        assert_eq!(purse.allowed(), 1_000);
        let first = spent_within(&mut purse, NOW, HOUR_MS);
        assert!((1_000..=1_084).contains(&first), "{first}");
        let second = spent_within(&mut purse, NOW + HOUR_MS, HOUR_MS);
        assert!((999..=1_001).contains(&second), "{second}");
        // Nothing is saved beyond a twelfth.
        let later = spent_within(&mut purse, NOW + 20 * HOUR_MS, HOUR_MS);
        assert!((1_000..=1_084).contains(&later), "{later}");
    }

    #[test]
    fn a_small_share_is_kept_as_well() {
        for (share, allowed) in [(0.001, 5), (0.0001, 1)] {
            let mut purse = RequestBudget::new(share, NOW);
            assert_eq!(purse.allowed(), allowed);
            assert_eq!(spent_within(&mut purse, NOW, 1), allowed);
            assert_eq!(spent_within(&mut purse, NOW + 1, HOUR_MS), allowed);
        }
    }

    #[test]
    fn what_cost_nothing_is_not_counted() {
        let mut purse = RequestBudget::new(0.2, NOW);
        for _ in 0..10_000 {
            assert!(purse.opens(NOW) <= NOW);
            purse.spend(NOW);
            purse.take_back();
        }
        assert_eq!(purse.spent(NOW), 0);
        purse.spend(NOW);
        assert_eq!((purse.spent(NOW), purse.spent(NOW + HOUR_MS)), (1, 0));
    }

    #[test]
    fn what_launches_need_is_left_to_them() {
        let mut purse = RequestBudget::new(1.0, NOW);
        let reset = NOW / 1000 + 600;
        purse.learn(Budget { limit: 15_000, remaining: 1_500, reset }, NOW);
        assert_eq!((purse.allowed(), purse.opens(NOW)), (15_000, NOW));
        purse.learn(Budget { limit: 15_000, remaining: 1_499, reset }, NOW);
        assert_eq!(purse.opens(NOW), reset * 1000);
        purse.close(reset * 1000 + 5);
        assert_eq!(purse.opens(NOW), reset * 1000 + 5);
    }
}
