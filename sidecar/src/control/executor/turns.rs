//! Turns: limits how many requests are sent to one target at once.
//!
//! A target gets one request at a time until one succeeds. If that fails instead, those that
//! wait fail with it: a burst of jobs of a repository that GitHub refuses costs one request.
//! Targets do not wait for each other.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use edgerunner_scheduler::model::ServerTarget;

/// Requests to one target at once, after one has succeeded.
const AT_ONCE_MAX: usize = 8;

pub(super) struct Turns<F>(Mutex<HashMap<ServerTarget, Arc<AtTarget<F>>>>);

struct AtTarget<F> {
    permits: Arc<Semaphore>,
    succeeded: AtomicBool,
    failure: Mutex<Option<F>>,
}

/// The right to send a request. The next one's turn comes when it is dropped.
pub(super) struct Turn<'a, F> {
    turns: &'a Turns<F>,
    target: ServerTarget,
    at: Arc<AtTarget<F>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<F: Clone> Turns<F> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) async fn enter(&self, target: &ServerTarget) -> Turn<'_, F> {
        let at = Arc::clone(self.locked().entry(target.clone()).or_insert_with(|| {
            Arc::new(AtTarget {
                permits: Arc::new(Semaphore::new(1)),
                succeeded: AtomicBool::new(false),
                failure: Mutex::new(None),
            })
        }));
        // Before the wait, which may be dropped.
        let mut turn = Turn { turns: self, target: target.clone(), at, permit: None };
        // It is never closed.
        turn.permit = Arc::clone(&turn.at.permits).acquire_owned().await.ok();
        turn
    }
}

impl<F> Turns<F> {
    fn locked(&self) -> MutexGuard<'_, HashMap<ServerTarget, Arc<AtTarget<F>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Clone> Turn<'_, F> {
    /// The failure of a request that this one waited for, unless another one succeeded.
    pub(super) fn failure(&self) -> Option<F> {
        if self.at.succeeded.load(Ordering::Relaxed) {
            return None;
        }
        self.at.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn succeeded(&self) {
        if !self.at.succeeded.swap(true, Ordering::Relaxed) {
            self.at.permits.add_permits(AT_ONCE_MAX - 1);
        }
    }

    pub(super) fn failed(&self, failure: F) {
        *self.at.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure);
    }
}

impl<F> Drop for Turn<'_, F> {
    fn drop(&mut self) {
        let mut targets = self.turns.locked();
        // The map and this one: nobody else waits or works.
        if Arc::strong_count(&self.at) == 2 {
            targets.remove(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> ServerTarget {
        format!("org:{name}").parse().unwrap()
    }

    #[tokio::test]
    async fn those_that_wait_fail_with_the_first_and_later_ones_try_again() {
        let turns = Turns::new();
        let first = turns.enter(&target("acme")).await;
        assert_eq!(first.failure(), None);
        let acme = target("acme");
        let waiting = async { turns.enter(&acme).await.failure() };
        let failing = async {
            first.failed("refused");
            drop(first);
        };
        let (failure, ()) = tokio::join!(waiting, failing);
        assert_eq!(failure, Some("refused"));
        assert_eq!(turns.enter(&target("acme")).await.failure(), None);
        assert!(turns.locked().is_empty());
    }

    #[tokio::test]
    async fn a_success_lets_others_in_at_once_and_another_target_never_waits() {
        let turns = Turns::<()>::new();
        let first = turns.enter(&target("acme")).await;
        let _elsewhere = turns.enter(&target("other")).await;
        first.succeeded();
        for _ in 1..AT_ONCE_MAX {
            std::mem::forget(turns.enter(&target("acme")).await.permit.take());
        }
        assert_eq!(first.at.permits.available_permits(), 0);
    }
}
