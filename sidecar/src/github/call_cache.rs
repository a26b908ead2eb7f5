//! Results of calls: shared by concurrent callers, and cached.

use std::hash::Hash;

use quick_cache::sync::Cache;

use super::error::Error;

/// Far more targets than one credential serves. Beyond it, some values are requested again.
const VALUES_MAX: usize = 1_000;

/// Values by key. Concurrent callers share one call and its result, failure included, so that
/// fifty waiters do not become fifty failing calls.
pub(super) struct CallCache<K, V>(Cache<K, Result<V, Error>>);

impl<K: Clone + Eq + Hash, V: Clone> CallCache<K, V> {
    pub(super) fn new() -> Self {
        Self(Cache::new(VALUES_MAX))
    }

    /// The cached value if it `is_current`, or else the result of `call`. If the caller that
    /// makes the call is dropped, the next waiting caller makes it.
    pub(super) async fn get(
        &self,
        key: &K,
        is_current: impl FnOnce(&V) -> bool,
        call: impl Future<Output = Result<V, Error>>,
    ) -> Result<V, Error> {
        // Errors are cached only for callers that already wait.
        self.0.remove_if(key, |cached| !cached.as_ref().is_ok_and(is_current));
        match self.0.get_value_or_guard_async(key).await {
            Ok(result) => result,
            Err(guard) => {
                let result = call.await;
                // It fails if the value was evicted; waiting callers get it anyway.
                let _ = guard.insert(result.clone());
                result
            }
        }
    }

    /// The key of a value for which `condition` holds.
    pub(super) fn find(&self, condition: impl Fn(&V) -> bool) -> Option<K> {
        let mut all = self.0.iter();
        let found = all.find(|(_, cached)| cached.as_ref().is_ok_and(&condition));
        found.map(|(key, _)| key)
    }

    /// Removes the values for which `condition` holds.
    pub(super) fn remove_if(&self, condition: impl Fn(&K, &V) -> bool) {
        self.0.retain(|key, cached| !cached.as_ref().is_ok_and(|value| condition(key, value)));
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use futures_util::{FutureExt as _, future::join_all};
    use tokio::task::yield_now;

    use super::{super::ErrorKind, *};

    fn failure() -> Error {
        Error::new(ErrorKind::Server, "a call", "failed")
    }

    #[tokio::test]
    async fn fifty_waiters_share_one_call_and_its_failure() {
        let cache = CallCache::<_, usize>::new();
        let (calls, outcome) = (Cell::new(0), Cell::new(None));
        let call = async || {
            calls.set(calls.get() + 1);
            yield_now().await;
            outcome.get().ok_or_else(failure)
        };
        let fifty = async || join_all((0..50).map(|_| cache.get(&"a", |_| true, call()))).await;

        assert!(fifty().await.iter().all(Result::is_err));
        assert_eq!(calls.get(), 1);

        outcome.set(Some(7));
        assert!(fifty().await.into_iter().all(|result| result.unwrap() == 7));
        assert_eq!(calls.get(), 2, "a failure is not cached");
        fifty().await;
        assert_eq!(calls.get(), 2, "a value is");

        cache.get(&"b", |_| true, call()).await.unwrap();
        assert_eq!(calls.get(), 3, "another key has its own");
    }

    #[tokio::test]
    async fn a_value_that_is_not_current_or_was_removed_is_called_for_again() {
        let cache = CallCache::new();
        let get = async |is_current, value| {
            cache.get(&"a", |_: &i32| is_current, async { Ok(value) }).await.unwrap()
        };
        assert_eq!(get(true, 1).await, 1);
        assert_eq!(get(true, 2).await, 1);
        assert_eq!(get(false, 3).await, 3);
        cache.remove_if(|_, value| *value == 1);
        assert_eq!(get(true, 4).await, 3);
        cache.remove_if(|_, value| *value == 3);
        assert_eq!(get(true, 5).await, 5);
    }

    #[tokio::test]
    async fn a_call_whose_caller_is_gone_is_made_by_the_next_one() {
        let cache = CallCache::<_, usize>::new();
        let calls = Cell::new(0);
        let call = async || Ok(calls.replace(calls.get() + 1));
        let mut first = Box::pin(cache.get(&"a", |_| true, pending()));
        assert!(first.as_mut().now_or_never().is_none());
        let waiters = (0..20).map(|_| cache.get(&"a", |_| true, call()));
        let mut waiters = Box::pin(join_all(waiters));
        assert!(waiters.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiters.await.into_iter().all(|result| result.unwrap() == 0));
        assert_eq!(calls.get(), 1);
    }
}
