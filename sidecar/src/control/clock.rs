//! The clocks: the only file that reads time for the scheduler.

use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use edgerunner_scheduler::model::{Instant, Moment, UnixMs};

/// The time on both clocks.
pub(crate) fn now() -> Moment {
    Moment { instant: instant(), wall: wall() }
}

/// Unlike `std::time::Instant`, it counts the time that the machine is suspended.
fn instant() -> Instant {
    let since_boot = clock_gettime(ClockId::Boottime);
    let ms = since_boot.tv_sec.saturating_mul(1000) + since_boot.tv_nsec / 1_000_000;
    Instant::from_millis(ms)
}

fn wall() -> UnixMs {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since_epoch.as_millis()).unwrap_or(UnixMs::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_monotonic_clock_advances_in_milliseconds() {
        let before = now();
        std::thread::park_timeout(Duration::from_millis(20));
        let elapsed = now().instant.duration_since(before.instant);
        assert!((Duration::from_millis(19)..Duration::from_secs(20)).contains(&elapsed));
    }
}
