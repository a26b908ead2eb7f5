//! The planner: `plan(&mut State, Event, Moment) -> Vec<Action>`.
//!
//! A pure function of its arguments. It is level-triggered: the number of runners to launch is
//! recomputed from the jobs that are queued and the runners that exist, so the next event or
//! tick makes up for a webhook that was lost, repeated or late.

mod allowance;
mod backoff;
mod choice;
mod credential;
mod demand;
mod devices;
mod held;
mod job_look_up;
mod jobs;
mod launch;
mod launch_rate;
mod left;
mod life;
mod machine;
mod observe;
mod order;
mod parameters;
mod parked;
mod pool;
mod reload;
mod removal;
mod room;
mod run_look_up;
mod runner;
mod spill;
mod unreachable;
mod waiting;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    time::Duration,
};

pub use backoff::{Backoff, Blocked};
pub use credential::{
    Credential, TargetPattern, credential_for, credential_for_name, credentials_for,
    credentials_for_name, default_host, host_for_name, is_shared,
};
pub use launch_rate::{AT_TARGET_MAX, Quota, WITH_CREDENTIAL_MAX, has_launch_limits};
pub use life::TOO_OLD_EXIT_CODE;
pub use machine::{Disk, Machine, Resources};
pub use order::Explanations;
pub use parameters::{InvalidParameters, LabelParameters, Parameters, Values};
pub use parked::Parked;
pub use pool::{
    Forks, LifeLimits, NoMatch, Pool, RepositoryPattern, Scope, is_github_hosted, match_pool,
};
pub use removal::{BUSY_MAX, CONTAINER_MAX, REFUSED_MAX, REMOVAL_MAX, UNANSWERED_MAX};
pub use runner::{EndReason, ExitStatus, Phase, Removing, Runner, Stage};
pub use waiting::{Waiting, WaitingFigures};

use crate::model::{
    Cause, Host, Instant, Job, JobKey, JobState, Moment, RunOrigin, ServerTarget, UnixMs,
};
use backoff::{Backoffs, Gate};
use demand::{Counts, GrowingPause, Lane, PoolCounts, Repository};
use devices::HeldDevices;
use job_look_up::JobLookUps;
use jobs::Tracked;
use launch_rate::LaunchRates;
use left::LeftRegistrations;
use life::LaunchFailure;
use machine::Held;
use order::Place;
use room::LackOfRoom;
use run_look_up::RunLookUps;
use unreachable::UnreachableRunners;
use waiting::Cursor;

/// How long a runner may take to exit by itself after its job.
const FINISHING: Duration = Duration::from_secs(120);

/// Rounds of one event in which jobs move between lanes. Moving one can make room for another.
const SPILLS_MAX: usize = 8;

/// A lane: the runners of one pool that are registered at one target and launched with the same
/// parameters, and the jobs that wait for them.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneKey {
    /// Index into [`Settings::pools`].
    pub pool: usize,
    pub target: ServerTarget,
    pub parameters: Parameters,
}

impl LaneKey {
    /// The lane without parameters.
    fn plain(pool: usize, target: ServerTarget) -> Self {
        Self { pool, target, parameters: Parameters::default() }
    }
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub pools: Vec<Pool>,
    /// See [`credentials_for`].
    pub credentials: Vec<Credential>,
    /// Names of the providers, for messages; see [`Pool::provider`].
    pub providers: Vec<String>,
    /// IDs of the devices that runners of pools with [`Pool::devices`] get for themselves. All such
    /// pools run on the one machine that has them.
    pub devices: Vec<String>,
    /// Runners of all pools together.
    pub max: usize,
    /// Running jobs of one repository.
    pub max_per_repository: usize,
    /// Among pools of one priority.
    pub order: Order,
    /// Prefix of every runner's name.
    pub instance: String,
    /// In every runner's name, so that two planners never choose the same one. `None` if there is
    /// but one.
    pub term: Option<u64>,
}

/// Which target's runner is launched next, among pools of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// That of the target with the fewest runners, then that of the job that waits longest.
    #[default]
    Fair,
    /// That of the job that waits longest.
    Oldest,
}

#[derive(Clone, Debug)]
pub enum Event {
    JobQueued(Job),
    /// A runner took the job: not necessarily one of ours, nor the one launched for it.
    JobStarted {
        job: Job,
        runner: String,
    },
    JobCompleted {
        job: Job,
        runner: String,
    },
    /// A launch reached this stage, other than [`Stage::Room`].
    Progress {
        runner: String,
        stage: Stage,
    },
    /// A launch waits until its provider has room: no machine has the CPUs, the memory or the
    /// labels that it needs. It waits without a time limit, until [`Event::Progress`] with
    /// [`Stage::Container`] reports that it got room, or until it is removed.
    NoRoom {
        runner: String,
        /// Which room it lacks, in the provider's words.
        message: String,
        /// When the runner can no longer register, or connect, with its credentials.
        credentials_end: Instant,
    },
    Registered {
        runner: String,
        registration_id: u64,
    },
    Launched {
        runner: String,
    },
    /// The launch of a runner to be parked ended.
    Parked {
        runner: String,
        /// Whether its container runs a shell that waits, or was only created.
        started: bool,
    },
    /// [`Action::Wake`] failed. The runner's command may have begun nevertheless.
    WakeFailed {
        runner: String,
        cause: Cause,
        message: String,
        /// Its container does not run any more.
        gone: bool,
    },
    LaunchFailed {
        runner: String,
        cause: Cause,
        message: String,
        retry_after_ms: u64,
        /// Whether a container may exist.
        may_exist: bool,
    },
    ContainerExited {
        runner: String,
        status: ExitStatus,
    },
    /// All runners that GitHub lists at a target.
    Registrations {
        target: ServerTarget,
        runners: Vec<Registration>,
        /// When the list was requested.
        requested_at: Instant,
    },
    /// A request about the runners of a target failed that is neither a launch nor the removal
    /// of a present runner.
    LookUpFailed {
        target: ServerTarget,
        cause: Cause,
        message: String,
        retry_after_ms: u64,
    },
    /// The result of [`Action::LookUpJob`].
    JobFound {
        job: JobKey,
        /// Also `Queued` while the job waits for an approval or another job, and `Completed` if
        /// GitHub does not know it any more.
        state: JobState,
        /// The runner that took it; empty if none did.
        runner: String,
    },
    /// [`Action::LookUpJob`] failed.
    JobLookUpFailed {
        job: JobKey,
        failure: LookUpFailure,
    },
    /// The result of [`Action::LookUpRun`].
    RunFound {
        host: Host,
        run_id: u64,
        repository: String,
        /// `None`: GitHub no longer has the run.
        origin: Option<RunOrigin>,
    },
    /// [`Action::LookUpRun`] failed.
    RunLookUpFailed {
        host: Host,
        run_id: u64,
        repository: String,
        failure: LookUpFailure,
    },
    /// What [`Action::Remove`] named is removed.
    Removed {
        runner: String,
    },
    /// GitHub refuses to remove the runner because it is busy.
    RemovalRefused {
        runner: String,
    },
    RemovalFailed {
        runner: String,
        failure: RemovalFailure,
    },
    /// A registration that was left is removed: see [`Action::Deregister`].
    Deregistered {
        runner: String,
        target: ServerTarget,
    },
    /// A runner that an earlier process left behind.
    Adopted(Adopted),
    /// A container of a runner that is on record as gone.
    OnRecordAsGone(Adopted),
    /// A list of all runners that a provider has.
    Survey {
        provider: usize,
        containers: Vec<Adopted>,
        /// When the list was requested.
        taken_at: Instant,
    },
    /// Everything that an earlier process left behind at a provider is adopted: launches may begin
    /// there.
    Recovered {
        provider: usize,
    },
    /// The process is about to exit: launch nothing more.
    Pause,
    /// Changes how many runners a pool keeps idle at each of its targets.
    MinIdle {
        pool: usize,
        min_idle: usize,
    },
    Tick,
    /// What the one machine of a provider has for runners. Until it is known, nothing is limited
    /// by it.
    Machine {
        provider: usize,
        machine: Machine,
    },
    /// What credentials have left. One that is not listed has no quota, or it is not known.
    Quotas(Vec<Quota>),
    /// Replaces the pools.
    Pools(Vec<Pool>),
    /// An operator removes this runner. A busy one is removed only with `force`.
    RemoveRunner {
        runner: String,
        force: bool,
    },
    /// Starts or ends draining: nothing is launched, idle runners are removed, busy ones finish.
    Drain {
        /// `None`: all pools.
        pool: Option<usize>,
        draining: bool,
    },
    /// An operator ends the waits after failed launches, other than those that GitHub asked for.
    Retry,
}

/// An attempt to remove a runner that did not remove all of it.
#[derive(Clone, Debug)]
pub struct RemovalFailure {
    /// GitHub does not have the registration any more.
    pub deregistered: bool,
    pub container_removed: bool,
    pub cause: Cause,
    pub message: String,
    /// Zero unless GitHub asked to wait.
    pub retry_after_ms: u64,
}

/// Why a look-up at GitHub failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookUpFailure {
    /// GitHub does not show the target or the repository to the credential.
    Refused,
    /// The answer is not GitHub's, or not one that it documents.
    Unexpected,
    /// No answer: GitHub is away or fails at this repository, or it accepts no requests with this
    /// credential for now.
    Unavailable {
        /// Zero unless GitHub asked to wait.
        retry_after: Duration,
    },
}

/// A runner as GitHub lists it.
#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub id: u64,
    pub online: bool,
    pub busy: bool,
}

/// A runner that exists in the store, as a container, or both.
#[derive(Clone, Debug)]
pub struct Adopted {
    pub runner: String,
    pub pool: String,
    /// Index into [`Settings::providers`]: where it runs.
    pub provider: usize,
    pub target: ServerTarget,
    pub registration_id: Option<u64>,
    pub job: Option<JobKey>,
    pub created_at: UnixMs,
    pub container: AdoptedContainer,
    pub parameters: Parameters,
    /// Those that it has for itself, as its container says.
    pub devices: Vec<String>,
    /// If it was parked.
    pub parked: Option<Parked>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptedContainer {
    Running,
    /// Its machine does not answer, so it is unknown whether it still runs.
    Unreachable,
    Exited(ExitStatus),
    /// Not started, or not yet: Docker still executes requests of a process that was killed.
    Created,
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Launch(Launch),
    /// Make the command of a parked runner begin, once its record is saved.
    Wake(Wake),
    Remove(Removal),
    /// Remove a registration whose runner is gone.
    Deregister {
        runner: String,
        target: ServerTarget,
        registration_id: u64,
    },
    /// List the runners that are registered at a target.
    LookUp(ServerTarget),
    /// Look up the state of a job at GitHub.
    LookUpJob {
        job: JobKey,
        repository: String,
        /// Where its runners are registered.
        target: ServerTarget,
    },
    /// Ask GitHub where the code of a run comes from.
    LookUpRun {
        host: Host,
        run_id: u64,
        repository: String,
        /// Where its runners are registered.
        target: ServerTarget,
    },
    /// Record where the code of these jobs comes from.
    RecordOrigins(Vec<(JobKey, RunOrigin)>),
    /// Record the job as completed with an unknown conclusion: its end will not be reported.
    GiveUpJob {
        job: JobKey,
        why: String,
    },
    /// The waiting reasons of these jobs have changed.
    Explain(Vec<(JobKey, Waiting)>),
    /// This runner changed: save it.
    Record(String),
    /// This runner is gone.
    Forget(Box<Runner>, EndReason),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    pub runner: String,
    pub pool: usize,
    pub target: ServerTarget,
    pub parameters: Parameters,
    /// Index of the credential to register it with.
    pub credential: usize,
    /// The devices that it has for itself.
    pub devices: Vec<String>,
    /// Do not begin its command: it is woken when a job needs it.
    pub park: bool,
    /// Delivery of the job that has waited longest without a runner being launched for it. Only
    /// for logs and traces: GitHub decides which job the runner gets.
    pub prompted_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wake {
    pub runner: String,
    pub pool: String,
    /// Index into [`Settings::providers`]: where it runs.
    pub provider: usize,
    pub target: ServerTarget,
    /// An earlier process may have woken it already.
    pub again: bool,
    /// As in [`Launch`].
    pub prompted_by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    pub runner: String,
    pub pool: String,
    /// Index into [`Settings::providers`]: where it runs.
    pub provider: usize,
    pub target: ServerTarget,
    pub registration_id: Option<u64>,
    /// Remove the registration. If GitHub refuses, the container stays, unless it comes first.
    pub deregister: bool,
    /// Remove the container.
    pub container: bool,
    /// Remove the container before the registration, and whether or not that can be removed.
    pub container_first: bool,
    /// Stop the container even if its runner is busy.
    pub force: bool,
    /// Attempts that failed before this one.
    pub attempts: u32,
    /// The runner failed: save its last log lines.
    pub keep_logs: bool,
}

/// The planner's state.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    /// Indexes of the pools, grouped by priority, highest first.
    pools_by_priority: Vec<Vec<usize>>,
    jobs: HashMap<JobKey, Tracked>,
    /// Running jobs, by when the event that they started arrived.
    in_progress: BTreeSet<(Instant, JobKey)>,
    tombstones: HashMap<JobKey, Instant>,
    tombstones_by_age: VecDeque<(Instant, JobKey)>,
    /// By host and name.
    repositories: HashMap<(Host, String), Repository>,
    runners: HashMap<String, Runner>,
    deadlines: BTreeSet<(Instant, String)>,
    /// Runners that were removed recently.
    gone: HashMap<String, Instant>,
    gone_by_age: VecDeque<(Instant, String)>,
    lanes: BTreeMap<LaneKey, Lane>,
    /// For each pool, the lanes that need more runners than they have, in the order in which they
    /// get them.
    in_deficit: Vec<BTreeSet<(Place, LaneKey)>>,
    /// For each pool, the lanes with preemptible runners.
    preemptible: Vec<BTreeSet<LaneKey>>,
    /// The lanes with launches that wait for room although nothing needs them any more.
    needless: BTreeSet<LaneKey>,
    /// The lanes with fewer parked runners than they are to have.
    to_park: BTreeSet<LaneKey>,
    /// The lanes with more parked runners than they are to have.
    overparked: BTreeSet<LaneKey>,
    /// The lanes with queued jobs that another lane could serve as well.
    movable: BTreeSet<LaneKey>,
    /// Repositories with jobs that GitHub holds back, by when their next probe begins.
    probes_due: BTreeSet<(Instant, String, LaneKey)>,
    /// Jobs that this tick may still find to be held back.
    hold_left: usize,
    pool_counts: Vec<PoolCounts>,
    counts: Counts,
    /// For each credential, the launches in flight that use it.
    provisioning_with: Vec<usize>,
    /// For each provider, the launches in flight there.
    provisioning_at: Vec<usize>,
    /// For each pool, why and until when jobs avoid it; `None` as long as it has room.
    lack_room: Vec<Option<LackOfRoom>>,
    devices: HeldDevices,
    /// For each provider.
    machines: Vec<Machine>,
    /// For each provider.
    held: Vec<Held>,
    unreachable: UnreachableRunners,
    /// For each pool, how many runners in a row exited with code 0 without an event about a job.
    unexplained_exits: Vec<u32>,
    /// For each pool, a pause after a runner could not be parked.
    parking_pauses: Vec<GrowingPause>,
    /// For each pool, whether a runner that was woken did not come online, and none has since.
    wakes_doubtful: Vec<bool>,
    backoffs: Backoffs,
    launch_rates: LaunchRates,
    /// Of look-ups of runners. They pause no launches.
    look_up_backoffs: Backoffs,
    left: LeftRegistrations,
    /// Runners in launch that an operator removes by force.
    forced: HashSet<String>,
    /// Lists of runners that were received.
    lists: u64,
    last_look_up: Option<Instant>,
    /// Target of the last look-up: targets take turns.
    last_looked_up: Option<ServerTarget>,
    job_look_ups: JobLookUps,
    run_look_ups: RunLookUps,
    /// Queued jobs that no pool serves and whose reason is not announced yet.
    unserved: Vec<JobKey>,
    /// Where the next tick continues to explain why jobs wait.
    explaining: Option<Cursor>,
    /// For each provider: nothing is launched there before [`Event::Recovered`], since existing
    /// runners are not known yet.
    recovered: Vec<bool>,
    /// Jobs that started or ended on a runner that was not adopted yet, by its name.
    before_adoption: HashMap<String, JobKey>,
    /// Nothing is launched after [`Event::Pause`].
    paused: bool,
    /// All pools.
    draining: bool,
    /// Names of the pools that are drained individually, also of pools that are not configured
    /// now: if they return, they are still drained.
    draining_pools: BTreeSet<String>,
    random: SplitMix64,
}

impl State {
    /// `seed` determines the names of runners and the jitter of back-offs. Use another one in
    /// each process, or names repeat.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let pools = settings.pools.len();
        let mut by_priority: BTreeMap<Reverse<i32>, Vec<usize>> = BTreeMap::new();
        for (index, pool) in settings.pools.iter().enumerate() {
            by_priority.entry(Reverse(pool.priority)).or_default().push(index);
        }
        let (credentials, providers) = (settings.credentials.len(), settings.providers.len());
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
            in_deficit: vec![BTreeSet::new(); pools],
            preemptible: vec![BTreeSet::new(); pools],
            needless: BTreeSet::new(),
            to_park: BTreeSet::new(),
            overparked: BTreeSet::new(),
            movable: BTreeSet::new(),
            probes_due: BTreeSet::new(),
            hold_left: 0,
            pool_counts: vec![PoolCounts::default(); pools],
            counts: Counts::default(),
            provisioning_with: vec![0; credentials],
            provisioning_at: vec![0; providers],
            lack_room: vec![None; pools],
            devices: HeldDevices::default(),
            machines: vec![Machine::default(); providers],
            held: vec![Held::default(); providers],
            unreachable: UnreachableRunners::default(),
            unexplained_exits: vec![0; pools],
            parking_pauses: (0..pools).map(|_| GrowingPause::default()).collect(),
            wakes_doubtful: vec![false; pools],
            backoffs: Backoffs::default(),
            launch_rates: LaunchRates::default(),
            look_up_backoffs: Backoffs::default(),
            left: LeftRegistrations::default(),
            forced: HashSet::new(),
            lists: 0,
            last_look_up: None,
            last_looked_up: None,
            job_look_ups: JobLookUps::default(),
            run_look_ups: RunLookUps::default(),
            unserved: Vec::new(),
            explaining: None,
            recovered: vec![false; providers],
            before_adoption: HashMap::new(),
            paused: false,
            draining: false,
            draining_pools: BTreeSet::new(),
            random: SplitMix64(seed),
        };
        for index in 0..pools {
            let min_idle = state.pool(index).min_idle;
            if min_idle > 0 {
                state.set_min_idle(index, min_idle);
            }
            state.set_parked(index);
        }
        state
    }

    pub fn runner(&self, name: &str) -> Option<&Runner> {
        self.runners.get(name)
    }

    pub fn runners(&self) -> impl Iterator<Item = &Runner> {
        self.runners.values()
    }

    /// A job that is queued or in progress.
    pub fn job(&self, key: JobKey) -> Option<&Job> {
        self.jobs.get(&key).map(|tracked| &tracked.job)
    }

    /// Whether GitHub has yet to report the end of a job that it has announced.
    pub fn awaits_end(&self, key: JobKey) -> bool {
        self.jobs.contains_key(&key) || self.job_look_ups.unconfirmed.contains_key(&key)
    }

    /// Queued jobs that no pool serves, and why, in any order.
    pub fn unmatched(&self) -> impl Iterator<Item = (&Job, &NoMatch)> {
        self.jobs.values().filter_map(|tracked| match (&tracked.lane, tracked.state) {
            (Err(why), JobState::Queued) => Some((&tracked.job, why)),
            _ => None,
        })
    }

    /// The name of the pool that a queued job waits for, and since when it waits.
    pub fn queued_job(&self, key: JobKey) -> Option<(&str, Instant)> {
        let Tracked { lane: Ok(lane), state: JobState::Queued, since, .. } = self.jobs.get(&key)?
        else {
            return None;
        };
        Some((&self.pool(lane.pool).name, *since))
    }

    /// The delivery that announced a job, unless the job is over.
    pub fn delivery(&self, key: JobKey) -> Option<&str> {
        self.jobs.get(&key).map(|tracked| tracked.job.delivery.as_str())
    }

    /// Whether all pools are draining.
    pub fn draining(&self) -> bool {
        self.draining
    }

    /// Whether this pool is drained individually.
    pub fn pool_draining(&self, pool: usize) -> bool {
        !self.draining_pools.is_empty() && self.draining_pools.contains(&self.pool(pool).name)
    }

    /// Drains a pool by its name, whether or not it is configured.
    pub fn drain_pool(&mut self, name: &str) {
        self.draining_pools.insert(name.to_owned());
    }

    pub fn recovered(&self) -> bool {
        !self.paused && self.recovered.contains(&true)
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
            .filter(|(key, _)| key.pool == pool)
            .map(|(_, lane)| lane.queued.len() + lane.held.len())
            .sum()
    }

    /// Whether a runner in launch will be removed once its launch has ended.
    pub fn removed_after_launch(&self, runner: &str) -> bool {
        self.forced.contains(runner)
    }

    /// What a failure pauses, in words.
    pub fn describe(&self, blocked: &Blocked) -> String {
        match blocked {
            Blocked::Provider(provider) => {
                format!("all launches on {}", self.settings.providers[*provider])
            }
            Blocked::Credential(credential) => {
                format!("all launches with credential {}", self.credential_name(*credential))
            }
            Blocked::Store => "all launches (store)".into(),
            Blocked::Pool(pool, parameters) => {
                format!("pool {}{}", self.pool(*pool).name, with(parameters))
            }
            Blocked::Target(target) => {
                format!("all launches at {target}{}", self.on_server(target.host))
            }
            Blocked::TargetWith(target, credential) => format!(
                "launches at {target}{} with credential {}",
                self.on_server(target.host),
                self.credential_name(*credential)
            ),
            Blocked::Lane(LaneKey { pool, target, parameters }) => format!(
                "pool {} at {target}{}{}",
                self.pool(*pool).name,
                self.on_server(target.host),
                with(parameters)
            ),
        }
    }

    /// Launches in flight.
    pub fn launching(&self) -> usize {
        self.counts.provisioning + self.counts.parking
    }

    pub fn backoffs(&self) -> impl Iterator<Item = (&Blocked, &Backoff)> {
        self.backoffs.all()
    }

    /// ` on HOST`, if the credentials are for more than one server.
    fn on_server(&self, host: Host) -> String {
        if self.settings.credentials.iter().all(|credential| credential.host == host) {
            String::new()
        } else {
            format!(" on {host}")
        }
    }

    /// Name of the credential that a runner is launched with; `None` if an earlier process
    /// launched it.
    pub fn credential_of(&self, runner: &Runner) -> Option<&str> {
        runner.credential.map(|credential| self.credential_name(credential))
    }

    fn credential_name(&self, index: usize) -> &str {
        &self.settings.credentials[index].name
    }

    fn pool(&self, index: usize) -> &Pool {
        &self.settings.pools[index]
    }

    /// The lane of runners of the pool with this name. `None`: it is not configured.
    fn lane_of(
        &self,
        pool: &str,
        target: &ServerTarget,
        parameters: &Parameters,
    ) -> Option<LaneKey> {
        let pool = self.settings.pools.iter().position(|known| known.name == pool)?;
        Some(LaneKey { pool, target: target.clone(), parameters: parameters.clone() })
    }

    /// For [`Backoffs`].
    fn jitter(&mut self) -> u32 {
        (self.random.next() % 1024) as u32
    }
}

/// ` with …`, unless there are none.
fn with(parameters: &Parameters) -> String {
    if parameters.is_empty() { String::new() } else { format!(" with {parameters}") }
}

/// Applies one event and returns what to do about it.
pub fn plan(state: &mut State, event: Event, now: Moment) -> Vec<Action> {
    let mut actions = Vec::new();
    let tick = matches!(event, Event::Tick);
    match event {
        Event::JobQueued(job) => state.job_queued(job, now),
        Event::JobStarted { job, runner } => state.job_started(job, &runner, now, &mut actions),
        Event::JobCompleted { job, runner } => {
            state.job_completed(&job, &runner, now, &mut actions);
        }
        Event::Progress { runner, stage } => state.progress(&runner, stage, now, &mut actions),
        Event::NoRoom { runner, message, credentials_end } => {
            state.no_room(&runner, message, credentials_end, now, &mut actions);
        }
        Event::Registered { runner, registration_id } => {
            state.registered(&runner, registration_id, &mut actions);
        }
        Event::Launched { runner } => state.launched(&runner, now, &mut actions),
        Event::Parked { runner, started } => state.parked(&runner, started, now, &mut actions),
        Event::WakeFailed { runner, cause, message, gone } => {
            state.wake_failed(&runner, cause, message, gone, now, &mut actions);
        }
        Event::LaunchFailed { runner, cause, message, retry_after_ms, may_exist } => {
            let failure = LaunchFailure { cause, message, retry_after_ms, may_exist };
            state.launch_failed(&runner, failure, now, &mut actions);
        }
        Event::ContainerExited { runner, status } => {
            state.container_exited(&runner, status, now, &mut actions);
        }
        Event::Registrations { target, runners, requested_at } => {
            state.registrations(&target, &runners, requested_at, now, &mut actions);
        }
        Event::LookUpFailed { target, cause, message, retry_after_ms } => {
            state.look_up_failed(&target, cause, message, retry_after_ms, now);
        }
        Event::JobLookUpFailed { job, failure } => {
            state.job_look_up_failed(job, failure, now.instant, &mut actions);
        }
        Event::JobFound { job, state: found, runner } => {
            state.job_found(job, found, &runner, now, &mut actions);
        }
        Event::RunFound { host, run_id, repository, origin } => {
            state.run_found((host, run_id), repository, origin, now.instant);
        }
        Event::RunLookUpFailed { host, run_id, repository, failure } => {
            state.run_look_up_failed((host, run_id), repository, failure, now.instant);
        }
        Event::Removed { runner } => state.removed(&runner, now, &mut actions),
        Event::RemovalRefused { runner } => state.removal_refused(&runner, now, &mut actions),
        Event::RemovalFailed { runner, failure } => {
            state.removal_failed(&runner, failure, now);
        }
        Event::Deregistered { runner, target } => state.left.remove(&target, &runner),
        Event::Adopted(adopted) => state.adopt(adopted, now, &mut actions),
        Event::OnRecordAsGone(adopted) => state.on_record_as_gone(adopted, now, &mut actions),
        Event::Survey { provider, containers, taken_at } => {
            state.survey(provider, &containers, taken_at, now, &mut actions);
        }
        Event::Recovered { provider } => {
            state.recovered[provider] = true;
            if !state.recovered.contains(&false) {
                state.before_adoption = HashMap::new();
            }
            state.review_jobs(now.instant);
        }
        Event::Pause => state.paused = true,
        Event::MinIdle { pool, min_idle } => state.set_min_idle(pool, min_idle),
        Event::Tick => state.tick(now, &mut actions),
        Event::Machine { provider, machine } => state.machines[provider] = machine,
        Event::Quotas(quotas) => state.launch_rates.report(quotas),
        Event::Pools(pools) => state.set_pools(pools, now.instant),
        Event::RemoveRunner { runner, force } => {
            state.remove_runner(&runner, force, now, &mut actions);
        }
        Event::Drain { pool, draining } => state.drain(pool, draining, now, &mut actions),
        Event::Retry => state.backoffs.retry(now.instant),
    }
    // Before launches: a look-up that is put off decides which pools a job may use meanwhile.
    state.look_up_runs(now.instant, &mut actions);
    state.spill_for_lack_of_room(now.instant);
    state.launch_missing(now, &mut actions);
    for _ in 0..SPILLS_MAX {
        if !state.spill(now.instant) {
            break;
        }
        state.launch_missing(now, &mut actions);
    }
    let ended = state.end_needless_launches(now, &mut actions);
    if state.preempt(now, &mut actions) || ended {
        // The end of one probe, or of a launch that waited for room, may let another one begin.
        state.launch_missing(now, &mut actions);
    }
    state.end_overparked(now, &mut actions);
    state.park_missing(now, &mut actions);
    // Last: look-ups depend on where jobs are now, and reasons on the launches of this very tick.
    if tick {
        state.look_up(now.instant, &mut actions);
        state.look_for_left(now.instant, &mut actions);
        state.look_up_job(now.instant, &mut actions);
        state.explain(now.instant, &mut actions);
    }
    actions
}

/// Sebastiano Vigna's SplitMix64. Names and jitter need spread, not secrecy.
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
