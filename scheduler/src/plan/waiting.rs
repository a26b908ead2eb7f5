//! Why a job waits: every queued job has exactly one reason.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    ops::Bound::{Excluded, Included, Unbounded},
};

use super::{
    Action, Backoff, Blocked, Gate, LaneKey, NoMatch, Phase, Stage, State, Tracked,
    backoff::may_be_the_credential,
    demand::{Lane, Share},
};
use crate::model::{Cause, Instant, Job, JobKey, JobState, ServerTarget, UnixMs};

/// Jobs that one tick explains, so that no tick takes long. The next tick continues.
const EXPLAINED_AT_ONCE_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    NoPool(NoMatch),
    /// The runners that an earlier process left behind are not known yet.
    Recovering,
    Draining {
        /// `None`: all pools.
        pool: Option<String>,
    },
    /// Other launches come first.
    LaunchQueued,
    /// Its launch waits for runner credentials from GitHub.
    Credentials,
    ImagePulling,
    ContainerStarting,
    /// Its launch, or those that come first, wait until the provider has room.
    NoRoom {
        /// Which room they lack, in the provider's words.
        message: String,
    },
    /// A runner is there for it on a machine that does not answer.
    RunnerUnreachable,
    /// The runner's container runs, but the runner is not online yet.
    RunnerStarting,
    /// A runner is online and GitHub has not assigned the job to it yet.
    NotPickedUp,
    /// GitHub assigned the job to none of the runners that were idle for it.
    HeldBack {
        /// When a runner is launched to try again; `None`: now.
        until: Option<Instant>,
    },
    PoolMax {
        max: usize,
    },
    GlobalMax {
        max: usize,
    },
    /// Other runners have the devices that its runner would have for itself.
    HostDevices {
        needed: usize,
        free: usize,
        total: usize,
    },
    /// Other runners may use the memory that its runner may use.
    HostMemory {
        needed_mib: u64,
        free_mib: u64,
        /// Without the reserve.
        total_mib: u64,
    },
    /// Other runners may use the CPUs that its runner may use, in thousandths.
    HostCpus {
        needed_millis: u64,
        free_millis: u64,
        /// Without the reserve.
        total_millis: u64,
    },
    /// The disk of the host is nearly full.
    HostDisk {
        free_mib: u64,
        reserve_mib: u64,
    },
    RepositoryMax {
        max: usize,
    },
    /// No credential serves the target at which its runner would be registered.
    NoCredential {
        target: ServerTarget,
        /// Whether a credential serves other targets on the same server.
        server_known: bool,
    },
    RateLimited {
        credential: String,
        until: Instant,
    },
    /// GitHub allows no more launches in this minute.
    LaunchRate {
        /// `at …` a target, or `with credential …`.
        place: String,
        max: usize,
        until: Instant,
    },
    BackOff {
        /// If the failure may be about this credential.
        credential: Option<String>,
        cause: Cause,
        message: String,
        until: Instant,
    },
    /// One launch at a time tries whether the cause of an earlier failure is gone.
    Probing {
        credential: Option<String>,
        cause: Cause,
        message: String,
    },
}

impl Waiting {
    /// The name for jobs that other runners are expected to run. They do not count as waiting.
    pub const NOT_SELF_HOSTED: &str = "not_self_hosted";

    /// All names that [`Self::as_str`] returns.
    pub const NAMES: [&str; 33] = [
        "no_pool_has_labels",
        "job_without_labels",
        "label_required",
        "label_parameter",
        "no_pool_for_repository",
        "no_pool_in_scope",
        "public_repository",
        "fork",
        "not_fork",
        "run_unknown",
        Self::NOT_SELF_HOSTED,
        "recovering",
        "draining",
        "launch_queued",
        "waiting_for_credentials",
        "image_pulling",
        "container_starting",
        "no_room",
        "runner_unreachable",
        "runner_starting",
        "runner_idle_not_picked_up",
        "held_back",
        "pool_max",
        "global_max",
        "host_devices",
        "host_memory",
        "host_cpus",
        "host_disk",
        "repository_max",
        "no_credential",
        "rate_limited",
        "back_off",
        "probing",
    ];

    /// Stable name for metrics, the API and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::NoPool(NoMatch::MissingLabels { .. }) => "no_pool_has_labels",
            Self::NoPool(NoMatch::NoLabels) => "job_without_labels",
            Self::NoPool(NoMatch::LabelRequired) => "label_required",
            Self::NoPool(NoMatch::LabelParameter { .. }) => "label_parameter",
            Self::NoPool(NoMatch::Repository) => "no_pool_for_repository",
            Self::NoPool(NoMatch::Scope) => "no_pool_in_scope",
            Self::NoPool(NoMatch::PublicRepository { .. }) => "public_repository",
            Self::NoPool(NoMatch::Fork) => "fork",
            Self::NoPool(NoMatch::NotFork) => "not_fork",
            Self::NoPool(NoMatch::RunUnknown { .. }) => "run_unknown",
            Self::NoPool(NoMatch::NotSelfHosted { .. }) => Self::NOT_SELF_HOSTED,
            Self::Recovering => "recovering",
            Self::Draining { .. } => "draining",
            Self::LaunchQueued => "launch_queued",
            Self::Credentials => "waiting_for_credentials",
            Self::ImagePulling => "image_pulling",
            Self::ContainerStarting => "container_starting",
            Self::NoRoom { .. } => "no_room",
            Self::RunnerUnreachable => "runner_unreachable",
            Self::RunnerStarting => "runner_starting",
            Self::NotPickedUp => "runner_idle_not_picked_up",
            Self::HeldBack { .. } => "held_back",
            Self::PoolMax { .. } => "pool_max",
            Self::GlobalMax { .. } => "global_max",
            Self::HostDevices { .. } => "host_devices",
            Self::HostMemory { .. } => "host_memory",
            Self::HostCpus { .. } => "host_cpus",
            Self::HostDisk { .. } => "host_disk",
            Self::RepositoryMax { .. } => "repository_max",
            Self::NoCredential { .. } => "no_credential",
            Self::RateLimited { .. } | Self::LaunchRate { .. } => "rate_limited",
            Self::BackOff { .. } => "back_off",
            Self::Probing { .. } => "probing",
        }
    }

    /// Whether the job never runs unless somebody acts.
    pub fn is_blocked(&self) -> bool {
        match self {
            Self::NoPool(NoMatch::NotSelfHosted { .. } | NoMatch::RunUnknown { problem: None }) => {
                false
            }
            Self::NoPool(_)
            | Self::NoCredential { .. }
            | Self::Draining { .. }
            | Self::HostDisk { .. } => true,
            Self::HostDevices { needed, total, .. } => needed > total,
            Self::HostMemory { needed_mib, total_mib, .. } => needed_mib > total_mib,
            Self::HostCpus { needed_millis, total_millis, .. } => needed_millis > total_millis,
            Self::Recovering
            | Self::LaunchQueued
            | Self::Credentials
            | Self::ImagePulling
            | Self::ContainerStarting
            | Self::NoRoom { .. }
            | Self::RunnerUnreachable
            | Self::RunnerStarting
            | Self::NotPickedUp
            | Self::HeldBack { .. }
            | Self::PoolMax { .. }
            | Self::GlobalMax { .. }
            | Self::RepositoryMax { .. }
            | Self::RateLimited { .. }
            | Self::LaunchRate { .. }
            | Self::BackOff { .. }
            | Self::Probing { .. } => false,
        }
    }

    /// When launches are tried again, if they are paused.
    pub fn until(&self) -> Option<Instant> {
        match self {
            Self::RateLimited { until, .. }
            | Self::LaunchRate { until, .. }
            | Self::BackOff { until, .. } => Some(*until),
            Self::HeldBack { until } => *until,
            _ => None,
        }
    }

    fn paused(cause: Cause, message: &str, until: Instant, credential: Option<String>) -> Self {
        match (cause, credential) {
            (Cause::RateLimited, Some(credential)) => Self::RateLimited { credential, until },
            (_, credential) => {
                Self::BackOff { credential, cause, message: message.to_owned(), until }
            }
        }
    }
}

/// ` with credential …`, if a failure is about one.
struct With<'a>(&'a Option<String>);

impl fmt::Display for With<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(credential) => write!(f, " with credential {credential}"),
            None => Ok(()),
        }
    }
}

/// Thousandths as a number of CPUs.
struct Cpus(u64);

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0 as f64 / 1000.0)
    }
}

/// `"gpu", "arm64"`.
struct Quoted<'a>(&'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, label) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}\"{label}\"")?;
        }
        Ok(())
    }
}

/// Leaves out the time until a retry, which would change the text every second: see
/// [`Waiting::until`].
impl fmt::Display for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPool(NoMatch::MissingLabels { labels, closest }) => {
                let noun = if labels.len() == 1 { "label" } else { "labels" };
                write!(f, "no pool has the {noun} {} (closest: {closest})", Quoted(labels))
            }
            Self::NoPool(NoMatch::NoLabels) => f.write_str(
                "the job has no labels, and no pool has jobs_without_labels set to true",
            ),
            Self::NoPool(NoMatch::LabelRequired) => f.write_str(
                "the job asks only for self-hosted, and the matching pools have require_labels set \
                 to true",
            ),
            Self::NoPool(NoMatch::LabelParameter { pool, label, problem }) => {
                write!(f, "the label \"{label}\" {problem} (pool {pool})")
            }
            Self::NoPool(NoMatch::Repository) => f.write_str("no pool serves this repository"),
            Self::NoPool(NoMatch::Scope) => f.write_str(
                "the matching pools register runners at an organization or enterprise, and this \
                 repository belongs to none",
            ),
            Self::NoPool(NoMatch::PublicRepository { reported: true }) => f.write_str(
                "the repository is public, and the matching pools have public_repositories set to \
                 false",
            ),
            Self::NoPool(NoMatch::PublicRepository { reported: false }) => f.write_str(
                "GitHub did not report who can see the repository, so it counts as public, and the \
                 matching pools have public_repositories set to false",
            ),
            Self::NoPool(NoMatch::Fork) => f.write_str(
                "the job is of a pull request from a fork, and the matching pools have forks set \
                 to \"refuse\"",
            ),
            Self::NoPool(NoMatch::NotFork) => f.write_str(
                "the job is not of a pull request from a fork, and the matching pools have forks \
                 set to \"only\"",
            ),
            Self::NoPool(NoMatch::RunUnknown { problem: None }) => f.write_str(
                "waiting until GitHub reports where the code of the job's run comes from",
            ),
            Self::NoPool(NoMatch::RunUnknown { problem: Some(problem) }) => write!(
                f,
                "it is unknown where the code of the job's run comes from, which decides whether \
                 a pool serves it: {problem}"
            ),
            Self::NoPool(NoMatch::NotSelfHosted { labels }) => {
                let noun = if labels.len() == 1 { "label" } else { "labels" };
                write!(
                    f,
                    "no pool has the {noun} {}, and the job does not ask for self-hosted: other \
                     runners, such as GitHub's, are expected to run it",
                    Quoted(labels)
                )
            }
            Self::Recovering => {
                f.write_str("just started: waiting for the list of runners that already exist")
            }
            Self::Draining { pool: None } => f.write_str(
                "all pools are draining: nothing is launched until you run `edgerunner resume`",
            ),
            Self::Draining { pool: Some(pool) } => write!(
                f,
                "pool {pool} is draining: nothing is launched until you run \
                 `edgerunner resume --pool {pool}`"
            ),
            Self::LaunchQueued => f.write_str("other launches come first"),
            Self::Credentials => f.write_str("waiting for runner credentials from GitHub"),
            Self::ImagePulling => f.write_str("pulling the image"),
            Self::ContainerStarting => f.write_str("starting the container"),
            Self::NoRoom { message } => {
                write!(f, "no machine has room for another runner: {message}")
            }
            Self::RunnerUnreachable => {
                f.write_str("the machine of the runner for this job does not answer")
            }
            Self::RunnerStarting => f.write_str("the runner is starting"),
            Self::NotPickedUp => {
                f.write_str("a runner is idle, but GitHub has not assigned the job yet")
            }
            Self::HeldBack { .. } => f.write_str(
                "GitHub gives its runners no job: check max-parallel, the runner group and \
                 approvals",
            ),
            Self::PoolMax { max } => write!(f, "the pool is at its max of {max}"),
            Self::GlobalMax { max } => write!(f, "all pools together are at their max of {max}"),
            Self::HostDevices { needed, free, total } => write!(
                f,
                "its runner needs {needed} of the host's {total} devices for itself; free: {free}"
            ),
            Self::HostMemory { needed_mib, total_mib, .. } if needed_mib > total_mib => write!(
                f,
                "its runner may use {needed_mib} MiB of memory, and the host has {total_mib} MiB \
                 for runners: lower memory_mib, or docker.reserve_memory_mib"
            ),
            Self::HostMemory { needed_mib, free_mib, total_mib } => write!(
                f,
                "its runner may use {needed_mib} MiB of memory; free of the {total_mib} MiB that \
                 the host has for runners: {free_mib}"
            ),
            Self::HostCpus { needed_millis, total_millis, .. } if needed_millis > total_millis => {
                let (needed, total) = (Cpus(*needed_millis), Cpus(*total_millis));
                write!(
                    f,
                    "its runner may use {needed} CPUs, and the host has {total} for runners: lower \
                     cpus, or docker.reserve_cpus"
                )
            }
            Self::HostCpus { needed_millis, free_millis, total_millis } => {
                let [needed, free, total] =
                    [needed_millis, free_millis, total_millis].map(|it| Cpus(*it));
                write!(
                    f,
                    "its runner may use {needed} CPUs; free of the {total} that the host has for \
                     runners: {free}"
                )
            }
            Self::HostDisk { free_mib, reserve_mib } => write!(
                f,
                "the host's disk for containers has {free_mib} MiB free, less than the \
                 {reserve_mib} MiB of docker.reserve_disk_mib"
            ),
            Self::RepositoryMax { max } => {
                write!(f, "the repository is at its max of {max} running jobs")
            }
            Self::NoCredential { target, server_known: false } => write!(
                f,
                "no credential for {}: add one to [[credentials]], with the api_url of this \
                 server; if it is another name of a server that has one, set the web_url there",
                target.host
            ),
            Self::NoCredential { target, server_known: true } => write!(
                f,
                "no credential serves {target}: set github.token, or add it to the targets of one \
                 of [[credentials]]"
            ),
            Self::RateLimited { credential, .. } => {
                write!(f, "paused: GitHub's rate limit for credential {credential} is used up")
            }
            Self::LaunchRate { place, max, .. } => {
                write!(f, "paused: GitHub allows {max} new runners a minute {place}")
            }
            Self::BackOff { credential, message, .. } => {
                write!(f, "paused after an error{}: {message}", With(credential))
            }
            Self::Probing { credential, message, .. } => {
                write!(f, "one launch at a time after an error{}: {message}", With(credential))
            }
        }
    }
}

/// The jobs that wait for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingFigures {
    pub jobs: usize,
    /// When the oldest of them was queued.
    pub oldest: UnixMs,
}

/// A position in the queued jobs of all lanes.
#[derive(Debug)]
pub(super) struct Cursor {
    lane: LaneKey,
    /// The last job that was visited in the lane, and whether it is held back: those come last.
    after: Option<(bool, (Instant, JobKey))>,
    progress: Progress,
    /// For each repository, how many of its remaining jobs may run.
    shares: HashMap<String, usize>,
}

/// The lane's unused runners that are not assigned to a job yet, those closest to a job first.
#[derive(Debug, Default)]
struct Progress {
    idle: usize,
    starting: usize,
    /// The furthest last.
    launching: Vec<Stage>,
    unreachable: usize,
    /// The messages of launches that wait for room.
    no_room: Vec<String>,
}

impl Progress {
    /// Without the launches of the lane.
    fn of(lane: &Lane) -> Self {
        Self {
            idle: lane.idle - lane.unreachable_idle,
            starting: lane.starting - lane.unreachable_starting,
            unreachable: lane.unreachable_idle + lane.unreachable_starting,
            ..Self::default()
        }
    }
}

impl Iterator for Progress {
    type Item = Waiting;

    fn next(&mut self) -> Option<Waiting> {
        if self.idle > 0 {
            self.idle -= 1;
            return Some(Waiting::NotPickedUp);
        }
        if self.starting > 0 {
            self.starting -= 1;
            return Some(Waiting::RunnerStarting);
        }
        if let Some(stage) = self.launching.pop() {
            return Some(match stage {
                Stage::Container | Stage::Room => Waiting::ContainerStarting,
                Stage::Credentials => Waiting::Credentials,
                Stage::Image => Waiting::ImagePulling,
                Stage::Accepted => Waiting::LaunchQueued,
            });
        }
        if self.unreachable > 0 {
            self.unreachable -= 1;
            return Some(Waiting::RunnerUnreachable);
        }
        self.no_room.pop().map(|message| Waiting::NoRoom { message })
    }
}

impl State {
    /// Every waiting job with its reason, oldest first within each lane. Jobs that other runners
    /// are expected to run do not wait.
    pub fn waiting(&self, now: Instant) -> Vec<(&Job, Waiting)> {
        let mut found = Vec::new();
        self.visit_waiting(now, |job, reason| found.push((job, reason)));
        found
    }

    /// Like [`Self::waiting`], one job at a time.
    pub fn visit_waiting<'a>(&'a self, now: Instant, mut visit: impl FnMut(&'a Job, Waiting)) {
        self.visit_queued(None, usize::MAX, now, |tracked, reason| visit(&tracked.job, reason));
        for (job, why) in self.unmatched() {
            if !matches!(why, NoMatch::NotSelfHosted { .. }) {
                visit(job, Waiting::NoPool(why.clone()));
            }
        }
    }

    /// The same in numbers, by the reason's stable name.
    pub fn waiting_figures(&self, now: Instant) -> BTreeMap<&'static str, WaitingFigures> {
        let mut figures: BTreeMap<_, WaitingFigures> = BTreeMap::new();
        let mut add = |job: &Job, reason: &'static str| {
            let found = WaitingFigures { jobs: 0, oldest: job.queued_at };
            let found = figures.entry(reason).or_insert(found);
            found.jobs += 1;
            found.oldest = found.oldest.min(job.queued_at);
        };
        self.visit_waiting(now, |job, reason| add(job, reason.as_str()));
        figures
    }

    /// Announces the reasons that have changed.
    pub(super) fn explain(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let mut changed = Vec::new();
        let from = self.explaining.take();
        let next = self.visit_queued(from, EXPLAINED_AT_ONCE_MAX, now, |tracked, reason| {
            if tracked.waiting.as_ref() != Some(&reason) {
                changed.push((tracked.job.key, reason));
            }
        });
        self.explaining = next;
        let rest = self.unserved.len().saturating_sub(EXPLAINED_AT_ONCE_MAX);
        for job in self.unserved.drain(rest..) {
            if let Some(Tracked { lane: Err(why), state: JobState::Queued, .. }) =
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

    /// Visits at most `limit` jobs. Returns where to continue, or `None` at the end.
    fn visit_queued<'a>(
        &'a self,
        mut from: Option<Cursor>,
        limit: usize,
        now: Instant,
        mut visit: impl FnMut(&'a Tracked, Waiting),
    ) -> Option<Cursor> {
        let first = from.as_ref().map_or(Unbounded, |cursor| Included(cursor.lane.clone()));
        let mut lanes = Vec::new();
        let mut in_lanes = 0;
        for (key, lane) in self.lanes.range((first, Unbounded)) {
            let jobs = lane.queued.len() + lane.held.len();
            if jobs == 0 {
                continue;
            }
            lanes.push((key, lane));
            // Some of the first lane's jobs may have been visited.
            if from.as_ref().is_none_or(|cursor| cursor.lane != *key) {
                in_lanes += jobs;
            }
            if in_lanes > limit {
                break;
            }
        }
        let mut progress = self.progress_in(&lanes);
        let mut left = limit;
        for (key, lane) in lanes {
            let mut cursor = from.take().filter(|it| it.lane == *key).unwrap_or_else(|| {
                let progress = progress.remove(key).unwrap_or_else(|| Progress::of(lane));
                Cursor { lane: key.clone(), after: None, progress, shares: HashMap::new() }
            });
            let mut blocked: Option<Waiting> = None;
            let (queued, held) = match cursor.after {
                None => (Some(Unbounded), Unbounded),
                Some((false, job)) => (Some(Excluded(job)), Unbounded),
                Some((true, job)) => (None, Excluded(job)),
            };
            let queued = queued.into_iter().flat_map(|from| lane.queued.range((from, Unbounded)));
            let held = lane.held.range((held, Unbounded));
            let jobs = queued.map(|job| (false, job)).chain(held.map(|job| (true, job)));
            for (held, entry) in jobs {
                if left == 0 {
                    return Some(cursor);
                }
                left -= 1;
                cursor.after = Some((held, *entry));
                let Some(tracked) = self.jobs.get(&entry.1) else { continue };
                let repository = &tracked.job.repository;
                if held {
                    visit(tracked, self.held_back(repository, key));
                    continue;
                }
                if !cursor.shares.contains_key(repository) {
                    let allowed = self.share(repository, key).map_or(0, |share| share.allowed);
                    cursor.shares.insert(repository.clone(), allowed);
                }
                // Runners are launched only for jobs that may run.
                let reason = match cursor.shares.get_mut(repository) {
                    Some(share) if *share > 0 => {
                        *share -= 1;
                        cursor.progress.next().unwrap_or_else(|| {
                            blocked.get_or_insert_with(|| self.blocked(key, now)).clone()
                        })
                    }
                    _ => self.not_allowed(repository, key),
                };
                visit(tracked, reason);
            }
        }
        None
    }

    /// How far the unused runners of those lanes are in which some are being launched.
    fn progress_in<'a>(&'a self, lanes: &[(&LaneKey, &Lane)]) -> HashMap<&'a LaneKey, Progress> {
        let mut found: HashMap<&LaneKey, Progress> = HashMap::new();
        let (Some((first, _)), Some((last, _))) = (lanes.first(), lanes.last()) else {
            return found;
        };
        if self.counts.provisioning == 0 {
            return found;
        }
        let here = |key: &&LaneKey| key >= first && key <= last;
        for runner in self.runners.values() {
            if let Phase::Provisioning(stage) = runner.phase
                && let Some(key) = runner.lane.as_ref().filter(here)
                && let Some(lane) = self.lanes.get(key)
            {
                let progress = found.entry(key).or_insert_with(|| Progress::of(lane));
                match &runner.no_room {
                    Some(message) => progress.no_room.push(message.clone()),
                    None => progress.launching.push(stage),
                }
            }
        }
        for progress in found.values_mut() {
            progress.launching.sort_unstable();
            progress.no_room.sort_unstable();
        }
        found
    }

    /// Why a job is not among those that may launch a runner.
    fn not_allowed(&self, repository: &str, key: &LaneKey) -> Waiting {
        let max = self.settings.max_per_repository;
        match self.share(repository, key) {
            Some(share) if share.allowed == share.wanted() && share.held > 0 => {
                self.held_back(repository, key)
            }
            _ if !self.recovered_for(key.pool) => Waiting::Recovering,
            _ => self.draining_reason(key.pool).unwrap_or(Waiting::RepositoryMax { max }),
        }
    }

    fn held_back(&self, repository: &str, key: &LaneKey) -> Waiting {
        if !self.recovered_for(key.pool) {
            return Waiting::Recovering;
        }
        let until = self.share(repository, key).and_then(Share::held_until);
        self.draining_reason(key.pool).unwrap_or(Waiting::HeldBack { until })
    }

    /// Whether the runners are known that an earlier process left where the pool's runners run.
    pub(super) fn recovered_for(&self, pool: usize) -> bool {
        !self.paused && self.recovered[self.pool(pool).provider]
    }

    fn draining_reason(&self, pool: usize) -> Option<Waiting> {
        if self.draining {
            Some(Waiting::Draining { pool: None })
        } else if self.pool_draining(pool) {
            Some(Waiting::Draining { pool: Some(self.pool(pool).name.clone()) })
        } else {
            None
        }
    }

    /// Why no further runner is launched in the lane.
    fn blocked(&self, key: &LaneKey, now: Instant) -> Waiting {
        let pool = self.pool(key.pool);
        if !self.recovered_for(key.pool) {
            return Waiting::Recovering;
        }
        if let Some(draining) = self.draining_reason(key.pool) {
            return draining;
        }
        let credentials = self.credentials_at(key);
        if credentials.is_empty() {
            let target = key.target.clone();
            let mut credentials = self.settings.credentials.iter();
            let server_known =
                !target.host.is_known() || credentials.any(|it| it.host == target.host);
            return Waiting::NoCredential { target, server_known };
        }
        let about = |blocked: &Blocked, backoff: &Backoff| match blocked {
            Blocked::Credential(credential) | Blocked::TargetWith(_, credential) => {
                Some(*credential)
            }
            // Its token was refused, or GitHub did not answer it.
            Blocked::Target(_) if may_be_the_credential(backoff.cause) => {
                credentials.first().copied()
            }
            _ => None,
        };
        let about = |blocked: &Blocked, backoff: &Backoff| {
            about(blocked, backoff).map(|credential| self.credential_name(credential).to_owned())
        };
        // Parked runners need nothing from GitHub.
        let gate = match self.wakeable(key, now) {
            0 => self.lane_gate(key, now),
            _ => Gate::Open,
        };
        match gate {
            Gate::Closed(blocked, backoff) => {
                let Backoff { cause, message, .. } =
                    self.backoffs.failure_at(&key.target, blocked, backoff);
                return Waiting::paused(*cause, message, backoff.until, about(blocked, backoff));
            }
            Gate::OneAtATime(blocked, backoff) => {
                let Backoff { cause, message, .. } =
                    self.backoffs.failure_at(&key.target, blocked, backoff);
                let (credential, message) = (about(blocked, backoff), message.clone());
                return Waiting::Probing { credential, cause: *cause, message };
            }
            Gate::Open => {}
        }
        if self.pool_counts[key.pool].live >= pool.max {
            Waiting::PoolMax { max: pool.max }
        } else if self.counts.live >= self.settings.max {
            Waiting::GlobalMax { max: self.settings.max }
        } else if let Some(message) = self.held_up_by_room(key.pool) {
            Waiting::NoRoom { message: message.to_owned() }
        } else if let Some((place, max, until)) = self.minute_limit(&key.target, now) {
            Waiting::LaunchRate { place, max, until }
        } else if let Some(used_up) = self.devices_used_up(key.pool) {
            used_up
        } else if let Some(full) = self.machine_full(key) {
            full
        } else {
            Waiting::LaunchQueued
        }
    }
}
