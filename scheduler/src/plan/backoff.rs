//! Back-offs: what a failure pauses, and for how long.

use std::{collections::BTreeMap, time::Duration};

use super::LaneKey;
use crate::model::{Cause, Instant, Moment, ServerTarget};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// What a failure pauses: the widest scope that would fail for the same cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocked {
    /// Every launch at this provider.
    Provider(usize),
    /// Every launch that uses this credential.
    Credential(usize),
    /// Every launch.
    Store,
    Pool(usize),
    Lane(usize, ServerTarget),
}

impl Blocked {
    fn for_cause(cause: Cause, needs: Dependencies<'_>) -> Self {
        let (pool, target) = needs.lane;
        let lane = || Self::Lane(*pool, target.clone());
        match cause {
            Cause::DockerUnavailable => Self::Provider(needs.provider),
            Cause::Unauthorized | Cause::RateLimited | Cause::GitHubUnavailable => {
                needs.credential.map_or_else(lane, Self::Credential)
            }
            Cause::Store => Self::Store,
            Cause::Image
            | Cause::Container
            | Cause::RunnerExited
            | Cause::RunnerTooOld
            | Cause::NeverOnline => Self::Pool(*pool),
            Cause::Forbidden | Cause::Rejected | Cause::TimedOut => lane(),
        }
    }
}

/// Everything that a launch in a lane depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dependencies<'a> {
    pub(super) lane: &'a LaneKey,
    pub(super) provider: usize,
    pub(super) credential: Option<usize>,
}

impl Dependencies<'_> {
    fn all(self) -> impl Iterator<Item = Blocked> {
        let (pool, target) = self.lane;
        [
            Blocked::Provider(self.provider),
            Blocked::Store,
            Blocked::Pool(*pool),
            Blocked::Lane(*pool, target.clone()),
        ]
        .into_iter()
        .chain(self.credential.map(Blocked::Credential))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub cause: Cause,
    pub message: String,
    /// Failures in a row.
    pub failures: u32,
    /// The last failure that counted.
    pub since: Moment,
    pub until: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Backoffs {
    by_blocked: BTreeMap<Blocked, Backoff>,
}

impl Backoffs {
    /// Records a failed launch. `jitter` (0..1024) keeps pools from retrying in step.
    pub(super) fn failed(&mut self, failure: Failure<'_>, now: Moment, jitter: u32) {
        let Failure { needs, cause, message, launched_at, retry_after } = failure;
        let blocked = Blocked::for_cause(cause, needs);
        let requested = now.instant + retry_after;
        let failures = match self.by_blocked.get_mut(&blocked) {
            // Launches that were in flight together count once. Only a longer `Retry-After`
            // changes anything.
            Some(previous) if launched_at <= previous.since.instant => {
                if retry_after > Duration::ZERO && requested > previous.until {
                    (previous.cause, previous.message, previous.until) =
                        (cause, message, requested);
                }
                return;
            }
            Some(previous) => previous.failures.saturating_add(1),
            None => 1,
        };
        let wait = (FIRST_WAIT * (1 << (failures - 1).min(20))).min(LONGEST_WAIT);
        let until = (now.instant + (wait + wait * jitter / 4096)).max(requested);
        let backoff = Backoff { cause, message, failures, since: now, until };
        self.by_blocked.insert(blocked, backoff);
    }

    /// A launch led to a running container, so everything it depends on worked after
    /// `launched_at`.
    pub(super) fn launched(&mut self, needs: Dependencies<'_>, launched_at: Instant) {
        if self.by_blocked.is_empty() {
            return;
        }
        for blocked in needs.all() {
            let Some(backoff) = self.by_blocked.get(&blocked) else {
                continue;
            };
            let proved = match blocked {
                // That the image's runner works is known once GitHub has seen it.
                Blocked::Pool(_) => matches!(backoff.cause, Cause::Image | Cause::Container),
                _ => true,
            };
            if proved && launched_at > backoff.since.instant {
                self.by_blocked.remove(&blocked);
            }
        }
    }

    /// A runner of the pool came online or took a job: its image works.
    pub(super) fn healthy(&mut self, pool: usize) {
        self.by_blocked.remove(&Blocked::Pool(pool));
    }

    /// The longest back-off that a launch depends on. One that is over still lets only one
    /// launch through at a time: see [`Gate::OneAtATime`].
    pub(super) fn gate(&self, needs: Dependencies<'_>, now: Instant) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.longest(needs.all(), now)
    }

    pub(super) fn gate_for(&self, blocked: Blocked, now: Instant) -> Gate<'_> {
        self.longest([blocked], now)
    }

    /// The gate of the back-off that pauses only this lane.
    pub(super) fn gate_for_lane(&self, (pool, target): &LaneKey, now: Instant) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.gate_for(Blocked::Lane(*pool, target.clone()), now)
    }

    fn longest(&self, all: impl IntoIterator<Item = Blocked>, now: Instant) -> Gate<'_> {
        let longest = all
            .into_iter()
            .filter_map(|blocked| self.by_blocked.get_key_value(&blocked))
            .max_by_key(|(_, backoff)| backoff.until);
        match longest {
            None => Gate::Open,
            Some((blocked, backoff)) if backoff.until > now => Gate::Closed(blocked, backoff),
            Some((blocked, backoff)) => Gate::OneAtATime(blocked, backoff),
        }
    }

    /// After a reload. `index` maps old pool indexes to new ones; `None`: the pool is gone.
    pub(super) fn reindexed(self, index: impl Fn(usize) -> Option<usize>) -> Self {
        let kept = self.by_blocked.into_iter().filter_map(|(blocked, backoff)| {
            let blocked = match blocked {
                Blocked::Pool(pool) => Blocked::Pool(index(pool)?),
                Blocked::Lane(pool, target) => Blocked::Lane(index(pool)?, target),
                Blocked::Provider(_) | Blocked::Credential(_) | Blocked::Store => blocked,
            };
            Some((blocked, backoff))
        });
        Self { by_blocked: kept.collect() }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Blocked, &Backoff)> {
        self.by_blocked.iter()
    }
}

pub(super) struct Failure<'a> {
    pub(super) needs: Dependencies<'a>,
    pub(super) cause: Cause,
    pub(super) message: String,
    pub(super) launched_at: Instant,
    /// Zero unless GitHub asked to wait.
    pub(super) retry_after: Duration,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate<'a> {
    Open,
    /// The back-off is over. One launch may try whether the cause is gone.
    OneAtATime(&'a Blocked, &'a Backoff),
    Closed(&'a Blocked, &'a Backoff),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn needs(lane: &LaneKey) -> Dependencies<'_> {
        Dependencies { lane, provider: 0, credential: Some(0) }
    }

    fn fail(backoffs: &mut Backoffs, launched_at: Instant, now: Instant, retry_after_ms: u64) {
        let lane = (0, "org:acme".parse().unwrap());
        let failure = Failure {
            needs: needs(&lane),
            cause: Cause::GitHubUnavailable,
            message: "500".into(),
            launched_at,
            retry_after: Duration::from_millis(retry_after_ms),
        };
        backoffs.failed(failure, Moment { instant: now, wall: 0 }, 0);
    }

    fn until(backoffs: &Backoffs) -> Instant {
        backoffs.all().map(|(_, backoff)| backoff.until).max().unwrap()
    }

    #[test]
    fn waits_double_up_to_a_limit_and_launches_that_fail_together_count_once() {
        let mut backoffs = Backoffs::default();
        for _ in 0..40 {
            fail(&mut backoffs, at(0), at(1_000), 0);
        }
        assert_eq!(until(&backoffs), at(2_000));
        fail(&mut backoffs, at(2_000), at(2_500), 0);
        assert_eq!(until(&backoffs), at(4_500));
        for _ in 0..30 {
            let now = until(&backoffs);
            fail(&mut backoffs, now, now, 0);
        }
        let now = until(&backoffs);
        fail(&mut backoffs, now, now, 0);
        assert_eq!(until(&backoffs), now + LONGEST_WAIT);
    }

    #[test]
    fn retry_after_is_obeyed_and_a_later_failure_does_not_shorten_it() {
        let mut backoffs = Backoffs::default();
        fail(&mut backoffs, at(0), at(0), 90_000);
        fail(&mut backoffs, at(0), at(10), 0);
        assert_eq!(until(&backoffs), at(90_000));
    }

    #[test]
    fn a_gate_opens_for_one_launch_after_the_wait_and_for_all_after_a_success() {
        let mut backoffs = Backoffs::default();
        let lane = (1, "org:acme".parse().unwrap());
        fail(&mut backoffs, at(0), at(0), 0);
        assert!(matches!(backoffs.gate(needs(&lane), at(999)), Gate::Closed(..)));
        assert!(matches!(backoffs.gate(needs(&lane), at(1_000)), Gate::OneAtATime(..)));
        backoffs.launched(needs(&lane), at(1_000));
        assert_eq!(backoffs.gate(needs(&lane), at(1_000)), Gate::Open);
    }

    #[test]
    fn a_launch_that_began_before_the_failure_proves_nothing() {
        let mut backoffs = Backoffs::default();
        let lane = (0, "org:acme".parse().unwrap());
        fail(&mut backoffs, at(0), at(5), 60_000);
        backoffs.launched(needs(&lane), at(5));
        assert!(matches!(backoffs.gate(needs(&lane), at(10)), Gate::Closed(..)));
    }

    #[test]
    fn a_provider_that_fails_pauses_its_own_launches_only() {
        let mut backoffs = Backoffs::default();
        let lane = (0, "org:acme".parse().unwrap());
        let failure = Failure {
            needs: needs(&lane),
            cause: Cause::DockerUnavailable,
            message: "no answer".into(),
            launched_at: at(0),
            retry_after: Duration::ZERO,
        };
        backoffs.failed(failure, Moment { instant: at(0), wall: 0 }, 0);
        assert!(matches!(backoffs.gate(needs(&lane), at(1)), Gate::Closed(..)));
        let elsewhere = Dependencies { provider: 1, ..needs(&lane) };
        assert_eq!(backoffs.gate(elsewhere, at(1)), Gate::Open);
    }
}
