use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Until when no call may be made with a credential: what GitHub tells one of them about
/// its limits holds for all.
#[derive(Default)]
pub(super) struct Pause(Mutex<Option<Instant>>);

impl Pause {
    pub(super) fn extend(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut paused = self.locked();
        *paused = Some(paused.map_or(until, |before| before.max(until)));
    }

    /// What is left of it, never less in milliseconds.
    pub(super) fn left(&self) -> Option<Duration> {
        let left = self.locked().and_then(|until| until.checked_duration_since(Instant::now()))?;
        Some(left + Duration::from_millis(1))
    }

    fn locked(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
