//! Targets and credentials with which GitHub refuses every request, or answers none, for hours
//! or for ever, and what must hold in spite of them.

use super::*;
use crate::plan::{backoff::may_be_the_credential, launch::LAUNCHING_MAX, unreachable::LOST_AFTER};

const HOUR_MS: u64 = 3_600_000;
/// Requests about a target that only fails, in any hour, are fewer than this.
const CALLS_MAX: usize = 12;
/// The longest that a removal may take, with some attempts of which nothing is heard: see
/// `CONTAINER_MAX`.
const REMOVING_LONGEST_MS: u64 = 2 * HOUR_MS;
/// Ticks are up to a minute apart, and lists of containers half a minute.
const LATE_MS: u64 = 100_000;
/// How long the executor keeps a failure for requests that began before it.
const SHARED_MS: u64 = 600_000;

/// What becomes of requests about a target.
#[derive(Clone, Copy, Debug)]
pub(in crate::plan) struct Trouble {
    pub(in crate::plan) cause: Cause,
    pub(in crate::plan) requests: Requests,
    /// On the monotonic clock.
    pub(in crate::plan) until: u64,
}

/// Which requests fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plan) enum Requests {
    All,
    Removals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Launch,
    Removal,
    LookUp,
}

#[derive(Debug, Default)]
pub(super) struct Troubles {
    at: BTreeMap<ServerTarget, Trouble>,
    /// At every target of a credential.
    with: BTreeMap<usize, Trouble>,
    /// When a request about each target last failed because of these. A restart does not change
    /// it.
    last_refused: BTreeMap<ServerTarget, u64>,
    // What follows is about the current process.
    /// Targets where a request failed or was not answered: a launch with one credential, or
    /// another request, which is made with any.
    failed: BTreeSet<(ServerTarget, Option<usize>)>,
    /// The last failure, which those requests share that began before it.
    shared: BTreeMap<(ServerTarget, Option<usize>, Purpose), u64>,
    /// Requests about targets that only fail.
    calls: BTreeMap<ServerTarget, VecDeque<(u64, Purpose)>>,
    /// Since when nothing runs in the place of each runner.
    empty_since: HashMap<String, u64>,
}

/// What GitHub answers where something fails.
pub(in crate::plan::tests) const CAUSES: [Cause; 6] = [
    // Forbidden, not found, gone, or blocked; and a credential that is not installed.
    Cause::Forbidden,
    // A redirect that leads elsewhere, or HTML.
    Cause::UnexpectedResponse,
    // No answer.
    Cause::GitHubUnavailable,
    Cause::Rejected,
    Cause::TimedOut,
    // A credential that is revoked or suspended.
    Cause::Unauthorized,
];

impl Troubles {
    /// A new process knows nothing.
    pub(super) fn forget(&mut self) {
        let Self { at, with, last_refused, .. } = std::mem::take(self);
        *self = Self { at, with, last_refused, ..Self::default() };
    }
}

impl World {
    pub(in crate::plan) fn trouble_at(&mut self, target: &ServerTarget, trouble: Trouble) {
        self.troubles.at.insert(target.clone(), trouble);
    }

    pub(in crate::plan) fn trouble_with(&mut self, credential: usize, trouble: Trouble) {
        self.troubles.with.insert(credential, trouble);
    }

    /// GitHub works everywhere again.
    pub(super) fn end_troubles(&mut self) {
        self.troubles.at.clear();
        self.troubles.with.clear();
        self.troubles.calls.clear();
    }

    /// What fails now does so for ever.
    pub(super) fn last_for_ever(&mut self) {
        let Troubles { at, with, .. } = &mut self.troubles;
        at.values_mut().chain(with.values_mut()).for_each(|trouble| trouble.until = u64::MAX);
    }

    pub(super) fn end_troubles_that_are_over(&mut self) {
        let now = self.now;
        let Troubles { at, with, calls, .. } = &mut self.troubles;
        let before = at.len() + with.len();
        at.retain(|_, trouble| trouble.until > now);
        with.retain(|_, trouble| trouble.until > now);
        if at.len() + with.len() < before {
            calls.clear();
        }
    }

    /// Somewhere, something begins to fail, for hours or for ever.
    pub(super) fn trouble_begins(&mut self) {
        let for_ever = self.chance(250);
        let until = if for_ever { u64::MAX } else { self.now + 1 + self.below(4 * HOUR_MS) };
        let removals = self.chance(200);
        let requests = if removals { Requests::Removals } else { Requests::All };
        if self.chance(200) {
            let credential = self.below(self.settings.credentials.len() as u64) as usize;
            let cause = [Cause::Unauthorized, Cause::Forbidden][self.below(2) as usize];
            self.trouble_with(credential, Trouble { cause, requests: Requests::All, until });
        } else if !self.state.lanes.is_empty() {
            let nth = self.below(self.state.lanes.len() as u64) as usize;
            let target = self.state.lanes.keys().nth(nth).map(|key| key.target.clone());
            let cause = CAUSES[self.below(CAUSES.len() as u64) as usize];
            self.trouble_at(&target.unwrap(), Trouble { cause, requests, until });
        }
    }

    /// `credential`: the one that is used; `None` for a request that fails if all of them do.
    fn trouble(&self, target: &ServerTarget, credential: Option<usize>) -> Option<Trouble> {
        let Troubles { at, with, .. } = &self.troubles;
        let with_each = || -> Option<Vec<&Trouble>> {
            let all = credentials_for(&self.settings.credentials, target);
            all.filter(|it| credential.is_none_or(|own| own == *it))
                .map(|it| with.get(&it))
                .collect()
        };
        at.get(target).or_else(|| with_each()?.first().copied()).copied()
    }

    pub(super) fn has_trouble(&self, target: &ServerTarget) -> bool {
        self.trouble(target, None).is_some()
    }

    pub(super) fn has_any_trouble(&self) -> bool {
        !(self.troubles.at.is_empty() && self.troubles.with.is_empty())
    }

    /// The targets at which a runner for the job may be registered.
    pub(super) fn targets_of(&self, job: &Job) -> Vec<ServerTarget> {
        match_pools(&self.settings.pools, job)
            .into_iter()
            .flatten()
            .map(|lane| lane.target)
            .collect()
    }

    /// A request about the target fails, whatever the reason.
    pub(super) fn fails_at(&mut self, target: &ServerTarget, credential: Option<usize>) {
        self.troubles.failed.insert((target.clone(), credential));
    }

    fn has_failed(&self, target: &ServerTarget, credential: Option<usize>) -> bool {
        self.troubles.failed.contains(&(target.clone(), credential))
    }

    /// Whether GitHub has refused a request about one of the targets since then.
    pub(super) fn refused_since(&self, targets: &[ServerTarget], since: u64) -> bool {
        let last = |target| self.troubles.last_refused.get(target);
        targets.iter().filter_map(last).any(|at| *at >= since)
    }

    /// Whether GitHub has refused a request anywhere since then.
    pub(super) fn refused_anywhere_since(&self, since: u64) -> bool {
        self.troubles.last_refused.values().any(|at| *at >= since)
    }

    /// GitHub is asked something about the target. `began`: the launch or removal that asks. If
    /// GitHub refuses: why, and in how many milliseconds that is known.
    pub(super) fn refusal(
        &mut self,
        target: &ServerTarget,
        credential: Option<usize>,
        purpose: Purpose,
        began: u64,
    ) -> Option<(Cause, u64)> {
        let Trouble { cause, requests, .. } = self.trouble(target, credential)?;
        if requests == Requests::Removals && purpose != Purpose::Removal {
            return None;
        }
        let cause = match (cause, purpose) {
            // The client ends every other request sooner.
            (Cause::TimedOut, Purpose::Removal | Purpose::LookUp) => Cause::GitHubUnavailable,
            _ => cause,
        };
        self.fails_at(target, credential);
        self.troubles.last_refused.insert(target.clone(), self.now);
        // Like the executor: requests that began before another one failed fail with it.
        let key = (target.clone(), credential, purpose);
        let shared = self.troubles.shared.get(&key).copied();
        if purpose != Purpose::LookUp
            && let Some(failed) = shared
            && began <= failed
            && self.now < failed + SHARED_MS
        {
            return Some((cause, failed.saturating_sub(self.now)));
        }
        let late = match cause {
            Cause::GitHubUnavailable => self.below(10_000),
            Cause::TimedOut => 50_000,
            _ => self.below(3_000),
        };
        self.troubles.shared.insert(key, self.now + late);
        if requests == Requests::All {
            self.count_call(target, cause, purpose);
        }
        Some((cause, late))
    }

    /// The same for a job of a repository.
    pub(super) fn job_refusal(&mut self, job: &Job, target: &ServerTarget) -> Option<(Cause, u64)> {
        let Trouble { cause, requests: Requests::All, .. } = self.trouble(target, None)? else {
            return None;
        };
        let refused = [Cause::Forbidden, Cause::UnexpectedResponse, Cause::Rejected];
        match target.target {
            // The answer is about the repository.
            Target::Organization(_) if refused.contains(&cause) => {
                let repository: Target = format!("repo:{}", job.repository).parse().unwrap();
                self.fails_at(target, None);
                self.troubles.last_refused.insert(target.clone(), self.now);
                self.count_call(&repository.on(target.host), cause, Purpose::LookUp);
                Some((cause, 1_000))
            }
            _ => self.refusal(target, None, Purpose::LookUp, self.now),
        }
    }

    /// A target that only fails costs few requests.
    fn count_call(&mut self, target: &ServerTarget, cause: Cause, purpose: Purpose) {
        // Of these two, the settings of one pool may be the reason.
        let of_pool = |cause| matches!(cause, Cause::Rejected | Cause::TimedOut);
        let each_pool =
            of_pool(cause) || self.trouble(target, None).is_some_and(|it| of_pool(it.cause));
        let pools = if each_pool { self.settings.pools.len() } else { 1 };
        // Each credential is tried by itself.
        let parties = pools * credentials_for(&self.settings.credentials, target).count().max(1);
        let calls = self.troubles.calls.entry(target.clone()).or_default();
        calls.push_back((self.now, purpose));
        while calls.front().is_some_and(|(at, _)| at + HOUR_MS <= self.now) {
            calls.pop_front();
        }
        self.figures.failing_calls_max = self.figures.failing_calls_max.max(calls.len());
        assert!(calls.len() < CALLS_MAX * parties, "{cause:?} at {target}: {calls:?}");
    }

    // What must hold

    /// No job waits for a runner because of a target that fails, except for those of that target.
    pub(super) fn check_isolation(&self) {
        let state = &self.state;
        if !state.recovered()
            || state.draining()
            || state.live() >= self.settings.max
            || state.launching() - state.counts.without_room >= LAUNCHING_MAX
        {
            return;
        }
        for (key, lane) in &state.lanes {
            let LaneKey { pool, target, parameters } = key;
            let counts = &state.pool_counts[*pool];
            if lane.job_deficit() == 0
                || lane.credentials.is_empty()
                || self.has_failed(target, None)
                || counts.live >= state.pool(*pool).max
                || state.devices_used_up(*pool).is_some()
                || state.machine_full(key).is_some()
                || counts.provisioning >= state.launches_max(*pool)
                || state.pool_draining(*pool)
            {
                continue;
            }
            let excused =
                state.backoffs().any(|(blocked, backoff)| match (blocked, backoff.cause) {
                    (Blocked::Provider(_), Cause::DockerUnavailable)
                    | (Blocked::Store, Cause::Store) => true,
                    (
                        Blocked::Pool(at, with),
                        Cause::Image
                        | Cause::Container
                        | Cause::RunnerExited
                        | Cause::RunnerTooOld
                        | Cause::NeverOnline,
                    ) => at == pool && *with == parameters.of_container(),
                    (Blocked::Lane(lane), _) => lane == key,
                    _ => false,
                });
            let excused = excused
                || lane
                    .credentials
                    .iter()
                    .all(|it| self.has_failed(target, Some(*it)) || self.is_paused(target, *it));
            let backoffs = || state.backoffs().collect::<Vec<_>>();
            assert!(excused, "jobs wait at {target}, where nothing fails: {:?}", backoffs());
        }
    }

    /// Whether there may be no further launch at the target with a credential, although none of
    /// those there has failed.
    fn is_paused(&self, target: &ServerTarget, credential: usize) -> bool {
        let state = &self.state;
        state.backoffs().any(|(blocked, backoff)| match (blocked, backoff.cause) {
            (Blocked::Credential(with), Cause::RateLimited) => *with == credential,
            // The first launch finds out whether the credential works at this target.
            (Blocked::Credential(with), cause) if may_be_the_credential(cause) => {
                *with == credential && state.provisioning_at(target, Some(credential)) > 0
            }
            _ => false,
        })
    }

    /// Every runner ends, and a place in which nothing runs is free soon, whatever is refused.
    pub(super) fn check_places(&mut self) {
        let now = self.moment().instant;
        let mut empty_since = HashMap::new();
        // A machine may go away and come back, and go away again.
        let lost_ms = match self.machines.failed {
            true => LOST_AFTER.as_millis() as u64 + 4 * LATE_MS,
            false => 0,
        };
        for runner in self.state.runners() {
            let limits = self.state.limits(&runner.name);
            let longest = match runner.phase {
                Phase::Provisioning(Stage::Room) => Some(CREDENTIALS_LIFE_MS),
                Phase::Parking(_) | Phase::Provisioning(_) => Some(limits.provisioning_ms + 10_000),
                Phase::Starting => Some(limits.starting_ms + 15_000 + 3 * lost_ms),
                Phase::Removing(_) => Some(REMOVING_LONGEST_MS),
                Phase::Parked { .. } | Phase::Idle | Phase::Busy => None,
            };
            let age = now.duration_since(runner.since.instant).as_millis() as u64;
            assert!(longest.is_none_or(|longest| age <= longest + LATE_MS), "{age} ms: {runner:?}");
            let runs = self.containers.get(&runner.name).is_some_and(|it| it.exit_code.is_none());
            if runs || !runner.phase.may_run() || matches!(runner.phase, Phase::Provisioning(_)) {
                continue;
            }
            let since = self.troubles.empty_since.get(&runner.name).copied().unwrap_or(self.now);
            let longest = REMOVAL_MAX.as_millis() as u64 + LATE_MS + lost_ms;
            assert!(self.now - since <= longest, "nothing runs in its place: {runner:?}");
            empty_since.insert(runner.name.clone(), since);
        }
        self.troubles.empty_since = empty_since;
    }
}
