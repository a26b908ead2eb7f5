//! The scheduler: `plan(&mut State, Event, now) -> Vec<Action>`.
//!
//! A pure function of its arguments: no clock, no randomness of its own, no
//! input or output, and it cannot fail. It keeps levels, not edges: what to
//! launch is computed anew from what is queued and what runs, so a webhook that
//! was lost, repeated or late is made good by the next event or tick.

mod backoff;
mod pool;
mod runner;
mod waiting;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
};

pub use backoff::{Backoff, Blocked};
pub use pool::{LifeLimits, NoMatch, Pool, RepositoryPattern, Scope, match_pool};
pub use runner::{Phase, Runner, Stage, Why};
pub use waiting::Waiting;

use crate::model::{Cause, Job, JobKey, Target, UnixMs};
use backoff::{Backoffs, Failure, Gate};
use runner::Leaving;

/// A finished job is remembered this long, so that a `queued` that was overtaken
/// by its `completed` cannot revive it. The store remembers for longer; this
/// covers the time between its commit and our turn.
const TOMBSTONE_MS: u64 = 3_600_000;
/// Whoever launches keeps the limit; this long after it we stop waiting for word.
const PROVISIONING_MARGIN_MS: u64 = 10_000;
/// After its job a runner has this long to end by itself.
const FINISHING_MS: u64 = 120_000;
/// A runner that is not busy this long after its start is looked up at GitHub.
const LOOK_AFTER_MS: u64 = 15_000;
/// Between two look-ups, whatever their target: at most 720 of the 5,000 requests
/// that GitHub allows an hour.
const LOOK_INTERVAL_MS: u64 = 5_000;
const REMOVAL_RETRY_MS: u64 = 5_000;
const REMOVAL_RETRY_LONGEST_MS: u64 = 300_000;

/// What a runner serves: a pool, and the place at GitHub it is registered at.
pub type GroupKey = (usize, Target);

#[derive(Clone, Debug)]
pub struct Settings {
    pub pools: Vec<Pool>,
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
    Tick,
    Drain(bool),
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
    /// None, or one that was never started.
    Missing,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Launch(Launch),
    /// Remove the registration, where asked for, and then the container.
    Remove(Removal),
    /// List the runners that GitHub knows at a target.
    LookUp(Target),
    /// A runner changed; the record in the store should follow.
    Record(String),
    /// A runner is gone.
    Forget(Box<Runner>, Why),
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

#[derive(Debug)]
struct Tracked {
    job: Job,
    /// `Err`: no pool serves it.
    group: Result<GroupKey, NoMatch>,
    progress: Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Queued,
    InProgress,
}

#[derive(Debug, Default)]
struct Group {
    queued: BTreeSet<(UnixMs, JobKey)>,
    queued_by_repository: BTreeMap<String, usize>,
    provisioning: usize,
    starting: usize,
    idle: usize,
    busy: usize,
}

/// Everything the scheduler knows. Holds no handle to anything outside.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    jobs: HashMap<JobKey, Tracked>,
    tombstones: HashMap<JobKey, UnixMs>,
    tombstones_by_age: VecDeque<(UnixMs, JobKey)>,
    runners: HashMap<String, Runner>,
    groups: BTreeMap<GroupKey, Group>,
    /// Groups that need more runners than they have.
    wanting: BTreeSet<GroupKey>,
    running_by_repository: HashMap<String, usize>,
    live_by_pool: Vec<usize>,
    live: usize,
    deadlines: BTreeSet<(UnixMs, String)>,
    backoffs: Backoffs,
    looked_at: UnixMs,
    /// Where to go on, so that every target gets its turn.
    looked_target: Option<Target>,
    /// Nothing is launched before [`Event::Recovered`], since what runs already is not
    /// known, nor after [`Event::Pause`].
    recovered: bool,
    draining: bool,
    random: SplitMix64,
}

impl State {
    /// `seed` decides the names of runners and the jitter of waits; take a new
    /// one for every process, or names repeat.
    pub fn new(settings: Settings, seed: u64) -> Self {
        let mut state = Self {
            live_by_pool: vec![0; settings.pools.len()],
            settings,
            jobs: HashMap::new(),
            tombstones: HashMap::new(),
            tombstones_by_age: VecDeque::new(),
            runners: HashMap::new(),
            groups: BTreeMap::new(),
            wanting: BTreeSet::new(),
            running_by_repository: HashMap::new(),
            live: 0,
            deadlines: BTreeSet::new(),
            backoffs: Backoffs::default(),
            looked_at: 0,
            looked_target: None,
            recovered: false,
            draining: false,
            random: SplitMix64(seed),
        };
        for index in 0..state.settings.pools.len() {
            for target in state.settings.pools[index].targets_known_beforehand() {
                state.groups.entry((index, target.clone())).or_default();
                state.update_wanting(&(index, target));
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

    pub fn draining(&self) -> bool {
        self.draining
    }

    pub fn recovered(&self) -> bool {
        self.recovered
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Runners whose containers may run.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Jobs that wait for a runner of the pool.
    pub fn queued(&self, pool: usize) -> usize {
        self.groups
            .iter()
            .filter(|((index, _), _)| *index == pool)
            .map(|(_, group)| group.queued.len())
            .sum()
    }

    /// What a failure holds back, in words.
    pub fn describe(&self, blocked: &Blocked) -> String {
        match blocked {
            Blocked::Docker => "everything: Docker".into(),
            Blocked::GitHub => "everything: GitHub".into(),
            Blocked::Store => "everything: the store".into(),
            Blocked::Pool(pool) => format!("pool {}", self.pool(*pool).name),
            Blocked::Group(pool, target) => format!("pool {} at {target}", self.pool(*pool).name),
        }
    }

    /// Launches that have not ended yet, in either way.
    pub fn launching(&self) -> usize {
        self.groups.values().map(|group| group.provisioning).sum()
    }

    pub fn backoffs(&self) -> impl Iterator<Item = (&Blocked, &Backoff)> {
        self.backoffs.all()
    }

    fn pool(&self, index: usize) -> &Pool {
        &self.settings.pools[index]
    }

    // Jobs

    fn job_queued(&mut self, job: Job) {
        if self.jobs.contains_key(&job.key) || self.tombstones.contains_key(&job.key) {
            return;
        }
        self.track(job, Progress::Queued);
    }

    fn job_started(&mut self, job: Job, runner: &str, now: UnixMs, actions: &mut Vec<Action>) {
        if self.tombstones.contains_key(&job.key) {
            return;
        }
        let key = job.key;
        if self.jobs.get(&key).is_none_or(|tracked| tracked.progress == Progress::Queued) {
            let job = self.untrack(key).unwrap_or(job);
            self.track(job, Progress::InProgress);
        }
        self.runner_busy(runner, Some(key), now, actions);
    }

    fn job_completed(&mut self, job: &Job, runner: &str, now: UnixMs, actions: &mut Vec<Action>) {
        self.untrack(job.key);
        if self.tombstones.insert(job.key, now).is_none() {
            self.tombstones_by_age.push_back((now, job.key));
        }
        // A re-run sends `completed` for old jobs again, whose runners are long gone;
        // a runner that is here and busy with another job is not finished by it.
        let Some(found) = self.runners.get(runner) else {
            return;
        };
        if found.job.is_some_and(|current| current != job.key) {
            return;
        }
        self.runner_busy(runner, Some(job.key), now, actions);
        if let Some(found) = self.runners.get_mut(runner) {
            found.finished = true;
            if found.phase == Phase::Busy {
                self.set_deadline(runner, Some(now + FINISHING_MS));
            }
        }
    }

    fn track(&mut self, job: Job, progress: Progress) {
        let group = match_pool(&self.settings.pools, &job);
        if let Ok(key) = &group {
            match progress {
                Progress::Queued => {
                    let entry = self.groups.entry(key.clone()).or_default();
                    entry.queued.insert((job.queued_at, job.key));
                    *entry.queued_by_repository.entry(job.repository.clone()).or_default() += 1;
                }
                Progress::InProgress => {
                    *self.running_by_repository.entry(job.repository.clone()).or_default() += 1;
                }
            }
            self.update_wanting(key);
        }
        self.jobs.insert(job.key, Tracked { job, group, progress });
    }

    fn untrack(&mut self, key: JobKey) -> Option<Job> {
        let Tracked { job, group, progress } = self.jobs.remove(&key)?;
        if let Ok(group_key) = &group {
            match progress {
                Progress::Queued => {
                    if let Some(entry) = self.groups.get_mut(group_key) {
                        entry.queued.remove(&(job.queued_at, key));
                        decrement(&mut entry.queued_by_repository, &job.repository);
                    }
                }
                Progress::InProgress => {
                    if let Some(count) = self.running_by_repository.get_mut(&job.repository) {
                        *count -= 1;
                        if *count == 0 {
                            self.running_by_repository.remove(&job.repository);
                        }
                    }
                }
            }
            self.update_wanting(group_key);
            if self.settings.max_per_repository != usize::MAX {
                // A place freed in this repository may be used through any pool.
                for other in self.groups.keys().cloned().collect::<Vec<_>>() {
                    self.update_wanting(&other);
                }
            }
        }
        Some(job)
    }

    // Demand

    fn min_idle(&self, key: &GroupKey) -> usize {
        let pool = self.pool(key.0);
        if pool.min_idle > 0 && pool.targets_known_beforehand().contains(&key.1) {
            pool.min_idle
        } else {
            0
        }
    }

    /// Queued jobs that may run now, as far as their repositories are concerned.
    fn demand(&self, group: &Group) -> usize {
        let limit = self.settings.max_per_repository;
        if limit == usize::MAX {
            return group.queued.len();
        }
        group
            .queued_by_repository
            .iter()
            .map(|(repository, queued)| {
                let running = self.running_by_repository.get(repository).copied().unwrap_or(0);
                (*queued).min(limit.saturating_sub(running))
            })
            .sum()
    }

    /// `queued + min_idle - starting - idle`: runners to launch, capacity aside.
    fn deficit(&self, key: &GroupKey) -> usize {
        self.groups.get(key).map_or(0, |group| {
            (self.demand(group) + self.min_idle(key))
                .saturating_sub(group.provisioning + group.starting + group.idle)
        })
    }

    fn surplus(&self, key: &GroupKey) -> bool {
        self.groups.get(key).is_none_or(|group| {
            group.provisioning + group.starting + group.idle
                > self.demand(group) + self.min_idle(key)
        })
    }

    fn update_wanting(&mut self, key: &GroupKey) {
        if self.deficit(key) > 0 {
            self.wanting.insert(key.clone());
        } else {
            self.wanting.remove(key);
        }
    }

    fn launch_what_is_missing(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if !self.recovered
            || self.draining
            || self.wanting.is_empty()
            || self.live >= self.settings.max
        {
            return;
        }
        let mut candidates: Vec<_> = self
            .wanting
            .iter()
            .filter(|(pool, _)| self.live_by_pool[*pool] < self.pool(*pool).max)
            .map(|key| {
                let oldest = self.groups[key].queued.first().map_or(UnixMs::MAX, |(at, _)| *at);
                (Reverse(self.pool(key.0).priority), oldest, key.clone())
            })
            .collect();
        candidates.sort_unstable();
        for (_, _, key) in candidates {
            let allowed = match self.backoffs.gate(key.0, &key.1, now) {
                Gate::Closed(_) => 0,
                // Whatever is blocked may be wider than this group, so look at all.
                Gate::OneAtATime(_) if self.launching() > 0 => 0,
                Gate::OneAtATime(_) => 1,
                Gate::Open => usize::MAX,
            };
            let count = self
                .deficit(&key)
                .min(allowed)
                .min(self.pool(key.0).max.saturating_sub(self.live_by_pool[key.0]))
                .min(self.settings.max.saturating_sub(self.live));
            let mut prompts = self.prompts(&key, count).into_iter();
            for _ in 0..count {
                self.launch(&key, prompts.next(), now, actions);
            }
        }
    }

    /// Deliveries of the jobs that have no runner on its way yet.
    fn prompts(&self, key: &GroupKey, count: usize) -> Vec<String> {
        let group = &self.groups[key];
        let served = group.provisioning + group.starting + group.idle;
        let unserved = group.queued.iter().skip(served).take(count);
        unserved
            .filter_map(|(_, job)| self.jobs.get(job))
            .map(|tracked| tracked.job.delivery.clone())
            .collect()
    }

    fn launch(
        &mut self,
        key: &GroupKey,
        prompted_by: Option<String>,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let pool_name = self.pool(key.0).name.clone();
        let name = loop {
            let number = self.random.next() >> 16;
            let name = format!("{}-{pool_name}-{number:012x}", self.settings.instance);
            if !self.runners.contains_key(&name) {
                break name;
            }
        };
        let runner = Runner {
            name: name.clone(),
            pool: pool_name,
            target: key.1.clone(),
            group: Some(key.clone()),
            phase: Phase::Provisioning(Stage::Credentials),
            created_at: now,
            since: now,
            registration_id: None,
            job: None,
            finished: false,
            deadline: None,
        };
        let deadline = now + self.pool(key.0).limits.provisioning_ms + PROVISIONING_MARGIN_MS;
        self.insert_runner(runner);
        self.set_deadline(&name, Some(deadline));
        let (pool, target) = key.clone();
        actions.push(Action::Launch(Launch { runner: name, pool, target, prompted_by }));
    }

    // Runners

    fn insert_runner(&mut self, runner: Runner) {
        let (group, phase, name) =
            (runner.group.clone(), runner.phase.clone(), runner.name.clone());
        self.runners.insert(name, runner);
        self.count(group.as_ref(), &phase, true);
    }

    /// The one place where the sums follow a runner's phase.
    fn count(&mut self, group: Option<&GroupKey>, phase: &Phase, add: bool) {
        let step = |count: &mut usize| *count = if add { *count + 1 } else { *count - 1 };
        if phase.may_run() {
            step(&mut self.live);
            if let Some((pool, _)) = group {
                step(&mut self.live_by_pool[*pool]);
            }
        }
        let Some(key) = group else { return };
        let entry = self.groups.entry(key.clone()).or_default();
        match phase {
            Phase::Provisioning(_) => step(&mut entry.provisioning),
            Phase::Starting => step(&mut entry.starting),
            Phase::Idle => step(&mut entry.idle),
            Phase::Busy => step(&mut entry.busy),
            Phase::Leaving(_) => {}
        }
        self.update_wanting(key);
    }

    fn set_phase(&mut self, name: &str, phase: Phase, now: UnixMs) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        let old = std::mem::replace(&mut runner.phase, phase.clone());
        if !old.same_as(&phase) {
            runner.since = now;
        }
        let group = runner.group.clone();
        self.count(group.as_ref(), &old, false);
        self.count(group.as_ref(), &phase, true);
    }

    fn set_deadline(&mut self, name: &str, deadline: Option<UnixMs>) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut runner.deadline, deadline) {
            self.deadlines.remove(&(old, name.to_owned()));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, name.to_owned()));
        }
    }

    fn limits(&self, name: &str) -> LifeLimits {
        self.runners.get(name).and_then(|runner| runner.group.as_ref()).map_or(
            // Its pool is no longer configured: let it finish, keep none waiting.
            LifeLimits {
                provisioning_ms: 60_000,
                starting_ms: 60_000,
                idle_ms: 0,
                job_ms: u64::MAX / 2,
            },
            |(pool, _)| self.pool(*pool).limits,
        )
    }

    fn launched(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        if let Some((pool, target)) = runner.group.clone() {
            self.backoffs.launched(pool, &target);
        }
        if matches!(self.runners[name].phase, Phase::Provisioning(_)) {
            self.set_phase(name, Phase::Starting, now);
            self.set_deadline(name, Some(now + self.limits(name).starting_ms));
        }
        actions.push(Action::Record(name.to_owned()));
    }

    fn runner_idle(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        self.set_phase(name, Phase::Idle, now);
        self.set_deadline(name, Some(now + self.limits(name).idle_ms));
        self.prove(name);
        actions.push(Action::Record(name.to_owned()));
    }

    fn runner_busy(
        &mut self,
        name: &str,
        job: Option<JobKey>,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        if runner.job.is_none() {
            runner.job = job;
        }
        let leaving = matches!(runner.phase, Phase::Leaving(_));
        let already = runner.phase == Phase::Busy;
        self.prove(name);
        // One that is being removed stays so: GitHub refuses if it really is busy.
        if !leaving && !already {
            self.set_phase(name, Phase::Busy, now);
            self.set_deadline(name, Some(now.saturating_add(self.limits(name).job_ms)));
        }
        actions.push(Action::Record(name.to_owned()));
    }

    /// The runner reached GitHub, so its pool's image works.
    fn prove(&mut self, name: &str) {
        if let Some((pool, _)) = self.runners.get(name).and_then(|runner| runner.group.as_ref()) {
            self.backoffs.proved(*pool);
        }
    }

    fn failed(&mut self, name: &str, cause: Cause, message: String, wait_ms: u64, now: UnixMs) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Some((pool, target)) = &runner.group else {
            return;
        };
        let failure = Failure {
            pool: *pool,
            target,
            cause,
            message,
            launched_at: runner.created_at,
            retry_after_ms: wait_ms,
        };
        self.backoffs.failed(failure, now, self.random.next() % 1024);
    }

    fn container_exited(
        &mut self,
        name: &str,
        exit_code: i64,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let Some(runner) = self.runners.get_mut(name) else {
            return;
        };
        match &mut runner.phase {
            Phase::Leaving(leaving) => {
                let mut leaving = leaving.clone();
                leaving.stopped = true;
                self.set_phase(name, Phase::Leaving(leaving), now);
            }
            Phase::Busy => {
                let why = if exit_code == 0 { Why::Done } else { Why::Exited { exit_code } };
                self.leave(name, why, true, now, actions);
            }
            Phase::Provisioning(_) | Phase::Starting | Phase::Idle => {
                let (cause, hint) = match exit_code {
                    // The runner's own code for a version that GitHub no longer accepts.
                    7 => (
                        Cause::RunnerTooOld,
                        ": the image's runner is too old for GitHub, take a newer image",
                    ),
                    _ => (Cause::RunnerExited, " without having taken a job; see its log"),
                };
                self.failed(
                    name,
                    cause,
                    format!("the runner exited with code {exit_code}{hint}"),
                    0,
                    now,
                );
                self.leave(name, Why::Unused { exit_code }, true, now, actions);
            }
        }
    }

    /// Starts a runner's removal; [`Event::Removed`] ends it.
    fn leave(
        &mut self,
        name: &str,
        why: Why,
        stopped: bool,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        self.set_phase(name, Phase::Leaving(Leaving { why, stopped, attempts: 0 }), now);
        self.set_deadline(name, None);
        self.remove(name, actions);
    }

    fn remove(&mut self, name: &str, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Leaving(leaving) = &runner.phase else {
            return;
        };
        actions.push(Action::Record(name.to_owned()));
        actions.push(Action::Remove(Removal {
            runner: name.to_owned(),
            pool: runner.pool.clone(),
            target: runner.target.clone(),
            registration_id: runner.registration_id,
            // An ephemeral runner that ended its job well has deregistered itself.
            deregister: leaving.why != Why::Done || runner.job.is_none(),
            force: leaving.why == Why::JobTooLong,
            keep_logs: leaving.why.is_failure(),
        }));
    }

    fn removed(&mut self, name: &str, actions: &mut Vec<Action>) {
        self.set_deadline(name, None);
        let Some(runner) = self.runners.remove(name) else {
            return;
        };
        self.count(runner.group.as_ref(), &runner.phase, false);
        let why = match &runner.phase {
            Phase::Leaving(leaving) => leaving.why,
            _ => Why::Vanished,
        };
        actions.push(Action::Forget(Box::new(runner), why));
    }

    fn removal_refused(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        let Phase::Leaving(leaving) = &runner.phase else {
            return;
        };
        if leaving.stopped {
            // GitHub will notice that the runner is gone; until then it refuses.
            self.retry_removal(name, now);
        } else {
            let job = runner.job;
            self.set_phase(name, Phase::Busy, now);
            self.set_deadline(name, Some(now.saturating_add(self.limits(name).job_ms)));
            self.runner_busy(name, job, now, actions);
        }
    }

    fn retry_removal(&mut self, name: &str, now: UnixMs) {
        let Some(Runner { phase: Phase::Leaving(leaving), .. }) = self.runners.get_mut(name) else {
            return;
        };
        let wait = (REMOVAL_RETRY_MS << leaving.attempts.min(10)).min(REMOVAL_RETRY_LONGEST_MS);
        leaving.attempts += 1;
        self.set_deadline(name, Some(now + wait));
    }

    fn adopt(&mut self, adopted: Adopted, now: UnixMs, actions: &mut Vec<Action>) {
        let Adopted { runner: name, pool, target, registration_id, job, created_at, container } =
            adopted;
        if self.runners.contains_key(&name) {
            return;
        }
        let group = self
            .settings
            .pools
            .iter()
            .position(|known| known.name == pool)
            .map(|index| (index, target.clone()));
        let phase = if job.is_some() { Phase::Busy } else { Phase::Starting };
        let limits = group.as_ref().map(|(pool, _)| self.pool(*pool).limits);
        self.insert_runner(Runner {
            name: name.clone(),
            pool,
            target,
            group,
            phase: phase.clone(),
            created_at,
            since: now,
            registration_id,
            job,
            finished: false,
            deadline: None,
        });
        let limit = limits.unwrap_or_else(|| self.limits(&name));
        let allowed = if phase == Phase::Busy { limit.job_ms } else { limit.starting_ms };
        self.set_deadline(&name, Some(now.saturating_add(allowed)));
        match container {
            AdoptedContainer::Running => actions.push(Action::Record(name)),
            AdoptedContainer::Exited(exit_code) if job.is_some() => {
                self.container_exited(&name, exit_code, now, actions);
            }
            // Its end says nothing about the pool: it may have run a job whose
            // events came while nobody was here.
            AdoptedContainer::Exited(exit_code) => {
                self.leave(&name, Why::Unused { exit_code }, true, now, actions);
            }
            AdoptedContainer::Missing => self.leave(&name, Why::Vanished, true, now, actions),
        }
    }

    fn registrations(
        &mut self,
        target: &Target,
        listed: &[Registration],
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        for registration in listed {
            let Some(runner) = self.runners.get_mut(&registration.name) else {
                continue;
            };
            if runner.target != *target {
                continue;
            }
            runner.registration_id.get_or_insert(registration.id);
            match runner.phase {
                Phase::Starting | Phase::Idle if registration.busy => {
                    self.runner_busy(&registration.name, None, now, actions);
                }
                Phase::Starting if registration.online => {
                    self.runner_idle(&registration.name, now, actions);
                }
                _ => {}
            }
        }
    }

    /// Makes good what was missed between two surveys: exits nobody told of, and
    /// containers that came or went behind our back.
    fn survey(
        &mut self,
        containers: Vec<Adopted>,
        taken_at: UnixMs,
        now: UnixMs,
        actions: &mut Vec<Action>,
    ) {
        let seen: BTreeSet<String> =
            containers.iter().map(|container| container.runner.clone()).collect();
        for found in containers {
            match (self.runners.get(&found.runner), found.container) {
                (None, _) => self.adopt(found, now, actions),
                (Some(_), AdoptedContainer::Exited(exit_code)) => {
                    self.container_exited(&found.runner, exit_code, now, actions);
                }
                (Some(_), AdoptedContainer::Running | AdoptedContainer::Missing) => {}
            }
        }
        let vanished: Vec<String> = self
            .runners
            .values()
            .filter(|runner| match runner.phase {
                Phase::Starting | Phase::Idle | Phase::Busy => runner.since < taken_at,
                Phase::Provisioning(_) | Phase::Leaving(_) => false,
            })
            .filter(|runner| !seen.contains(&runner.name))
            .map(|runner| runner.name.clone())
            .collect();
        for name in vanished {
            self.leave(&name, Why::Vanished, true, now, actions);
        }
    }

    // Time

    fn tick(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        while let Some((at, name)) = self.deadlines.first().cloned() {
            if at > now {
                break;
            }
            self.set_deadline(&name, None);
            self.deadline(&name, now, actions);
        }
        while let Some((at, key)) = self.tombstones_by_age.front().copied() {
            if at + TOMBSTONE_MS > now {
                break;
            }
            self.tombstones_by_age.pop_front();
            self.tombstones.remove(&key);
        }
        self.look_up(now, actions);
    }

    fn deadline(&mut self, name: &str, now: UnixMs, actions: &mut Vec<Action>) {
        let Some(runner) = self.runners.get(name) else {
            return;
        };
        match &runner.phase {
            Phase::Provisioning(_) => {
                self.failed(name, Cause::TimedOut, "the launch took too long".into(), 0, now);
                self.leave(name, Why::LaunchTimedOut, false, now, actions);
            }
            Phase::Starting => {
                let message = "the runner did not come online in time; see its log".into();
                self.failed(name, Cause::NeverOnline, message, 0, now);
                self.leave(name, Why::NeverOnline, false, now, actions);
            }
            Phase::Idle => {
                let surplus = runner.group.as_ref().is_none_or(|group| self.surplus(group));
                if surplus || self.draining {
                    self.leave(name, Why::IdleTooLong, false, now, actions);
                } else {
                    self.set_deadline(name, Some(now + self.limits(name).idle_ms.max(1_000)));
                }
            }
            Phase::Busy if runner.finished => {
                self.leave(name, Why::DidNotEnd, false, now, actions);
            }
            Phase::Busy => self.leave(name, Why::JobTooLong, false, now, actions),
            Phase::Leaving(_) => self.remove(name, actions),
        }
    }

    /// Asks GitHub about a target where a runner should have been heard of by now.
    fn look_up(&mut self, now: UnixMs, actions: &mut Vec<Action>) {
        if now < self.looked_at + LOOK_INTERVAL_MS {
            return;
        }
        let silent: BTreeSet<&Target> = self
            .groups
            .values()
            .any(|group| group.starting > 0)
            .then(|| {
                self.runners
                    .values()
                    .filter(|runner| {
                        runner.phase == Phase::Starting && runner.since + LOOK_AFTER_MS <= now
                    })
                    .map(|runner| &runner.target)
                    .collect()
            })
            .unwrap_or_default();
        let after_last = |target: &&&Target| Some(**target) > self.looked_target.as_ref();
        let Some(target) = silent.iter().find(after_last).or_else(|| silent.first()) else {
            return;
        };
        let target = (**target).clone();
        self.looked_at = now;
        self.looked_target = Some(target.clone());
        actions.push(Action::LookUp(target));
    }

    fn drain(&mut self, draining: bool, now: UnixMs, actions: &mut Vec<Action>) {
        self.draining = draining;
        if !draining {
            return;
        }
        let unused: Vec<String> = self
            .runners
            .values()
            .filter(|runner| runner.phase == Phase::Idle)
            .map(|runner| runner.name.clone())
            .collect();
        for name in unused {
            self.leave(&name, Why::Drained, false, now, actions);
        }
    }
}

/// Takes in one event and says what to do about it.
pub fn plan(state: &mut State, event: Event, now: UnixMs) -> Vec<Action> {
    let mut actions = Vec::new();
    match event {
        Event::JobQueued(job) => state.job_queued(job),
        Event::JobStarted { job, runner } => state.job_started(job, &runner, now, &mut actions),
        Event::JobCompleted { job, runner } => {
            state.job_completed(&job, &runner, now, &mut actions);
        }
        Event::Progress { runner, stage } => {
            if matches!(state.runner(&runner), Some(Runner { phase: Phase::Provisioning(_), .. })) {
                state.set_phase(&runner, Phase::Provisioning(stage), now);
            }
        }
        Event::Registered { runner, registration_id } => {
            if let Some(found) = state.runners.get_mut(&runner) {
                found.registration_id = Some(registration_id);
                actions.push(Action::Record(runner));
            }
        }
        Event::Launched { runner } => state.launched(&runner, now, &mut actions),
        Event::LaunchFailed { runner, cause, message, retry_after_ms, may_run } => {
            if matches!(state.runner(&runner), Some(Runner { phase: Phase::Provisioning(_), .. })) {
                state.failed(&runner, cause, message, retry_after_ms, now);
                state.leave(&runner, Why::LaunchFailed(cause), !may_run, now, &mut actions);
            }
        }
        Event::ContainerExited { runner, exit_code } => {
            state.container_exited(&runner, exit_code, now, &mut actions);
        }
        Event::Registrations { target, runners } => {
            state.registrations(&target, &runners, now, &mut actions);
        }
        Event::Removed { runner } => state.removed(&runner, &mut actions),
        Event::RemovalRefused { runner } => state.removal_refused(&runner, now, &mut actions),
        Event::RemovalFailed { runner } => state.retry_removal(&runner, now),
        Event::Adopted(adopted) => state.adopt(adopted, now, &mut actions),
        Event::Survey { containers, taken_at } => {
            state.survey(containers, taken_at, now, &mut actions);
        }
        Event::Recovered => state.recovered = true,
        Event::Pause => state.recovered = false,
        Event::Tick => state.tick(now, &mut actions),
        Event::Drain(draining) => state.drain(draining, now, &mut actions),
    }
    state.launch_what_is_missing(now, &mut actions);
    actions
}

fn decrement(counts: &mut BTreeMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
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
