//! What a failure blocks, and for how long.

use std::collections::BTreeMap;

use super::LaneKey;
use crate::model::{Cause, Target, UnixMs};

const FIRST_WAIT_MS: u64 = 1_000;
const LONGEST_WAIT_MS: u64 = 300_000;

/// What a cause blocks: the widest thing that would fail the same way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocked {
    Docker,
    /// Whatever needs this credential.
    GitHub(usize),
    Store,
    Pool(usize),
    Lane(usize, Target),
}

impl Blocked {
    fn by(cause: Cause, (pool, target): &LaneKey, credential: Option<usize>) -> Self {
        let lane = || Self::Lane(*pool, target.clone());
        match cause {
            Cause::DockerUnavailable => Self::Docker,
            Cause::Unauthorized | Cause::RateLimited | Cause::GitHubUnavailable => {
                credential.map_or_else(lane, Self::GitHub)
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

    /// Everything that a launch for this pool and target depends on.
    fn for_launch(
        (pool, target): &LaneKey,
        credential: Option<usize>,
    ) -> impl Iterator<Item = Self> {
        [Self::Docker, Self::Store, Self::Pool(*pool), Self::Lane(*pool, target.clone())]
            .into_iter()
            .chain(credential.map(Self::GitHub))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backoff {
    pub cause: Cause,
    pub message: String,
    /// In a row.
    pub failures: u32,
    /// The last failure that counted.
    pub since: UnixMs,
    pub until: UnixMs,
}

#[derive(Debug, Default)]
pub(super) struct Backoffs {
    by_blocked: BTreeMap<Blocked, Backoff>,
}

impl Backoffs {
    /// Notes a failed launch. `jitter` (0..1024): pools do not come back in step.
    pub(super) fn failed(&mut self, failure: Failure<'_>, now: UnixMs, jitter: u64) {
        let Failure { lane, credential, cause, message, launched_at, retry_after_ms } = failure;
        let blocked = Blocked::by(cause, lane, credential);
        let told = now.saturating_add(retry_after_ms);
        let failures = match self.by_blocked.get_mut(&blocked) {
            // Of forty launches that fail together one counts. Only what GitHub asks
            // for is news.
            Some(previous) if launched_at <= previous.since => {
                if retry_after_ms > 0 && told > previous.until {
                    (previous.cause, previous.message, previous.until) = (cause, message, told);
                }
                return;
            }
            Some(previous) => previous.failures.saturating_add(1),
            None => 1,
        };
        let wait = (FIRST_WAIT_MS << (failures - 1).min(20)).min(LONGEST_WAIT_MS);
        let until = now.saturating_add(wait + wait * jitter / 4096).max(told);
        let backoff = Backoff { cause, message, failures, since: now, until };
        self.by_blocked.insert(blocked, backoff);
    }

    /// A launch reached a running container: GitHub, Docker and the store work, or
    /// did after the failures that came before it.
    pub(super) fn launched(
        &mut self,
        lane: &LaneKey,
        credential: Option<usize>,
        launched_at: UnixMs,
    ) {
        if self.by_blocked.is_empty() {
            return;
        }
        let after = |backoff: &Backoff| launched_at > backoff.since;
        for blocked in Blocked::for_launch(lane, credential) {
            let Some(backoff) = self.by_blocked.get(&blocked) else {
                continue;
            };
            // Whether the runner in the image works is for GitHub to say.
            let proof = match blocked {
                Blocked::Pool(_) => matches!(backoff.cause, Cause::Image | Cause::Container),
                _ => true,
            };
            if proof && after(backoff) {
                self.by_blocked.remove(&blocked);
            }
        }
    }

    /// A runner of the pool came online or took a job: its image works.
    pub(super) fn healthy(&mut self, pool: usize) {
        self.by_blocked.remove(&Blocked::Pool(pool));
    }

    /// What holds a launch back: the block that lasts longest. One whose time
    /// is over still counts as a suspicion: see [`Gate::OneAtATime`].
    pub(super) fn gate(&self, lane: &LaneKey, credential: Option<usize>, now: UnixMs) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.longest(Blocked::for_launch(lane, credential), now)
    }

    /// As far as it holds back every launch.
    pub(super) fn gate_for_all(&self, now: UnixMs) -> Gate<'_> {
        self.longest([Blocked::Docker, Blocked::Store], now)
    }

    pub(super) fn gate_for(&self, blocked: Blocked, now: UnixMs) -> Gate<'_> {
        self.longest([blocked], now)
    }

    /// As far as it holds back this lane alone.
    pub(super) fn gate_for_lane(&self, (pool, target): &LaneKey, now: UnixMs) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.gate_for(Blocked::Lane(*pool, target.clone()), now)
    }

    fn longest(&self, all: impl IntoIterator<Item = Blocked>, now: UnixMs) -> Gate<'_> {
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

    /// Pools have other indexes now, or are gone.
    pub(super) fn of_pools(self, index: impl Fn(usize) -> Option<usize>) -> Self {
        let kept = self.by_blocked.into_iter().filter_map(|(blocked, backoff)| {
            let blocked = match blocked {
                Blocked::Pool(pool) => Blocked::Pool(index(pool)?),
                Blocked::Lane(pool, target) => Blocked::Lane(index(pool)?, target),
                Blocked::Docker | Blocked::GitHub(_) | Blocked::Store => blocked,
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
    pub(super) lane: &'a LaneKey,
    /// What its calls to GitHub were made with.
    pub(super) credential: Option<usize>,
    pub(super) cause: Cause,
    pub(super) message: String,
    pub(super) launched_at: UnixMs,
    pub(super) retry_after_ms: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Gate<'a> {
    Open,
    /// The wait is over; a single launch may find out whether the cause is.
    OneAtATime(&'a Blocked, &'a Backoff),
    Closed(&'a Blocked, &'a Backoff),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fail(backoffs: &mut Backoffs, launched_at: UnixMs, now: UnixMs, retry_after_ms: u64) {
        let failure = Failure {
            lane: &(0, Target::Organization("acme".into())),
            credential: Some(0),
            cause: Cause::GitHubUnavailable,
            message: "500".into(),
            launched_at,
            retry_after_ms,
        };
        backoffs.failed(failure, now, 0);
    }

    fn until(backoffs: &Backoffs) -> UnixMs {
        backoffs.all().map(|(_, backoff)| backoff.until).max().unwrap()
    }

    #[test]
    fn waits_double_up_to_a_limit_and_launches_that_fail_together_count_once() {
        let mut backoffs = Backoffs::default();
        for _ in 0..40 {
            fail(&mut backoffs, 0, 1_000, 0);
        }
        assert_eq!(until(&backoffs), 2_000);
        fail(&mut backoffs, 2_000, 2_500, 0);
        assert_eq!(until(&backoffs), 4_500);
        for _ in 0..30 {
            let now = until(&backoffs);
            fail(&mut backoffs, now, now, 0);
        }
        let now = until(&backoffs);
        fail(&mut backoffs, now, now, 0);
        assert_eq!(until(&backoffs), now + LONGEST_WAIT_MS);
    }

    #[test]
    fn retry_after_is_obeyed_and_a_later_failure_does_not_shorten_it() {
        let mut backoffs = Backoffs::default();
        fail(&mut backoffs, 0, 0, 90_000);
        fail(&mut backoffs, 0, 10, 0);
        assert_eq!(until(&backoffs), 90_000);
    }

    #[test]
    fn a_gate_opens_for_one_launch_after_the_wait_and_for_all_after_a_success() {
        let mut backoffs = Backoffs::default();
        let lane = (1, Target::Organization("acme".into()));
        fail(&mut backoffs, 0, 0, 0);
        assert!(matches!(backoffs.gate(&lane, Some(0), 999), Gate::Closed(..)));
        assert!(matches!(backoffs.gate(&lane, Some(0), 1_000), Gate::OneAtATime(..)));
        backoffs.launched(&lane, Some(0), 1_000);
        assert_eq!(backoffs.gate(&lane, Some(0), 1_000), Gate::Open);
    }

    #[test]
    fn a_launch_that_began_before_the_failure_proves_nothing() {
        let mut backoffs = Backoffs::default();
        let lane = (0, Target::Organization("acme".into()));
        fail(&mut backoffs, 0, 5, 60_000);
        backoffs.launched(&lane, Some(0), 5);
        assert!(matches!(backoffs.gate(&lane, Some(0), 10), Gate::Closed(..)));
    }
}
