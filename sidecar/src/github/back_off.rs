//! Back-offs of calls for tokens: a refusal holds for every caller until the next attempt.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::error::{Error, ErrorKind};

const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// The same while GitHub is away: it may be back at any time, and the callers have back-offs of
/// their own.
const LONGEST_OUTAGE_WAIT: Duration = Duration::from_secs(30);
/// Far more keys than fail at once. Beyond it, the failures that are over are forgotten.
const FAILING_MAX: usize = 1_000;

/// Why there is no usable token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Problem {
    /// GitHub did not issue one.
    NotIssued,
    /// By GitHub's own clock, it has expired or is about to.
    Expired,
    /// GitHub refuses the token that it issued.
    Refused,
}

struct Failing {
    problem: Problem,
    /// Failures in a row.
    failures: u32,
    until: Instant,
    error: Error,
    warned: bool,
}

/// What fails, by key.
pub(super) struct BackOff<K>(Mutex<HashMap<K, Failing>>);

impl<K: Clone + Eq + Hash> BackOff<K> {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    /// The last error, if it is too early for another attempt.
    pub(super) fn check(&self, key: &K, now: Instant) -> Result<(), Error> {
        let failing = self.locked();
        let Some(Failing { until, error, .. }) = failing.get(key) else { return Ok(()) };
        let left = until.saturating_duration_since(now);
        if left.is_zero() {
            return Ok(());
        }
        let message = format!("{}; next attempt in {} s", error.message, left.as_secs() + 1);
        Err(Error { retry_after: Some(left), message, ..error.clone() })
    }

    /// Makes the call unless it is too early. Every failure delays the next attempt, except a
    /// rate limit, for which the credential pauses anyway.
    pub(super) async fn limit<V>(
        &self,
        key: &K,
        call: impl Future<Output = Result<V, Error>>,
    ) -> Result<V, Error> {
        self.check(key, Instant::now())?;
        let result = call.await;
        if let Err(error) = &result
            && error.kind != ErrorKind::RateLimited
        {
            self.failed(key, Problem::NotIssued, error, Instant::now());
        }
        result
    }

    /// Returns how long to wait. A first refusal is not waited for: GitHub revokes tokens, and
    /// another one may work.
    pub(super) fn failed(
        &self,
        key: &K,
        problem: Problem,
        error: &Error,
        now: Instant,
    ) -> Duration {
        let mut failing = self.locked();
        if failing.len() >= FAILING_MAX && !failing.contains_key(key) {
            failing.retain(|_, it| it.until > now);
        }
        let (before, warned) = failing.get(key).map_or((0, false), |it| (it.failures, it.warned));
        let failures = before.saturating_add(1);
        let doublings = failures - 1;
        let wait = match (problem, doublings) {
            (Problem::Refused, 0) => Duration::ZERO,
            (Problem::Refused, _) => doubled(doublings - 1, LONGEST_WAIT),
            _ => doubled(doublings, longest(error.kind)),
        };
        if !wait.is_zero() && !warned {
            tracing::warn!(
                error = error.message,
                seconds = wait.as_secs(),
                "no usable token from GitHub: attempts become rarer until there is one"
            );
        }
        let warned = warned || !wait.is_zero();
        let error = error.clone();
        let entry = Failing { problem, failures, until: now + wait, error, warned };
        failing.insert(key.clone(), entry);
        wait
    }

    /// Ends the back-off if it was for one of these problems.
    pub(super) fn succeeded(&self, key: &K, problems: &[Problem]) {
        let mut failing = self.locked();
        if failing.get(key).is_some_and(|it| problems.contains(&it.problem)) {
            failing.remove(key);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.locked().is_empty()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<K, Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn doubled(times: u32, longest: Duration) -> Duration {
    FIRST_WAIT.saturating_mul(1 << times.min(10)).min(longest)
}

fn longest(kind: ErrorKind) -> Duration {
    match kind {
        ErrorKind::Server | ErrorKind::Unreachable | ErrorKind::TimedOut => LONGEST_OUTAGE_WAIT,
        _ => LONGEST_WAIT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, "a call", "refused")
    }

    /// The seconds between attempts, each made as soon as it is allowed.
    fn waits(problem: Problem, kind: ErrorKind, attempts: usize) -> Vec<u64> {
        let back_off = BackOff::new();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for _ in 0..attempts {
            assert!(back_off.check(&"a", now).is_ok());
            let wait = back_off.failed(&"a", problem, &error(kind), now);
            waits.push(wait.as_secs());
            if !wait.is_zero() {
                let early = back_off.check(&"a", now + wait - Duration::from_millis(1));
                assert_eq!(early.unwrap_err().kind, kind);
            }
            now += wait;
        }
        waits
    }

    #[test]
    fn attempts_become_rarer() {
        use ErrorKind::{Forbidden, Server, Unauthorized};
        let refused = [5, 10, 20, 40, 80, 160, 300, 300];
        assert_eq!(waits(Problem::NotIssued, Forbidden, 8), refused);
        assert_eq!(waits(Problem::Expired, Unauthorized, 8), refused);
        assert_eq!(waits(Problem::Refused, Unauthorized, 8), [0, 5, 10, 20, 40, 80, 160, 300]);
        assert_eq!(waits(Problem::NotIssued, Server, 5), [5, 10, 20, 30, 30]);
    }

    #[tokio::test]
    async fn every_caller_gets_the_last_error_until_the_next_attempt() {
        let back_off = BackOff::new();
        let failing = async || Err::<(), _>(error(ErrorKind::Forbidden));
        back_off.limit(&"a", failing()).await.unwrap_err();
        let held = back_off.limit(&"a", async { Ok(()) }).await.unwrap_err();
        assert_eq!(held.kind, ErrorKind::Forbidden);
        assert!(held.retry_after.is_some() && held.message.starts_with("a call: refused; next"));
        back_off.limit(&"b", async { Ok(()) }).await.unwrap();

        back_off.succeeded(&"a", &[Problem::Refused]);
        assert!(back_off.check(&"a", Instant::now()).is_err());
        back_off.succeeded(&"a", &[Problem::NotIssued]);
        assert!(back_off.check(&"a", Instant::now()).is_ok() && back_off.is_empty());
    }

    #[tokio::test]
    async fn a_rate_limit_is_no_refusal() {
        let back_off = BackOff::new();
        let limited = async { Err::<(), _>(error(ErrorKind::RateLimited)) };
        back_off.limit(&"a", limited).await.unwrap_err();
        assert!(back_off.is_empty());
    }
}
