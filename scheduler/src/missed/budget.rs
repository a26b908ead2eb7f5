//! Request budgets: the share of a rate limit that may be spent on missed webhooks.

use std::time::Duration;

use crate::model::{Instant, Moment};

/// GitHub's lowest limit, assumed until it reports the real one.
const INITIAL_LIMIT: u64 = 5_000;
const HOUR: Duration = Duration::from_secs(3_600);
const HOUR_MS: f64 = 3_600_000.0;
/// The part of an hour's share that may be spent at once.
const BURST: f64 = 1.0 / 12.0;
const BURST_MIN: f64 = 10.0;
/// The last tenth of a limit is left to launches.
const LEFT_TO_LAUNCHES: u64 = 10;

/// A rate limit as GitHub reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Requests per hour.
    pub limit: u64,
    pub remaining: u64,
    /// When `remaining` is `limit` again, in seconds since the Unix epoch.
    pub reset: u64,
}

/// A token bucket that is filled with the share once per hour.
#[derive(Debug)]
pub struct RequestBudget {
    share: f64,
    limit: u64,
    /// Requests that could be sent at `filled_at`.
    level: f64,
    filled_at: Instant,
    /// GitHub asked to wait, or too little is left for launches.
    closed_until: Option<Instant>,
    spent: u64,
    hour_began: Instant,
    /// A request is due and nothing is left.
    pub(super) exhausted: bool,
}

impl RequestBudget {
    pub(super) fn new(share: f64, now: Instant) -> Self {
        let mut budget = Self {
            share,
            limit: INITIAL_LIMIT,
            level: 0.0,
            filled_at: now,
            closed_until: None,
            spent: 0,
            hour_began: now,
            exhausted: false,
        };
        budget.level = budget.capacity();
        budget
    }

    /// Requests per hour.
    pub fn allowed(&self) -> u64 {
        self.per_hour() as u64
    }

    /// Requests in the current hour.
    pub fn spent(&self, now: Instant) -> u64 {
        if now < self.hour_began + HOUR { self.spent } else { 0 }
    }

    /// Whether a request is due and nothing is left.
    pub fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// When the next request may be sent. Not later than `now` means at once.
    pub fn opens_at(&self, now: Instant) -> Instant {
        let missing = (1.0 - self.level_at(now)).max(0.0);
        let wait = Duration::from_millis((missing / self.per_ms()).ceil() as u64);
        (now + wait).max(self.closed_until.unwrap_or(now))
    }

    pub(super) fn spend(&mut self, now: Instant) {
        self.fill(now);
        self.level -= 1.0;
        if now >= self.hour_began + HOUR {
            (self.hour_began, self.spent) = (now, 0);
        }
        self.spent += 1;
        if self.level >= self.capacity() / 2.0 {
            self.exhausted = false;
        }
    }

    /// Gives back the last request, which turned out to be free.
    pub(super) fn refund(&mut self) {
        self.level = (self.level + 1.0).min(self.capacity());
        self.spent = self.spent.saturating_sub(1);
    }

    pub(super) fn close(&mut self, until: Instant) {
        self.closed_until = self.closed_until.max(Some(until));
    }

    pub(super) fn update_limit(&mut self, reported: RateLimit, now: Moment) {
        self.fill(now.instant);
        self.limit = reported.limit;
        self.level = self.level.min(self.capacity());
        let reset_ms = reported.reset.saturating_mul(1000);
        let until_reset = Duration::from_millis(reset_ms.saturating_sub(now.wall));
        // A reset more than an hour away comes from a clock that is wrong.
        if reported.remaining < reported.limit / LEFT_TO_LAUNCHES && until_reset <= HOUR {
            self.close(now.instant + until_reset);
        }
    }

    fn fill(&mut self, now: Instant) {
        self.level = self.level_at(now);
        self.filled_at = self.filled_at.max(now);
    }

    fn level_at(&self, now: Instant) -> f64 {
        let elapsed = now.duration_since(self.filled_at).as_millis() as f64;
        (self.level + elapsed * self.per_ms()).min(self.capacity())
    }

    fn per_ms(&self) -> f64 {
        self.per_hour() / HOUR_MS
    }

    fn capacity(&self) -> f64 {
        (self.per_hour() * BURST).max(self.per_hour().min(BURST_MIN))
    }

    fn per_hour(&self) -> f64 {
        (self.limit as f64 * self.share).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: u64 = 1_700_000_000_000;
    const NOW: Instant = Instant::from_millis(1_000_000);
    const MS: Duration = Duration::from_millis(1);

    fn spent_within(budget: &mut RequestBudget, from: Instant, duration: Duration) -> u64 {
        let (mut now, mut spent) = (from, 0);
        while budget.opens_at(now) < from + duration && spent < 10_000 {
            now = budget.opens_at(now).max(now);
            budget.spend(now);
            spent += 1;
        }
        spent
    }

    #[test]
    fn an_hour_spends_the_share_and_what_was_saved() {
        let mut budget = RequestBudget::new(0.2, NOW);
        assert_eq!(budget.allowed(), 1_000);
        let first = spent_within(&mut budget, NOW, HOUR);
        assert!((1_000..=1_084).contains(&first), "{first}");
        let second = spent_within(&mut budget, NOW + HOUR, HOUR);
        assert!((999..=1_001).contains(&second), "{second}");
        // Nothing is saved beyond a twelfth.
        let later = spent_within(&mut budget, NOW + 20 * HOUR, HOUR);
        assert!((1_000..=1_084).contains(&later), "{later}");
    }

    #[test]
    fn a_small_share_is_kept_as_well() {
        for (share, allowed) in [(0.001, 5), (0.0001, 1)] {
            let mut budget = RequestBudget::new(share, NOW);
            assert_eq!(budget.allowed(), allowed);
            assert_eq!(spent_within(&mut budget, NOW, MS), allowed);
            assert_eq!(spent_within(&mut budget, NOW + MS, HOUR), allowed);
        }
    }

    #[test]
    fn free_requests_are_not_counted() {
        let mut budget = RequestBudget::new(0.2, NOW);
        for _ in 0..10_000 {
            assert!(budget.opens_at(NOW) <= NOW);
            budget.spend(NOW);
            budget.refund();
        }
        assert_eq!(budget.spent(NOW), 0);
        budget.spend(NOW);
        assert_eq!((budget.spent(NOW), budget.spent(NOW + HOUR)), (1, 0));
    }

    #[test]
    fn what_launches_need_is_left_to_them() {
        let mut budget = RequestBudget::new(1.0, NOW);
        let now = Moment { instant: NOW, wall: WALL };
        let reset = WALL / 1000 + 600;
        let at_reset = NOW + Duration::from_secs(600);
        budget.update_limit(RateLimit { limit: 15_000, remaining: 1_500, reset }, now);
        assert_eq!((budget.allowed(), budget.opens_at(NOW)), (15_000, NOW));
        budget.update_limit(RateLimit { limit: 15_000, remaining: 1_499, reset }, now);
        assert_eq!(budget.opens_at(NOW), at_reset);
        budget.close(at_reset + 5 * MS);
        assert_eq!(budget.opens_at(NOW), at_reset + 5 * MS);
    }
}
