//! Singleflight: concurrent callers share one call.
//!
//! For image pulls. quick_cache, which does the same for tokens, ends a call with the caller
//! that began it; a pull that outlasts one launch must go on for the others that wait.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

/// Runs at most one call per key at a time. Callers with the key of a call in progress wait for
/// it and get its result, failure included, so that fifty waiters do not become fifty failing
/// calls.
pub(crate) struct Singleflight<K, V> {
    // Weak: the callers own the call. When the last of them is dropped, the call is too, and
    // the next caller starts another instead of reviving a stale one.
    in_flight: Mutex<HashMap<K, WeakShared<BoxFuture<'static, V>>>>,
}

impl<K: Eq + Hash, V: Clone> Singleflight<K, V> {
    pub(crate) fn new() -> Self {
        Self { in_flight: Mutex::new(HashMap::new()) }
    }

    pub(crate) async fn run(&self, key: K, start: impl FnOnce() -> BoxFuture<'static, V>) -> V {
        self.call(key, start).await
    }

    fn call(
        &self,
        key: K,
        start: impl FnOnce() -> BoxFuture<'static, V>,
    ) -> Shared<BoxFuture<'static, V>> {
        let mut in_flight = self.in_flight.lock().unwrap_or_else(PoisonError::into_inner);
        // A completed call must not serve a later caller.
        in_flight.retain(|_, weak| weak.upgrade().is_some_and(|shared| shared.peek().is_none()));
        if let Some(call) = in_flight.get(&key).and_then(WeakShared::upgrade) {
            return call;
        }
        let call = start().shared();
        if let Some(weak) = call.downgrade() {
            in_flight.insert(key, weak);
        }
        call
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn waiters_share_one_call_and_later_callers_start_another() {
        let calls = Arc::new(Singleflight::new());
        let started = Arc::new(AtomicUsize::new(0));
        let finish = Arc::new(Notify::new());
        let call = |key: &'static str| {
            let (calls, started, finish) = (calls.clone(), started.clone(), finish.clone());
            async move {
                calls
                    .run(key, || {
                        let number = started.fetch_add(1, Ordering::SeqCst) + 1;
                        async move {
                            finish.notified().await;
                            number
                        }
                        .boxed()
                    })
                    .await
            }
        };

        let waiters: Vec<_> = (0..20).map(|_| tokio::spawn(call("a"))).collect();
        tokio::task::yield_now().await;
        finish.notify_one();
        for waiter in waiters {
            assert_eq!(waiter.await.unwrap(), 1);
        }

        finish.notify_one();
        assert_eq!(call("a").await, 2);
    }

    #[tokio::test]
    async fn an_abandoned_call_is_not_revived() {
        let calls = Singleflight::new();
        let abandoned = calls.run("a", || std::future::pending().boxed());
        assert!(abandoned.now_or_never().is_none());
        assert_eq!(calls.run("a", || async { 2 }.boxed()).await, 2);
    }
}
