//! A time in which the provider does not answer.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::{debug, error, info};

/// Why the provider does not answer, if it does not: logged when it begins, when the reason
/// changes, and when it ends.
#[derive(Default)]
pub(super) struct Outage(Mutex<Option<String>>);

impl Outage {
    /// `is_used`: by a pool.
    pub(super) fn begin(&self, provider: &str, error: String, is_used: bool) {
        let mut current = self.current();
        if current.as_ref() != Some(&error) {
            match is_used {
                true => error!(
                    provider,
                    error, "the provider does not answer: nothing is launched there until it does"
                ),
                false => debug!(provider, error, "the provider does not answer; no pool uses it"),
            }
            *current = Some(error);
        }
    }

    pub(super) fn end(&self, provider: &str) {
        if self.current().take().is_some() {
            info!(provider, "the provider answers again");
        }
    }

    pub(super) fn error(&self) -> Option<String> {
        self.current().clone()
    }

    fn current(&self) -> MutexGuard<'_, Option<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
