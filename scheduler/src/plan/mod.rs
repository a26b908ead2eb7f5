//! The scheduler: `plan(&mut State, Event, now) -> Vec<Action>`.
//!
//! A pure function of its arguments: no clock, no randomness of its own, no
//! input or output, and it cannot fail. It keeps levels, not edges: what to
//! launch is computed anew from what is queued and what runs, so a webhook that
//! was lost, repeated or late is made good by the next event or tick.

mod backoff;
mod credential;
mod demand;
mod jobs;
mod life;
mod observe;
mod pool;
mod reload;
mod runner;
mod waiting;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
};

pub use backoff::{Backoff, Blocked};
pub use credential::{Credential, TargetPattern, credential_for};
pub use pool::{LifeLimits, NoMatch, Pool, RepositoryPattern, Scope, match_pool};
pub use runner::{EndReason, Phase, Runner, Stage};
pub use waiting::Waiting;

use crate::model::{Cause, Job, JobKey, Target, UnixMs};
use backoff::{Backoffs, Gate};
use demand::{Counts, Lane, PoolCounts, Repository};
use jobs::{Progress, Tracked};
use life::LaunchFailure;
use waiting::Cursor;

/// After its job a runner has this long to end by itself.
const FINISHING_MS: u64 = 120_000;

/// What a runner serves: a pool, and the place at GitHub it is registered at.
pub type LaneKey = (usize, Target);

#[derive(Clone, Debug)]
pub struct Settings {
    pub pools: Vec<Pool>,
    /// In their order: the first that serves a target is taken.
    pub credentials: Vec<Credential>,
    /// Runners of all pools together.
    pub max: usize,
    /// Jobs of one repository running at once.
    pub max_per_repository: usize,
    /// First part of every runner's name.
    pub instance: String,
}

#[derive(Clone, Debug)]
pub enum Event {
    JobQueued(Job),
    /// A runner took the job; not necessarily the one it was launched for, nor one of ours.
    JobStarted {
        job: Job,
        runner: String,
    },
    JobCompleted {
        job: Job,
        runner: String,
    },
    /// A launch got as far as this.
    Progress {
        runner: String,
        stage: Stage,
    },
    Registered {
        runner: String,
        registration_id: u64,
    },
    Launched {
        runner: String,
    },
    LaunchFailed {
        runner: String,
        cause: Cause,
        message: String,
        retry_after_ms: u64,
        /// Whether it got far enough for a container to exist.
        may_run: bool,
    },
    ContainerExited {
        runner: String,
        exit_code: i64,
    },
    /// What GitHub lists at a target.
    Registrations {
        target: Target,
        runners: Vec<Registration>,
    },
    /// What GitHub says of a job that was looked up.
    JobFound {
        job: JobKey,
        status: JobStatus,
    },
    Removed {
        runner: String,
    },
    /// GitHub says that the runner is busy.
    RemovalRefused {
        runner: String,
    },
    RemovalFailed {
        runner: String,
    },
    /// A runner that an earlier process left behind.
    Adopted(Adopted),
    /// All containers of ours, as they were at one moment.
    Survey {
        containers: Vec<Adopted>,
        taken_at: UnixMs,
    },
    /// Everything that an earlier process left behind is adopted: launches may begin.
    Recovered,
    /// This process is about to end: launch nothing more.
    Pause,
    /// From now on a pool keeps so many runners idle at each of its targets.
    MinIdle {
        pool: usize,
        min_idle: usize,
    },
    Tick,
    /// From now on these are the pools.
    Pools(Vec<Pool>),
    /// Somebody wants this runner gone. One that is busy goes by force alone.
    RemoveRunner {
        runner: String,
        force: bool,
    },
    /// Launch nothing more and let runners finish, or go on; in one pool or in all.
    Drain {
        pool: Option<usize>,
        draining: bool,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobStatus {
    /// Also while it waits for an approval or another job.
    Queued,
    InProgress {
        runner: String,
    },
    /// Or GitHub does not know it any more.
    Over,
}

#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub id: u64,
    pub online: bool,
    pub busy: bool,
}

#[derive(Clone, Debug)]
pub struct Adopted {
    pub runner: String,
    pub pool: String,
    pub target: Target,
    pub registration_id: Option<u64>,
    pub job: Option<JobKey>,
    pub created_at: UnixMs,
    pub container: AdoptedContainer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptedContainer {
    Running,
    Exited(i64),
    /// Not started, or not yet: Docker carries out what a process asked of it before
    /// it was killed.
    Created,
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Launch(Launch),
    /// Remove the registration, where asked for, and then the container.
    Remove(Removal),
    /// List the runners that GitHub knows at a target.
    LookUp(Target),
    /// Ask GitHub what became of a job.
    LookUpJob {
        job: JobKey,
        repository: String,
        /// Where its runners are registered.
        target: Target,
    },
    /// Why these jobs wait has changed.
    Explain(Vec<(JobKey, Waiting)>),
    /// A runner changed; the record in the store should follow.
    Record(String),
    /// A runner is gone.
    Forget(Box<Runner>, EndReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub runner: String,
    pub pool: usize,
    pub target: Target,
    /// The delivery of the job that was waiting longest without a runner on its way. For
    /// the log alone: which job the runner will get is for GitHub to decide.
    pub prompted_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub runner: String,
    pub pool: String,
    pub target: Target,
    pub registration_id: Option<u64>,
    /// Whether a registration may still be there.
    pub deregister: bool,
    /// Stop the container although its runner is busy: the job has had its time.
    pub force: bool,
    /// The runner failed: keep its last log lines.
    pub keep_logs: bool,
}

/// Everything the scheduler knows. Holds no handle to anything outside.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    /// Indexes into the pools, those of the same priority together, highest first.
    pools_by_priority: Vec<Vec<usize>>,
    jobs: HashMap<JobKey, Tracked>,
    /// When each running job started, as far as we heard.
    in_progress: BTreeSet<(UnixMs, JobKey)>,
    tombstones: HashMap<JobKey, UnixMs>,
    tombstones_by_age: VecDeque<(UnixMs, JobKey)>,
    repositories: HashMap<String, Repository>,
    runners: HashMap<String, Runner>,
    deadlines: BTreeSet<(UnixMs, String)>,
    /// Runners that were removed a short time ago.
    gone: HashMap<String, UnixMs>,
    gone_by_age: VecDeque<(UnixMs, String)>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// For each pool the lanes that need more runners than they have, by the age of
    /// their oldest job.
    wanting: Vec<BTreeSet<(UnixMs, Target)>>,
    /// For each pool the lanes that have idle runners to preemptible.
    preemptible: Vec<BTreeSet<Target>>,
    pool_counts: Vec<PoolCounts>,
    counts: Counts,
    /// For each credential the launches in flight that need it.
    provisioning_with: Vec<usize>,
    /// For each pool the runners that ended well but without news of a job, since
    /// the last that is known to have reached GitHub.
    unexplained_exits: Vec<u32>,
    backoffs: Backoffs,
    looked_at: UnixMs,
    /// Where to go on, so that every target gets its turn.
    looked_target: Option<Target>,
    looked_at_job: UnixMs,
    /// Queued jobs that no pool serves and whose reason is not told yet.
    unserved: Vec<JobKey>,
    /// Where the next tick goes on looking why jobs wait.
    explaining: Option<Cursor>,
    /// Nothing is launched before [`Event::Recovered`], since what runs already is not
    /// known, nor after [`Event::Pause`].
    recovered: bool,
    draining: bool,
    /// Pools that drain by themselves.
    draining_pools: BTreeSet<usize>,
    random: SplitMix64,
}

impl State {
    /// `seed` decides the names of runners and the jitter of waits; take a new
    /// one for every process, or names repeat.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let pools = settings.pools.len();
        let mut by_priority: BTreeMap<Reverse<i32>, Vec<usize>> = BTreeMap::new();
        for (index, pool) in settings.pools.iter().enumerate() {
            by_priority.entry(Reverse(pool.priority)).or_default().push(index);
        }
        let credentials = settings.credentials.len();
        let mut state = Self {
            settings,
            pools_by_priority: by_priority.into_values().collect(),
            jobs: HashMap::new(),
            in_progress: BTreeSet::new(),
            tombstones: HashMap::new(),
            tombstones_by_age: VecDeque::new(),
            repositories: HashMap::new(),
            runners: HashMap::new(),
            deadlines: BTreeSet::new(),
            gone: HashMap::new(),
            gone_by_age: VecDeque::new(),
            lanes: BTreeMap::new(),
            wanting: vec![BTreeSet::new(); pools],
            preemptible: vec![BTreeSet::new(); pools],
            pool_counts: vec![PoolCounts::default(); pools],
            counts: Counts::default(),
            provisioning_with: vec![0; credentials],
            unexplained_exits: vec![0; pools],
            backoffs: Backoffs::default(),
            looked_at: 0,
            looked_target: None,
            looked_at_job: 0,
            unserved: Vec::new(),
            explaining: None,
            recovered: false,
            draining: false,
            draining_pools: BTreeSet::new(),
            random: SplitMix64(seed),
        };
        for index in 0..pools {
            let min_idle = state.pool(index).min_idle;
            if min_idle > 0 {
                state.set_min_idle(index, min_idle);
            }
        }
        state
    }

    pub fn runner(&self, name: &str) -> Option<&Runner> {
        self.runners.get(name)
    }

    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// The pool that a queued job waits for, and since when.
    pub fn queued_job(&self, key: JobKey) -> Option<(&str, UnixMs)> {
        let Tracked { job, lane: Ok((pool, _)), progress: Progress::Queued, .. } =
            self.jobs.get(&key)?
        else {
            return None;
        };
        Some((&self.pool(*pool).name, job.queued_at))
    }

    /// All pools.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// This pool by itself.
    pub fn pool_draining(&self, pool: usize) -> bool {
        self.draining_pools.contains(&pool)
    }

    pub fn recovered(&self) -> bool {
        self.recovered
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runners whose containers may run.
    pub fn live(&self) -> usize {
        self.counts.live
    }

    /// Jobs that wait for a runner of the pool.
    pub fn queued(&self, pool: usize) -> usize {
        self.lanes
            .iter()
            .filter(|((index, _), _)| *index == pool)
            .map(|(_, lane)| lane.queued.len())
            .sum()
    }

    /// What a failure holds back, in words.
    pub fn describe(&self, blocked: &Blocked) -> String {
        match blocked {
            Blocked::Docker => "everything: Docker".into(),
            Blocked::GitHub(credential) => {
                format!(
                    "everything at GitHub with credential {}",
                    self.credential_name(*credential)
                )
            }
            Blocked::Store => "everything: the store".into(),
            Blocked::Pool(pool) => format!("pool {}", self.pool(*pool).name),
            Blocked::Lane(pool, target) => format!("pool {} at {target}", self.pool(*pool).name),
        }
    }

    /// Launches that have not ended yet, in either way.
    pub fn launching(&self) -> usize {
        self.counts.provisioning
    }

    pub fn backoffs(&self) -> impl Iterator<Item = (&Blocked, &Backoff)> {
        self.backoffs.all()
    }

    fn credential_name(&self, index: usize) -> &str {
        &self.settings.credentials[index].name
    }

    fn pool(&self, index: usize) -> &Pool {
        &self.settings.pools[index]
    }
}

/// Takes in one event and says what to do about it.
pub fn plan(state: &mut State, event: Event, now: UnixMs) -> Vec<Action> {
    let mut actions = Vec::new();
    let tick = matches!(event, Event::Tick);
    match event {
        Event::JobQueued(job) => state.job_queued(job),
        Event::JobStarted { job, runner } => state.job_started(job, &runner, now, &mut actions),
        Event::JobCompleted { job, runner } => {
            state.job_completed(&job, &runner, now, &mut actions);
        }
        Event::Progress { runner, stage } => state.progress(&runner, stage, now),
        Event::Registered { runner, registration_id } => {
            state.registered(&runner, registration_id, &mut actions);
        }
        Event::Launched { runner } => state.launched(&runner, now, &mut actions),
        Event::LaunchFailed { runner, cause, message, retry_after_ms, may_run } => {
            let why = LaunchFailure { cause, message, retry_after_ms, may_run };
            state.launch_failed(&runner, why, now, &mut actions);
        }
        Event::ContainerExited { runner, exit_code } => {
            state.container_exited(&runner, exit_code, now, &mut actions);
        }
        Event::Registrations { target, runners } => {
            state.registrations(&target, &runners, now, &mut actions);
        }
        Event::JobFound { job, status } => state.job_found(job, status, now, &mut actions),
        Event::Removed { runner } => state.removed(&runner, now, &mut actions),
        Event::RemovalRefused { runner } => state.removal_refused(&runner, now, &mut actions),
        Event::RemovalFailed { runner } => state.retry_removal(&runner, now),
        Event::Adopted(adopted) => state.adopt(adopted, now, &mut actions),
        Event::Survey { containers, taken_at } => {
            state.survey(&containers, taken_at, now, &mut actions);
        }
        Event::Recovered => state.recovered = true,
        Event::Pause => state.recovered = false,
        Event::MinIdle { pool, min_idle } => state.set_min_idle(pool, min_idle),
        Event::Tick => state.tick(now, &mut actions),
        Event::Pools(pools) => state.set_pools(pools, now),
        Event::RemoveRunner { runner, force } => {
            state.remove_runner(&runner, force, now, &mut actions);
        }
        Event::Drain { pool, draining } => state.drain(pool, draining, now, &mut actions),
    }
    state.launch_what_is_missing(now, &mut actions);
    state.preempt(now, &mut actions);
    // Once it is known who is on the way.
    if tick {
        state.explain(now, &mut actions);
    }
    actions
}

/// Sebastiano Vigna's SplitMix64: names and jitter need spread, not secrecy.
#[derive(Debug)]
struct SplitMix64(u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests;
