//! Time: a monotonic clock for limits, wall time for people and the store.
//!
//! The two are different types, and only [`Moment`] converts between them.

use std::{ops::Add, time::Duration};

/// Wall time in milliseconds since the Unix epoch, for display and the store. It jumps when
/// the clock is set, so no limit depends on it.
pub type UnixMs = u64;

/// A point on a monotonic clock that also counts suspension, in milliseconds since boot.
/// Negative before boot: a job may be older than the machine's uptime.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Instant(i64);

impl Instant {
    /// Later than any other: never.
    pub const MAX: Self = Self(i64::MAX);

    pub const fn from_millis(since_boot: i64) -> Self {
        Self(since_boot)
    }

    /// Zero if `earlier` is in fact later.
    pub fn duration_since(self, earlier: Self) -> Duration {
        let ms = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(ms).unwrap_or_default())
    }
}

/// Saturates, so that a limit of `u64::MAX` milliseconds means never.
impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }
}

/// Both clocks, read at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub instant: Instant,
    pub wall: UnixMs,
}

impl Moment {
    /// When something happened that was recorded in wall time. If the clock was set back
    /// since, so that the record lies in the future, it happened now.
    pub fn instant_of(self, wall: UnixMs) -> Instant {
        let age = Duration::from_millis(self.wall.saturating_sub(wall));
        Instant(self.instant.0.saturating_sub(millis(age)))
    }

    /// For display: the wall time at a past or future instant, unless the clock is set.
    pub fn wall_of(self, instant: Instant) -> UnixMs {
        self.wall.saturating_add_signed(instant.0.saturating_sub(self.instant.0))
    }

    /// A past event that was recorded in wall time.
    pub fn at_wall(self, wall: UnixMs) -> Self {
        Self { instant: self.instant_of(wall), wall }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Moment = Moment { instant: Instant::from_millis(5_000), wall: 1_000_000 };

    #[test]
    fn a_record_has_the_age_that_its_wall_time_says_and_at_least_zero() {
        assert_eq!(NOW.instant_of(998_000), Instant::from_millis(3_000));
        assert_eq!(NOW.instant_of(0), Instant::from_millis(-995_000));
        assert_eq!(NOW.instant_of(1_000_001), NOW.instant);
        assert_eq!(NOW.instant_of(UnixMs::MAX), NOW.instant);
    }

    #[test]
    fn instants_are_shown_in_wall_time() {
        assert_eq!(NOW.wall_of(Instant::from_millis(8_000)), 1_003_000);
        assert_eq!(NOW.wall_of(Instant::from_millis(0)), 995_000);
        assert_eq!(NOW.wall_of(Instant::from_millis(-2_000_000)), 0);
    }

    #[test]
    fn limits_without_end_do_not_overflow() {
        assert_eq!(NOW.instant + Duration::from_millis(u64::MAX), Instant::MAX);
        assert_eq!(Instant::MAX + Duration::MAX, Instant::MAX);
        assert_eq!(NOW.instant.duration_since(Instant::MAX), Duration::ZERO);
        NOW.wall_of(Instant::MAX);
    }
}
