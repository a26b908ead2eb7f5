//! Back-offs: what a failure pauses, and for how long.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use super::{
    LaneKey, Parameters,
    allowance::{Allowances, Request},
};
use crate::model::{Cause, Instant, Moment, ServerTarget};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// Waits after GitHub refused a request at one target: somebody has to change a setting first.
/// At most 6 requests in any hour, so that a target which only fails spends little of its
/// credential's quota.
const REFUSED_WAITS: [Duration; 3] =
    [Duration::from_secs(5), Duration::from_secs(120), Duration::from_secs(1_200)];
/// Waits after GitHub did not answer a request at one target, or refused its token. At most 11
/// requests in any hour.
const UNANSWERED_WAITS: [Duration; 6] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(15),
    Duration::from_secs(60),
    Duration::from_secs(600),
];
/// How long a back-off is remembered after its wait, if nothing is launched there any more.
const REMEMBERED: Duration = Duration::from_secs(3_600);

/// What a failure pauses: the widest scope that would fail for the same cause.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Blocked {
    /// Every launch at this provider.
    Provider(usize),
    /// Every launch that uses this credential, except at targets where it has not failed.
    Credential(usize),
    /// Every launch.
    Store,
    /// Every launch of this pool with these parameters; the run makes no difference.
    Pool(usize, Parameters),
    /// Every launch at this target, whichever its pool.
    Target(ServerTarget),
    /// The same with this credential only: others serve the target as well.
    TargetWith(ServerTarget, usize),
    Lane(LaneKey),
}

impl Blocked {
    fn for_cause(cause: Cause, needs: Dependencies<'_>) -> Self {
        let LaneKey { pool, target, parameters } = needs.lane;
        match cause {
            Cause::DockerUnavailable => Self::Provider(needs.provider),
            Cause::RateLimited => {
                needs.credential.map_or_else(|| Self::Target(target.clone()), Self::Credential)
            }
            Cause::Store => Self::Store,
            Cause::Image
            | Cause::Container
            | Cause::RunnerExited
            | Cause::RunnerTooOld
            | Cause::NeverOnline => Self::Pool(*pool, parameters.of_container()),
            Cause::Unauthorized
            | Cause::GitHubUnavailable
            | Cause::Forbidden
            | Cause::UnexpectedResponse => match needs.credential {
                Some(credential) if needs.shared => Self::TargetWith(target.clone(), credential),
                _ => Self::Target(target.clone()),
            },
            Cause::Rejected | Cause::TimedOut => Self::Lane(needs.lane.clone()),
        }
    }

    /// The target that a failed request counts against.
    fn target(&self) -> Option<&ServerTarget> {
        match self {
            Self::Target(target) | Self::TargetWith(target, _) => Some(target),
            Self::Lane(lane) => Some(&lane.target),
            Self::Provider(_) | Self::Credential(_) | Self::Store | Self::Pool(..) => None,
        }
    }

    /// How long to wait after this many failures in a row.
    fn wait(&self, cause: Cause, failures: u32) -> Duration {
        let waits: &[Duration] = match (self, cause) {
            (
                Self::Target(_) | Self::TargetWith(..) | Self::Lane(..),
                Cause::Forbidden | Cause::Rejected,
            )
            | (Self::Target(_) | Self::TargetWith(..), Cause::UnexpectedResponse)
            // Another credential serves the target.
            | (Self::TargetWith(..), Cause::Unauthorized) => &REFUSED_WAITS,
            (Self::Target(_) | Self::TargetWith(..) | Self::Lane(..), _) => &UNANSWERED_WAITS,
            _ => {
                let doubled = FIRST_WAIT * (1 << (failures - 1).min(20));
                return doubled.min(LONGEST_WAIT);
            }
        };
        let index = (failures as usize).min(waits.len()) - 1;
        waits[index]
    }
}

/// Whether the credential as a whole may be the reason. That is so if it fails at a second
/// target as well before it works at any.
pub(super) fn may_be_the_credential(cause: Cause) -> bool {
    matches!(cause, Cause::Unauthorized | Cause::GitHubUnavailable)
}

/// Everything that a launch in a lane depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dependencies<'a> {
    pub(super) lane: &'a LaneKey,
    pub(super) provider: usize,
    pub(super) credential: Option<usize>,
    /// Several credentials serve the target.
    pub(super) shared: bool,
}

impl Dependencies<'_> {
    fn all(self) -> impl Iterator<Item = Blocked> {
        let LaneKey { pool, target, parameters } = self.lane;
        [
            Blocked::Provider(self.provider),
            Blocked::Store,
            Blocked::Pool(*pool, parameters.of_container()),
            Blocked::Target(target.clone()),
            Blocked::Lane(self.lane.clone()),
        ]
        .into_iter()
        .chain(self.credential.into_iter().flat_map(|credential| {
            [Blocked::Credential(credential), Blocked::TargetWith(target.clone(), credential)]
        }))
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
    /// The credential that was used, if the cause is an answer of GitHub.
    credential: Option<usize>,
}

#[derive(Debug, Default)]
pub(super) struct Backoffs {
    by_blocked: BTreeMap<Blocked, Backoff>,
    /// For each credential, when GitHub last accepted it for a launch.
    worked: HashMap<usize, Instant>,
    /// For each target, of requests of every kind.
    pub(super) allowances: Allowances,
}

impl Backoffs {
    /// Records a failed launch. `jitter` (0..1024) keeps pools from retrying in step.
    pub(super) fn failed(&mut self, failure: Failure<'_>, now: Moment, jitter: u32) {
        let Failure { needs, cause, message, launched_at, retry_after } = failure;
        let blocked = Blocked::for_cause(cause, needs);
        if let Some(target) = blocked.target() {
            self.allowances.failed(target, Request::Launch, launched_at, now.instant);
        }
        let problem = Problem {
            cause,
            message,
            began: launched_at,
            retry_after,
            credential: needs.credential,
        };
        self.record(blocked, problem, now, jitter);
    }

    /// Records that GitHub did not do what it was asked to do at a target, other than a launch.
    pub(super) fn failed_at(
        &mut self,
        target: &ServerTarget,
        problem: Problem,
        now: Moment,
        jitter: u32,
    ) {
        self.record(problem.pauses(target), problem, now, jitter);
    }

    /// Counts such a request against the target, unless the failure is not about the target.
    pub(super) fn count_request(
        &mut self,
        target: &ServerTarget,
        request: Request,
        problem: &Problem,
        now: Instant,
    ) {
        if matches!(problem.pauses(target), Blocked::Target(_)) {
            self.allowances.failed(target, request, problem.began, now);
        }
    }

    fn record(&mut self, blocked: Blocked, problem: Problem, now: Moment, jitter: u32) {
        let both = match (&blocked, problem.credential) {
            (Blocked::Target(target) | Blocked::TargetWith(target, _), Some(credential))
                if may_be_the_credential(problem.cause)
                    && self.fails_elsewhere(credential, target) =>
            {
                Some((Blocked::Credential(credential), problem.clone()))
            }
            _ => None,
        };
        self.count(blocked, problem, now, jitter);
        if let Some((blocked, problem)) = both {
            self.count(blocked, problem, now, jitter);
        }
    }

    /// Whether the credential has failed at another target since it last worked.
    fn fails_elsewhere(&self, credential: usize, target: &ServerTarget) -> bool {
        let worked = self.worked.get(&credential).copied();
        self.by_blocked.iter().any(|(blocked, backoff)| {
            matches!(blocked, Blocked::Target(other) | Blocked::TargetWith(other, _) if other != target)
                && backoff.credential == Some(credential)
                && may_be_the_credential(backoff.cause)
                && worked.is_none_or(|worked| worked < backoff.since.instant)
        })
    }

    fn count(&mut self, blocked: Blocked, problem: Problem, now: Moment, jitter: u32) {
        let Problem { cause, message, began, retry_after, credential } = problem;
        let requested = now.instant + retry_after;
        let allowed = match blocked.target() {
            Some(target) => self.allowances.next(target, now.instant),
            None => now.instant,
        };
        let failures = match self.by_blocked.get_mut(&blocked) {
            // Launches that were in flight together count once. Only a longer `Retry-After`
            // changes anything.
            Some(previous) if began <= previous.since.instant => {
                if retry_after > Duration::ZERO && requested > previous.until {
                    (previous.cause, previous.message, previous.until) =
                        (cause, message, requested);
                }
                previous.until = previous.until.max(allowed);
                return;
            }
            Some(previous) => previous.failures.saturating_add(1),
            None => 1,
        };
        let wait = blocked.wait(cause, failures);
        let until = (now.instant + (wait + wait * jitter / 4096)).max(requested).max(allowed);
        let backoff = Backoff { cause, message, failures, since: now, until, credential };
        self.by_blocked.insert(blocked, backoff);
    }

    /// GitHub registered the runner of a launch in this lane, or issued a token for it. Returns
    /// whether the target or its credential had failed before.
    pub(super) fn registered(
        &mut self,
        needs: Dependencies<'_>,
        launched_at: Instant,
        now: Instant,
    ) -> bool {
        let target = &needs.lane.target;
        let mut recovered = false;
        if let Some(credential) = needs.credential {
            self.worked.insert(credential, now);
            // GitHub may have answered this one before it refused another.
            let blocked = Blocked::Credential(credential);
            recovered |= self.recovers(blocked, |backoff| {
                may_be_the_credential(backoff.cause) || launched_at > backoff.since.instant
            });
        }
        self.allowances.succeeded(target);
        let with = needs.credential.map(|it| Blocked::TargetWith(target.clone(), it));
        for blocked in with.into_iter().chain([Blocked::Target(target.clone())]) {
            recovered |= self.recovers(blocked, |backoff| launched_at > backoff.since.instant);
        }
        self.recovers(Blocked::Lane(needs.lane.clone()), |backoff| {
            backoff.cause == Cause::Rejected && launched_at > backoff.since.instant
        });
        recovered
    }

    /// Ends a back-off if `proved`. Returns whether there was one.
    fn recovers(&mut self, blocked: Blocked, proved: impl FnOnce(&Backoff) -> bool) -> bool {
        let ends = self.by_blocked.get(&blocked).is_some_and(proved);
        ends && self.by_blocked.remove(&blocked).is_some()
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
                Blocked::Pool(..) => matches!(backoff.cause, Cause::Image | Cause::Container),
                _ => true,
            };
            if proved && launched_at > backoff.since.instant {
                self.by_blocked.remove(&blocked);
            }
        }
    }

    /// A launch waits for room at its provider, so the provider answers, and its runner is on
    /// record.
    pub(super) fn waits_for_room(&mut self, provider: usize, launched_at: Instant) {
        for blocked in [Blocked::Provider(provider), Blocked::Store] {
            self.recovers(blocked, |backoff| launched_at > backoff.since.instant);
        }
    }

    /// A runner of the pool with these parameters came online or took a job: its image works.
    pub(super) fn healthy(&mut self, pool: usize, parameters: &Parameters) {
        if !self.by_blocked.is_empty() {
            self.by_blocked.remove(&Blocked::Pool(pool, parameters.of_container()));
        }
    }

    /// A request about the target succeeded.
    pub(super) fn succeeded_at(&mut self, target: &ServerTarget) {
        if !self.by_blocked.is_empty() {
            self.by_blocked.remove(&Blocked::Target(target.clone()));
        }
    }

    /// Ends the waits, so that one launch each finds out whether the cause is gone. A rate limit is
    /// kept: GitHub blocks those who go on.
    pub(super) fn retry(&mut self, now: Instant) {
        for backoff in self.by_blocked.values_mut() {
            if backoff.cause != Cause::RateLimited {
                backoff.until = backoff.until.min(now);
            }
        }
    }

    /// Forgets back-offs whose cause nothing has tried for long.
    pub(super) fn forget_old(&mut self, now: Instant) {
        self.by_blocked.retain(|_, backoff| backoff.until + REMEMBERED > now);
        self.allowances.forget_old(now);
    }

    /// The longest back-off that a launch depends on. One that is over still lets only one
    /// launch through at a time: see [`Gate::OneAtATime`].
    pub(super) fn gate(&self, needs: Dependencies<'_>, now: Instant) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        let target = &needs.lane.target;
        let spared = needs.credential.and_then(|credential| self.spared(credential, target));
        let all = needs
            .all()
            .filter(|blocked| spared.is_none() || !matches!(blocked, Blocked::Credential(_)));
        match (self.longest(all, now), spared) {
            (Gate::Open, Some((blocked, backoff))) => Gate::OneAtATime(blocked, backoff),
            (gate, _) => gate,
        }
    }

    pub(super) fn gate_for(&self, blocked: Blocked, now: Instant) -> Gate<'_> {
        self.longest([blocked], now)
    }

    /// The gate of the back-off that pauses only this lane.
    pub(super) fn gate_for_lane(&self, key: &LaneKey, now: Instant) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.gate_for(Blocked::Lane(key.clone()), now)
    }

    /// The gate of the back-off that pauses a pool with these parameters.
    pub(super) fn gate_for_pool(
        &self,
        pool: usize,
        parameters: &Parameters,
        now: Instant,
    ) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        self.gate_for(Blocked::Pool(pool, parameters.of_container()), now)
    }

    /// The gate of the target, whichever the pool. While its credential fails at other targets,
    /// one launch at a time finds out whether it works here.
    pub(super) fn gate_at(
        &self,
        target: &ServerTarget,
        credential: Option<usize>,
        now: Instant,
    ) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        match credential.and_then(|credential| self.spared(credential, target)) {
            Some((blocked, backoff)) => Gate::OneAtATime(blocked, backoff),
            None => self.longest(at(target, credential), now),
        }
    }

    /// The gate of everything that a request to GitHub at the target depends on, with this
    /// credential.
    pub(super) fn gate_of_requests(
        &self,
        target: &ServerTarget,
        credential: Option<usize>,
        now: Instant,
    ) -> Gate<'_> {
        if self.by_blocked.is_empty() {
            return Gate::Open;
        }
        let unspared = credential.filter(|credential| self.spared(*credential, target).is_none());
        self.longest(at(target, credential).chain(unspared.map(Blocked::Credential)), now)
    }

    /// The back-off of the credential, if it does not pause launches at this target: it fails at
    /// others, and has not failed here.
    pub(super) fn spared(
        &self,
        credential: usize,
        target: &ServerTarget,
    ) -> Option<(&Blocked, &Backoff)> {
        let (blocked, backoff) = self.by_blocked.get_key_value(&Blocked::Credential(credential))?;
        (may_be_the_credential(backoff.cause) && !self.fails_at(target, Some(credential)))
            .then_some((blocked, backoff))
    }

    /// Whether the wait of the credential's back-off is over, so that one launch may probe it.
    pub(super) fn probes(&self, credential: usize, now: Instant) -> bool {
        matches!(self.gate_for(Blocked::Credential(credential), now), Gate::OneAtATime(..))
    }

    /// Whether the target's own failures pause launches there with this credential, or did until
    /// just now.
    pub(super) fn fails_at(&self, target: &ServerTarget, credential: Option<usize>) -> bool {
        self.own_failure(target, credential).is_some()
    }

    /// When the target last failed with this credential.
    pub(super) fn last_failed(&self, target: &ServerTarget, credential: usize) -> Option<Instant> {
        Some(self.own_failure(target, Some(credential))?.since.instant)
    }

    fn own_failure(&self, target: &ServerTarget, credential: Option<usize>) -> Option<&Backoff> {
        let failures = at(target, credential).filter_map(|blocked| self.by_blocked.get(&blocked));
        failures.max_by_key(|backoff| backoff.since.instant)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_blocked.is_empty()
    }

    /// Why launches at this target are paused, of which this is the longest back-off. If its
    /// credential is paused, the target's own failure: the credential's last one may be about
    /// another target.
    pub(super) fn failure_at<'a>(
        &'a self,
        target: &ServerTarget,
        blocked: &Blocked,
        longest: &'a Backoff,
    ) -> &'a Backoff {
        let Blocked::Credential(credential) = blocked else { return longest };
        match self.own_failure(target, Some(*credential)) {
            Some(own) if may_be_the_credential(longest.cause) => own,
            _ => longest,
        }
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
    pub(super) fn reindexed(mut self, index: impl Fn(usize) -> Option<usize>) -> Self {
        let by_blocked = std::mem::take(&mut self.by_blocked);
        let kept = by_blocked.into_iter().filter_map(|(blocked, backoff)| {
            let blocked = match blocked {
                Blocked::Pool(pool, parameters) => Blocked::Pool(index(pool)?, parameters),
                Blocked::Lane(lane) => Blocked::Lane(LaneKey { pool: index(lane.pool)?, ..lane }),
                Blocked::Provider(_)
                | Blocked::Credential(_)
                | Blocked::Store
                | Blocked::Target(_)
                | Blocked::TargetWith(..) => blocked,
            };
            Some((blocked, backoff))
        });
        Self { by_blocked: kept.collect(), ..self }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = (&Blocked, &Backoff)> {
        self.by_blocked.iter()
    }
}

/// A request to GitHub that failed.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) cause: Cause,
    pub(super) message: String,
    /// When the launch or request began.
    pub(super) began: Instant,
    /// Zero unless GitHub asked to wait.
    pub(super) retry_after: Duration,
    pub(super) credential: Option<usize>,
}

impl Problem {
    /// What it pauses, if it is not about a launch: a rate limit is the credential's.
    fn pauses(&self, target: &ServerTarget) -> Blocked {
        match (self.cause, self.credential) {
            (Cause::RateLimited, Some(credential)) => Blocked::Credential(credential),
            _ => Blocked::Target(target.clone()),
        }
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

impl Gate<'_> {
    /// Whether it lets through more, or sooner, than the other.
    pub(super) fn is_better_than(&self, other: &Self) -> bool {
        let rank = |gate: &Self| match gate {
            Gate::Open => (0, None),
            Gate::OneAtATime(..) => (1, None),
            Gate::Closed(_, backoff) => (2, Some(backoff.until)),
        };
        rank(self) < rank(other)
    }
}

/// What pauses launches at a target, with this credential, alone.
fn at(target: &ServerTarget, credential: Option<usize>) -> impl Iterator<Item = Blocked> {
    let with = credential.map(|credential| Blocked::TargetWith(target.clone(), credential));
    [Blocked::Target(target.clone())].into_iter().chain(with)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Instant {
        Instant::from_millis(ms)
    }

    fn needs(lane: &LaneKey) -> Dependencies<'_> {
        Dependencies { lane, provider: 0, credential: Some(0), shared: false }
    }

    fn fail(backoffs: &mut Backoffs, launched_at: Instant, now: Instant, retry_after_ms: u64) {
        let lane = LaneKey::plain(0, "org:acme".parse().unwrap());
        let failure = Failure {
            needs: needs(&lane),
            cause: Cause::Image,
            message: "no such image".into(),
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
        let lane = LaneKey::plain(0, "org:acme".parse().unwrap());
        fail(&mut backoffs, at(0), at(0), 0);
        assert!(matches!(backoffs.gate(needs(&lane), at(999)), Gate::Closed(..)));
        assert!(matches!(backoffs.gate(needs(&lane), at(1_000)), Gate::OneAtATime(..)));
        backoffs.launched(needs(&lane), at(1_000));
        assert_eq!(backoffs.gate(needs(&lane), at(1_000)), Gate::Open);
    }

    #[test]
    fn an_operator_ends_a_wait_and_the_next_failure_begins_a_longer_one() {
        let mut backoffs = Backoffs::default();
        let lane = LaneKey::plain(0, "org:acme".parse().unwrap());
        for now in [0, 2_000, 6_000] {
            fail(&mut backoffs, at(now), at(now), 0);
        }
        assert_eq!(until(&backoffs), at(10_000));
        backoffs.retry(at(7_000));
        assert!(matches!(backoffs.gate(needs(&lane), at(7_000)), Gate::OneAtATime(..)));
        fail(&mut backoffs, at(7_000), at(7_000), 0);
        assert_eq!(until(&backoffs), at(15_000));

        let failure = Failure {
            needs: needs(&lane),
            cause: Cause::RateLimited,
            message: "secondary rate limit".into(),
            launched_at: at(7_000),
            retry_after: Duration::from_secs(60),
        };
        backoffs.failed(failure, Moment { instant: at(7_000), wall: 0 }, 0);
        backoffs.retry(at(8_000));
        assert_eq!(until(&backoffs), at(67_000));
    }

    #[test]
    fn a_launch_that_began_before_the_failure_proves_nothing() {
        let mut backoffs = Backoffs::default();
        let lane = LaneKey::plain(0, "org:acme".parse().unwrap());
        fail(&mut backoffs, at(0), at(5), 60_000);
        backoffs.launched(needs(&lane), at(5));
        assert!(matches!(backoffs.gate(needs(&lane), at(10)), Gate::Closed(..)));
    }

    #[test]
    fn a_provider_that_fails_pauses_its_own_launches_only() {
        let mut backoffs = Backoffs::default();
        let lane = LaneKey::plain(0, "org:acme".parse().unwrap());
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
