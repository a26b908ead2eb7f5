//! Singleflight: concurrent callers share one call.
//!
//! For image pulls. quick_cache, which does the same for tokens, ends a call with the caller
//! that began it; a pull that outlasts one launch must go on for the others that wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};

/// Runs at most one future per key at a time. Callers with a key that is in flight wait for that
/// flight and get its result, failure included, so that fifty waiters do not become fifty
/// failing calls.
pub(crate) struct Flights<K, V> {
    // Weak: the callers own the flight. When the last of them goes away the flight is dropped,
    // and the next caller starts another instead of reviving a stale one.
    in_flight: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

impl<K: Eq + Hash, V: Clone> Flights<K, V> {
    pub(crate) fn new() -> Self {
        Self { in_flight: Mutex::new(HashMap::new()) }
    }

    pub(crate) async fn join(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> V {
        self.flight(key, start).await
    }

    fn flight(
        &self,
        key: K,
        start: impl FnOnce() -> BoxFuture<'static, V>,
    ) -> Shared<BoxFuture<'static, V>> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        // A completed flight must not answer a later caller.
        in_flight.retain(|_, weak| weak.upgrade().is_some_and(|shared| shared.peek().is_none()));
        if let Some(flight) = in_flight.get(&key).and_then(WeakShared::upgrade) {
            return flight;
        }
        let flight = start().shared();
        if let Some(weak) = flight.downgrade() {
            in_flight.insert(key, weak);
        }
        flight
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn waiters_share_one_flight_and_later_callers_start_another() {
        let flights = Arc::new(Flights::new());
        let started = Arc::new(AtomicUsize::new(0));
        let land = Arc::new(Notify::new());
        let call = |key: &'static str| {
            let (flights, started, land) = (flights.clone(), started.clone(), land.clone());
            async move {
                flights
                    .join(key, || {
                        let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                        async move {
                            land.notified().await;
                            number
                        }
                        .boxed()
                    })
                    .await
            }
        };

        let waiters: Vec<_> = (0..20).map(|_| tokio::spawn(call("a"))).collect();
        tokio::task::yield_now().await;
        land.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 1);
        }

        land.notify_one();
        assert_eq!(call("a").await, 2);
    }

    #[tokio::test]
    async fn an_abandoned_flight_is_not_revived() {
        let flights = Flights::new();
        let abandoned = flights.join("a", || std::future::pending().boxed());
        assert!(abandoned.now_or_never().is_none());
        assert_eq!(flights.join("a", || async { 2 }.boxed()).await, 2);
    }
}
