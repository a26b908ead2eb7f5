//! Turns: limits how many requests are sent to one target at once, or to one target with one
//! credential.
//!
//! A target gets one request at a time until one succeeds. If one fails instead, those that
//! began before it failed fail with it: a burst of jobs of a repository that GitHub refuses
//! costs one request. Targets do not wait for each other.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Requests to one target at once, after one has succeeded.
const AT_ONCE_MAX: usize = 8;
/// How long a failure is kept for launches that still wait for their image.
const FAILURE_KEPT: Duration = Duration::from_secs(600);

/// By target, and what else `K` names.
pub(super) struct Turns<K, F>(Mutex<HashMap<K, Arc<AtTarget<F>>>>);

struct AtTarget<F> {
    permits: Arc<Semaphore>,
    succeeded: AtomicBool,
    /// The last failure, unless a request has succeeded.
    failure: Mutex<Option<(Instant, F)>>,
}

/// The right to send a request. The next one's turn comes when it is dropped.
pub(super) struct Turn<'a, K: Eq + Hash, F> {
    turns: &'a Turns<K, F>,
    target: K,
    at: Arc<AtTarget<F>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl<K: Clone + Eq + Hash, F> Turns<K, F> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    pub(super) async fn enter(&self, target: &K) -> Turn<'_, K, F> {
        let at = {
            let mut targets = self.locked();
            targets.retain(|_, at| Arc::strong_count(at) > 1 || at.has_failed());
            let at = targets.entry(target.clone()).or_insert_with(|| {
                Arc::new(AtTarget {
                    permits: Arc::new(Semaphore::new(1)),
                    succeeded: AtomicBool::new(false),
                    failure: Mutex::new(None),
                })
            });
            Arc::clone(at)
        };
        // Before the wait, which may be dropped.
        let mut turn = Turn { turns: self, target: target.clone(), at, permit: None };
        // It is never closed.
        turn.permit = Arc::clone(&turn.at.permits).acquire_owned().await.ok();
        turn
    }
}

impl<K, F> Turns<K, F> {
    fn locked(&self) -> MutexGuard<'_, HashMap<K, Arc<AtTarget<F>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F> AtTarget<F> {
    fn last_failure(&self) -> MutexGuard<'_, Option<(Instant, F)>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_failed(&self) -> bool {
        self.last_failure().as_ref().is_some_and(|(at, _)| at.elapsed() < FAILURE_KEPT)
    }
}

impl<K: Eq + Hash, F: Clone> Turn<'_, K, F> {
    /// The failure of another request after this one `began`, unless one has succeeded.
    pub(super) fn failure(&self, began: Instant) -> Option<F> {
        let failure = self.at.last_failure();
        failure.as_ref().filter(|(at, _)| *at >= began).map(|(_, failure)| failure.clone())
    }

    pub(super) fn succeeded(&self) {
        if !self.at.succeeded.swap(true, Ordering::Relaxed) {
            self.at.permits.add_permits(AT_ONCE_MAX - 1);
        }
        *self.at.last_failure() = None;
    }

    pub(super) fn failed(&self, failure: F) {
        if !self.at.succeeded.load(Ordering::Relaxed) {
            *self.at.last_failure() = Some((Instant::now(), failure));
        }
    }
}

impl<K: Eq + Hash, F> Drop for Turn<'_, K, F> {
    fn drop(&mut self) {
        let mut targets = self.turns.locked();
        // The map and this one: nobody else waits or works.
        if Arc::strong_count(&self.at) == 2 && !self.at.has_failed() {
            targets.remove(&self.target);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edgerunner_scheduler::model::ServerTarget;

    fn target(name: &str) -> ServerTarget {
        format!("org:{name}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_began_before_a_failure_share_it_and_later_ones_try_again() {
        let turns = Turns::new();
        let began = Instant::now();
        let first = turns.enter(&target("acme")).await;
        assert_eq!(first.failure(began), None);
        first.failed("refused");
        drop(first);
        // One that had to wait for its image.
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(turns.enter(&target("acme")).await.failure(began), Some("refused"));
        let later = turns.enter(&target("acme")).await;
        assert_eq!(later.failure(Instant::now()), None);
        later.succeeded();
        assert_eq!(later.failure(began), None);
        drop(later);
        assert!(turns.locked().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_not_kept_for_ever() {
        let turns = Turns::new();
        turns.enter(&target("acme")).await.failed("refused");
        tokio::time::advance(FAILURE_KEPT).await;
        drop(turns.enter(&target("other")).await);
        assert!(turns.locked().is_empty());
    }

    #[tokio::test]
    async fn a_success_lets_others_in_at_once_and_another_target_never_waits() {
        let turns = Turns::<_, ()>::new();
        let first = turns.enter(&target("acme")).await;
        let _elsewhere = turns.enter(&target("other")).await;
        first.succeeded();
        let mut held = Vec::new();
        for _ in 1..AT_ONCE_MAX {
            held.push(turns.enter(&target("acme")).await);
        }
        assert_eq!(first.at.permits.available_permits(), 0);
    }
}
