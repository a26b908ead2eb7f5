//! The timer of the root context, and the time that it measures.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use proxy_wasm::hostcalls;

/// Interval for checking timeouts and refreshing secrets.
const SLOW: Duration = Duration::from_millis(250);
/// While deliveries wait for a way to the sidecar.
const FAST: Duration = Duration::from_millis(50);
const SOON: Duration = Duration::from_millis(1);
/// The host's clock may be set forward.
const ELAPSED_MAX: Duration = Duration::from_secs(1);

/// All methods but `new` have to be called in the root context.
pub(super) struct Ticker {
    period: Cell<Duration>,
    last: Cell<Option<SystemTime>>,
}

impl Ticker {
    /// Does not tick yet.
    pub(super) fn new() -> Self {
        Self { period: Cell::new(Duration::ZERO), last: Cell::new(None) }
    }

    /// Ticks as soon as possible.
    pub(super) fn soon(&self) {
        self.set(SOON);
    }

    pub(super) fn set_fast(&self, fast: bool) {
        self.set(if fast { FAST } else { SLOW });
    }

    fn set(&self, period: Duration) {
        if self.period.replace(period) != period {
            // Fails only outside of the root context.
            let _ = hostcalls::set_tick_period(period);
        }
    }

    /// Time since the last call, which is to be made at each tick. Never negative, although the
    /// host's clock may be set back.
    pub(super) fn elapsed(&self) -> Duration {
        let now = hostcalls::get_current_time().ok();
        let elapsed = self.last.replace(now).zip(now);
        let elapsed = elapsed.and_then(|(last, now)| now.duration_since(last).ok());
        elapsed.map_or(self.period.get(), |elapsed| elapsed.min(ELAPSED_MAX))
    }
}
