//! Why is my job waiting? Every queued job has exactly one answer.

use std::{
    cmp::Reverse,
    collections::HashMap,
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
    vec,
};

use super::{
    Action, Backoff, Blocked, Gate, LaneKey, NoMatch, Phase, Progress, Stage, State, Tracked,
};
use crate::model::{Cause, Job, JobKey, Target, UnixMs};

/// Jobs whose reasons are looked at in one tick: the next one goes on behind them.
const EXPLAINED_AT_ONCE_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    NoPool(NoMatch),
    /// What an earlier process left running is still being looked for.
    Recovering,
    /// One pool, or all of them.
    Draining {
        pool: Option<String>,
    },
    /// Other launches come first.
    LaunchQueued,
    /// A launch for it waits for credentials from GitHub.
    Credentials,
    ImagePulling,
    ContainerStarting,
    /// The runner's container runs, but it is not online yet.
    RunnerStarting,
    /// A runner is online and GitHub has not given it the job yet.
    NotPickedUp,
    PoolMax {
        max: usize,
    },
    GlobalMax {
        max: usize,
    },
    RepositoryMax {
        max: usize,
    },
    /// No credential serves the place where its runners would be registered.
    NoCredential {
        target: Target,
    },
    RateLimited {
        credential: String,
        until: UnixMs,
    },
    BackOff {
        /// The one that the failure is about, if it is about one.
        credential: Option<String>,
        cause: Cause,
        message: String,
        until: UnixMs,
    },
    /// A launch is being tried to see whether an earlier failure is over.
    Probing {
        credential: Option<String>,
        cause: Cause,
        message: String,
    },
}

impl Waiting {
    /// Every name that [`Self::as_str`] gives.
    pub const NAMES: [&str; 19] = [
        "no_pool_has_labels",
        "job_without_labels",
        "no_pool_for_repository",
        "no_pool_in_scope",
        "recovering",
        "draining",
        "launch_queued",
        "waiting_for_credentials",
        "image_pulling",
        "container_starting",
        "runner_starting",
        "runner_idle_not_picked_up",
        "pool_max",
        "global_max",
        "repository_max",
        "no_credential",
        "rate_limited",
        "back_off",
        "probing",
    ];

    /// Stable name for metrics and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoPool(NoMatch::MissingLabels(_)) => "no_pool_has_labels",
            Self::NoPool(NoMatch::NoLabels) => "job_without_labels",
            Self::NoPool(NoMatch::Repository) => "no_pool_for_repository",
            Self::NoPool(NoMatch::Scope) => "no_pool_in_scope",
            Self::Recovering => "recovering",
            Self::Draining { .. } => "draining",
            Self::LaunchQueued => "launch_queued",
            Self::Credentials => "waiting_for_credentials",
            Self::ImagePulling => "image_pulling",
            Self::ContainerStarting => "container_starting",
            Self::RunnerStarting => "runner_starting",
            Self::NotPickedUp => "runner_idle_not_picked_up",
            Self::PoolMax { .. } => "pool_max",
            Self::GlobalMax { .. } => "global_max",
            Self::RepositoryMax { .. } => "repository_max",
            Self::NoCredential { .. } => "no_credential",
            Self::RateLimited { .. } => "rate_limited",
            Self::BackOff { .. } => "back_off",
            Self::Probing { .. } => "probing",
        }
    }

    /// When it ends by itself, where that is known.
    pub fn until(&self) -> Option<UnixMs> {
        match self {
            Self::RateLimited { until, .. } | Self::BackOff { until, .. } => Some(*until),
            _ => None,
        }
    }

    fn held_back(backoff: &Backoff, credential: Option<String>) -> Self {
        let Backoff { cause, message, until, .. } = backoff.clone();
        match (cause, credential) {
            (Cause::RateLimited, Some(credential)) => Self::RateLimited { credential, until },
            (_, credential) => Self::BackOff { credential, cause, message, until },
        }
    }
}

/// ` of credential …`, where a failure is about one.
struct Of<'a>(&'a Option<String>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(credential) => write!(f, " of credential {credential}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPool(NoMatch::MissingLabels(labels)) => {
                write!(f, "no pool matches: the nearest lacks {}", labels.join(", "))
            }
            Self::NoPool(NoMatch::NoLabels) => f.write_str(
                "no pool matches: the job asks for no label, and no pool has jobs_without_labels",
            ),
            Self::NoPool(NoMatch::Repository) => {
                f.write_str("no pool matches: none serves this repository")
            }
            Self::NoPool(NoMatch::Scope) => f.write_str(
                "no pool matches: the repository has no organization or enterprise to register at",
            ),
            Self::Recovering => f.write_str(
                "just started: what Docker runs already is not known yet; is Docker answering?",
            ),
            Self::Draining { pool: None } => {
                f.write_str("all pools drain: nothing is launched until `edgerunner resume`")
            }
            Self::Draining { pool: Some(pool) } => write!(
                f,
                "pool {pool} drains: nothing is launched there until \
                 `edgerunner resume --pool {pool}`"
            ),
            Self::LaunchQueued => f.write_str("other launches come first"),
            Self::Credentials => f.write_str("waiting for runner credentials from GitHub"),
            Self::ImagePulling => f.write_str("image is being pulled"),
            Self::ContainerStarting => f.write_str("container is being started"),
            Self::RunnerStarting => f.write_str("runner is starting"),
            Self::NotPickedUp => {
                f.write_str("a runner is idle, GitHub has not assigned the job yet")
            }
            Self::PoolMax { max } => write!(f, "the pool is at its max of {max}"),
            Self::GlobalMax { max } => write!(f, "all pools together are at their max of {max}"),
            Self::RepositoryMax { max } => {
                write!(f, "the repository runs its max of {max} jobs")
            }
            Self::NoCredential { target } => write!(
                f,
                "no credential serves {target}: set github.token, or name it among the targets of \
                 one of [[credentials]]"
            ),
            Self::RateLimited { credential, .. } => {
                write!(f, "GitHub's rate limit of credential {credential} is used up")
            }
            Self::BackOff { credential, message, .. } => {
                write!(f, "launches wait after a failure{}: {message}", Of(credential))
            }
            Self::Probing { credential, message, .. } => {
                write!(f, "one launch at a time after a failure{}: {message}", Of(credential))
            }
        }
    }
}

/// Where a walk over the queued jobs of all lanes has got to.
#[derive(Debug)]
pub(super) struct Cursor {
    lane: LaneKey,
    /// The last job that was looked at there.
    after: Option<(UnixMs, JobKey)>,
    /// What its unused runners do that no job was given as its reason yet.
    under_way: vec::IntoIter<Waiting>,
    /// For each repository how many of the jobs to come may run.
    shares: HashMap<String, usize>,
}

impl State {
    /// Every queued job with its reason, oldest first within each pool and target.
    pub fn waiting(&self, now: UnixMs) -> Vec<(&Job, Waiting)> {
        let mut found = Vec::new();
        self.walk(None, usize::MAX, now, |tracked, reason| found.push((&tracked.job, reason)));
        for tracked in self.jobs.values() {
            if let (Err(why), Progress::Queued) = (&tracked.lane, tracked.progress) {
                found.push((&tracked.job, Waiting::NoPool(why.clone())));
            }
        }
        found
    }

    /// Tells of the reasons that have changed.
    pub(super) fn explain(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        let mut changed = Vec::new();
        let from = self.explaining.take();
        let walk = self.walk(from, EXPLAINED_AT_ONCE_MAX, now, |tracked, reason| {
            if tracked.waiting.as_ref() != Some(&reason) {
                changed.push((tracked.job.key, reason));
            }
        });
        self.explaining = walk;
        let rest = self.unserved.len().saturating_sub(EXPLAINED_AT_ONCE_MAX);
        for job in self.unserved.drain(rest..) {
            if let Some(Tracked { lane: Err(why), progress: Progress::Queued, .. }) =
                self.jobs.get(&job)
            {
                changed.push((job, Waiting::NoPool(why.clone())));
            }
        }
        for (job, reason) in &changed {
            if let Some(tracked) = self.jobs.get_mut(job) {
                tracked.waiting = Some(reason.clone());
            }
        }
        if !changed.is_empty() {
            actions.push(Action::Explain(changed));
        }
    }

    /// Looks at `limit` jobs at most; returns where to go on, unless that was all.
    fn walk<'a>(
        &'a self,
        mut from: Option<Cursor>,
        limit: usize,
        now: UnixMs,
        mut found: impl FnMut(&'a Tracked, Waiting),
    ) -> Option<Cursor> {
        let mut under_way = self.under_way();
        let mut left = limit;
        let first = from.as_ref().map_or(Unbounded, |walk| Included(walk.lane.clone()));
        for (key, lane) in self.lanes.range((first, Unbounded)) {
            let mut walk = from.take().filter(|walk| walk.lane == *key).unwrap_or_else(|| {
                let under_way = under_way.remove(key).unwrap_or_default().into_iter();
                Cursor { lane: key.clone(), after: None, under_way, shares: HashMap::new() }
            });
            let blocked = self.blocked(key, now);
            let jobs = lane.queued.range((walk.after.map_or(Unbounded, Excluded), Unbounded));
            for place in jobs {
                if left == 0 {
                    return Some(walk);
                }
                left -= 1;
                walk.after = Some(*place);
                let Some(tracked) = self.jobs.get(&place.1) else { continue };
                let repository = &tracked.job.repository;
                if !walk.shares.contains_key(repository) {
                    walk.shares.insert(repository.clone(), self.share(repository, key));
                }
                // Runners are on their way only for those that may run.
                let reason = match walk.shares.get_mut(repository) {
                    Some(share) if *share > 0 => {
                        *share -= 1;
                        walk.under_way.next().unwrap_or_else(|| blocked.clone())
                    }
                    _ => self.blocked_by_repository(key),
                };
                found(tracked, reason);
            }
        }
        None
    }

    /// How many jobs of a repository may run at a lane.
    fn share(&self, repository: &str, key: &LaneKey) -> usize {
        let place = (Reverse(self.pool(key.0).priority), key.clone());
        self.repositories
            .get(repository)
            .and_then(|found| found.waiting.get(&place))
            .map_or(0, |share| share.allowed)
    }

    /// What each lane's unused runners are doing, those nearest to a job first.
    fn under_way(&self) -> HashMap<&LaneKey, Vec<Waiting>> {
        let mut steps: HashMap<&LaneKey, Vec<(Reverse<u8>, Waiting)>> = HashMap::new();
        for runner in self.runners.values() {
            let (nearness, step) = match runner.phase {
                Phase::Idle => (5, Waiting::NotPickedUp),
                Phase::Starting => (4, Waiting::RunnerStarting),
                Phase::Provisioning(Stage::Container) => (3, Waiting::ContainerStarting),
                Phase::Provisioning(Stage::Credentials) => (2, Waiting::Credentials),
                Phase::Provisioning(Stage::Image) => (1, Waiting::ImagePulling),
                Phase::Provisioning(Stage::Accepted) => (0, Waiting::LaunchQueued),
                Phase::Busy | Phase::Removing(_) => continue,
            };
            if let Some(key) = &runner.lane {
                steps.entry(key).or_default().push((Reverse(nearness), step));
            }
        }
        steps
            .into_iter()
            .map(|(key, mut steps)| {
                steps.sort_by_key(|(nearness, _)| *nearness);
                (key, steps.into_iter().map(|(_, step)| step).collect())
            })
            .collect()
    }

    fn blocked_by_repository(&self, key: &LaneKey) -> Waiting {
        if !self.recovered {
            return Waiting::Recovering;
        }
        let max = self.settings.max_per_repository;
        self.waiting_for_resume(key.0).unwrap_or(Waiting::RepositoryMax { max })
    }

    fn waiting_for_resume(&self, pool: usize) -> Option<Waiting> {
        if self.draining {
            Some(Waiting::Draining { pool: None })
        } else if self.pool_draining(pool) {
            Some(Waiting::Draining { pool: Some(self.pool(pool).name.clone()) })
        } else {
            None
        }
    }

    /// Why no further runner is launched for the lane.
    fn blocked(&self, key: &LaneKey, now: UnixMs) -> Waiting {
        let pool = self.pool(key.0);
        if !self.recovered {
            return Waiting::Recovering;
        }
        if let Some(draining) = self.waiting_for_resume(key.0) {
            return draining;
        }
        let Some(credential) = self.credential_at(key) else {
            return Waiting::NoCredential { target: key.1.clone() };
        };
        let about = |blocked: &Blocked| match blocked {
            Blocked::GitHub(credential) => Some(self.credential_name(*credential).to_owned()),
            _ => None,
        };
        match self.backoffs.gate(key, Some(credential), now) {
            Gate::Closed(blocked, backoff) => {
                return Waiting::held_back(backoff, about(blocked));
            }
            Gate::OneAtATime(blocked, Backoff { cause, message, .. }) => {
                let (credential, message) = (about(blocked), message.clone());
                return Waiting::Probing { credential, cause: *cause, message };
            }
            Gate::Open => {}
        }
        if self.pool_counts[key.0].live >= pool.max {
            Waiting::PoolMax { max: pool.max }
        } else if self.counts.live >= self.settings.max {
            Waiting::GlobalMax { max: self.settings.max }
        } else {
            Waiting::LaunchQueued
        }
    }
}
