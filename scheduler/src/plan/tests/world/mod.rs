//! A model of GitHub, Docker and the store around the planner, with faults.
//!
//! Time passes in steps. Whatever takes time is a [`Pending`] that is due later. A restart of
//! the sidecar forgets those inside the sidecar and keeps the others.

mod checks;
mod machines;
mod sidecar;
mod troubles;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::*;
use crate::model::{JobState, Target};
use crate::plan::pool::match_pools;
use machines::Machines;
pub(super) use troubles::{CAUSES, Requests, Trouble};
use troubles::{Purpose, Troubles};

/// Far shorter than GitHub's, so that launches that wait for room outlast them.
const CREDENTIALS_LIFE_MS: u64 = 480_000;

/// Probabilities in thousandths, each per occasion.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) cancelled: u64,
    pub(super) stolen: u64,
    pub(super) launch_fails: u64,
    pub(super) never_online: u64,
    pub(super) dies_unused: u64,
    pub(super) dies_busy: u64,
    pub(super) job_too_long: u64,
    pub(super) does_not_end: u64,
    pub(super) exit_unreported: u64,
    pub(super) call_fails: u64,
    /// Nothing is ever heard of a launch, a removal or a look-up.
    pub(super) hangs: u64,
    /// Docker does not remove a container.
    pub(super) container_stays: u64,
    /// A parked runner is not woken, or nothing is heard of it.
    pub(super) wake_fails: u64,
    /// A launch finds no room.
    pub(super) no_room: u64,
    /// It finds none when it looks again.
    pub(super) room_stays_away: u64,
    /// GitHub holds a job back for hours, or for ever.
    pub(super) held: u64,
    /// An event names no runner.
    pub(super) unnamed: u64,
    /// News that a job was taken or cancelled never comes.
    pub(super) never: u64,
    // Per step.
    /// Somebody deletes an idle or a parked runner at GitHub.
    pub(super) deleted: u64,
    pub(super) restart: u64,
    pub(super) drain: u64,
    /// `min_idle` changes.
    pub(super) schedule: u64,
    pub(super) reload: u64,
    /// A machine goes away, for a while or for good.
    pub(super) machine: u64,
    /// The disk is nearly full, or is so no longer.
    pub(super) disk: u64,
    /// The wall clock is set forward or back, by hours.
    pub(super) clock_set: u64,
    /// A target or a credential begins to fail: see [`Trouble`].
    pub(super) trouble: u64,
}

/// Statistics of a run. Times are in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) served: u64,
    /// Those of `served` at whose targets GitHub refused requests while they waited. They do not
    /// count in times.
    pub(super) refused: u64,
    /// Launches that GitHub refused because of a [`Trouble`].
    pub(super) launches_refused: u64,
    pub(super) launches: u64,
    pub(super) restarts: u64,
    pub(super) clock_steps: u64,
    /// Launches that waited for room.
    pub(super) without_room: u64,
    /// Parked runners that were woken.
    pub(super) woken: u64,
    pub(super) machines_away: u64,
    /// Runners that were given up with their machines.
    pub(super) machines_lost: u64,
    pub(super) queue_ms: u64,
    pub(super) live_max: usize,
    pub(super) jobs_looked_up: u64,
    /// The longest wait for a runner, of jobs that were not held back.
    pub(super) queue_ms_max: u64,
    /// Calls to GitHub, by target.
    pub(super) calls: BTreeMap<ServerTarget, u64>,
    /// The most requests in an hour about a target that only fails.
    pub(super) failing_calls_max: usize,
}

#[derive(Debug)]
struct RealJob {
    job: Job,
    queued_at: u64,
    state: JobState,
    runner: String,
    /// GitHub assigns it to no runner before.
    held_until: u64,
}

#[derive(Clone, Debug)]
struct RealRunner {
    pool: usize,
    target: ServerTarget,
    parameters: Parameters,
    online: bool,
    job: Option<JobKey>,
}

#[derive(Debug)]
struct Container {
    pool: usize,
    target: ServerTarget,
    parameters: Parameters,
    exit_code: Option<i64>,
    machine: u64,
    devices: Vec<String>,
    /// If it was created to be parked: whether it runs a shell that waits, and the revision.
    parked: Option<(bool, u64)>,
    /// Its command has not begun.
    waits: bool,
}

#[derive(Clone, Debug)]
struct Webhook {
    job: JobKey,
    state: JobState,
    runner: String,
}

#[derive(Debug)]
enum Pending {
    // Outside the sidecar.
    Webhook(Webhook),
    Online(String),
    JobEnds(JobKey),
    Stops(String, i64),
    /// GitHub notices that a busy runner is gone.
    GivenUp(String),
    // Inside the sidecar.
    Launch(Launch, Stage),
    Wake(Wake),
    /// And when it began.
    Remove(Removal, u64),
    LookUp(ServerTarget),
    LookUpJob(JobKey, ServerTarget),
    LookUpRun {
        host: Host,
        run_id: u64,
        repository: String,
        target: ServerTarget,
    },
    Survey,
    Event(Event),
}

pub(super) struct World {
    pub(super) faults: Faults,
    pub(super) figures: Figures,
    /// Whether to check every sum after every event.
    pub(super) thorough: bool,
    pub(super) job_longest_ms: u64,
    /// The servers. Each numbers its jobs by itself, and each has the same repositories.
    pub(super) hosts: Vec<Host>,
    /// Milliseconds on the monotonic clock.
    pub(super) now: u64,
    /// How far the wall clock was set ahead of it.
    clock_step: i64,
    pub(super) state: State,
    settings: Settings,
    /// What it has for runners.
    machine: Machine,
    random: SplitMix64,
    due: BTreeMap<(u64, u64), Pending>,
    next_pending: u64,
    surveyed_at: u64,
    jobs: BTreeMap<JobKey, RealJob>,
    /// Jobs that are not completed.
    open: BTreeSet<JobKey>,
    /// Those of them without a runner.
    queued: BTreeSet<JobKey>,
    next_job: BTreeMap<Host, u64>,
    lost: Vec<Webhook>,
    registrations: BTreeMap<String, RealRunner>,
    containers: BTreeMap<String, Container>,
    stored_jobs: BTreeMap<JobKey, (JobState, String)>,
    /// Whether they are of forks.
    stored_origins: BTreeMap<JobKey, bool>,
    /// In wall time.
    stored_starts: BTreeMap<JobKey, UnixMs>,
    /// `max-parallel` of all jobs of a repository.
    pub(super) parallel: BTreeMap<String, usize>,
    /// The current `min_idle` of pools with a schedule.
    scheduled: HashMap<String, usize>,
    stored_runners: BTreeMap<String, Runner>,
    /// The reasons that were announced.
    explained: HashMap<JobKey, Waiting>,
    /// Runners that were launched and are not forgotten, and when.
    launched: HashMap<String, u64>,
    /// When each runner took its job.
    busy_since: HashMap<String, u64>,
    /// Runners that ended without their registration.
    left: HashSet<String>,
    /// Those that the sidecar forgot in a restart: GitHub removes them after a day.
    left_to_github: HashSet<String>,
    troubles: Troubles,
    machines: Machines,
}

impl World {
    pub(super) fn new(settings: Settings, faults: Faults, seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        let mut state = State::new(settings.clone(), random.next());
        let now = 1_000_000_000;
        assert_eq!(plan(&mut state, Event::Tick, moment(now, 0)), []);
        let mut world = Self {
            faults,
            figures: Figures::default(),
            thorough: true,
            job_longest_ms: 100_000,
            hosts: vec![Host::default()],
            now,
            clock_step: 0,
            state,
            settings,
            machine: Machine::default(),
            random,
            due: BTreeMap::new(),
            next_pending: 0,
            surveyed_at: now,
            jobs: BTreeMap::new(),
            open: BTreeSet::new(),
            queued: BTreeSet::new(),
            next_job: BTreeMap::new(),
            lost: Vec::new(),
            registrations: BTreeMap::new(),
            containers: BTreeMap::new(),
            stored_jobs: BTreeMap::new(),
            stored_origins: BTreeMap::new(),
            stored_starts: BTreeMap::new(),
            parallel: BTreeMap::new(),
            scheduled: HashMap::new(),
            stored_runners: BTreeMap::new(),
            explained: HashMap::new(),
            launched: HashMap::new(),
            busy_since: HashMap::new(),
            left: HashSet::new(),
            left_to_github: HashSet::new(),
            troubles: Troubles::default(),
            machines: Machines::default(),
        };
        world.apply(Event::Recovered { provider: 0 });
        world
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    pub(super) fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.below(1_000) < in_a_thousand
    }

    pub(super) fn moment(&self) -> Moment {
        moment(self.now, self.clock_step)
    }

    fn in_ms(&mut self, from: u64, to: u64, pending: Pending) {
        let at = self.now + from + self.below(to - from + 1);
        self.next_pending += 1;
        self.due.insert((at, self.next_pending), pending);
    }

    // Time

    pub(super) fn step(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), pending) = entry.remove_entry();
            self.now = at;
            self.happen(pending);
        }
        self.now = until;
        self.assign();
        if !self.lost.is_empty() && self.chance(20) {
            self.redeliver();
        }
        if self.chance(self.faults.clock_set) {
            self.figures.clock_steps += 1;
            self.clock_step = self.below(12 * 3_600_000) as i64 - 6 * 3_600_000;
        }
        self.end_troubles_that_are_over();
        if self.chance(self.faults.trouble) {
            self.trouble_begins();
        }
        self.machines.come_back(self.now);
        if self.chance(self.faults.machine) {
            self.machine_goes_away();
        }
        if self.chance(self.faults.disk) {
            let full = Disk { free_mib: 1, reserve_mib: 2 };
            let disk = Some(full).filter(|_| self.machine.disk.is_none());
            self.set_disk(disk);
        }
        if self.chance(self.faults.restart) {
            self.restart();
        }
        if self.chance(self.faults.drain) {
            let pool = self.below(self.settings.pools.len() as u64 + 1) as usize;
            let pool = Some(pool).filter(|pool| *pool < self.settings.pools.len());
            let draining =
                pool.map_or(self.state.draining(), |pool| self.state.pool_draining(pool));
            self.apply(Event::Drain { pool, draining: !draining });
        }
        if self.chance(self.faults.schedule) {
            let pool = self.below(self.settings.pools.len() as u64) as usize;
            let min_idle = self.below(3) as usize;
            self.scheduled.insert(self.settings.pools[pool].name.clone(), min_idle);
            self.apply(Event::MinIdle { pool, min_idle });
        }
        if self.chance(self.faults.reload) {
            self.reload();
        }
        if self.chance(self.faults.deleted) {
            let parked = |name: &str| self.containers.get(name).is_some_and(|it| it.waits);
            let idle = |(name, it): &(&String, &RealRunner)| {
                (it.online || parked(name)) && it.job.is_none()
            };
            let name = self.registrations.iter().find(idle).map(|(name, _)| name.clone());
            name.iter().for_each(|name| drop(self.registrations.remove(name)));
        }
        if self.now >= self.surveyed_at + 30_000 {
            self.surveyed_at = self.now;
            self.happen(Pending::Survey);
        }
        self.apply(Event::Tick);
        self.check_isolation();
        self.check_places();
    }

    fn happen(&mut self, pending: Pending) {
        match pending {
            Pending::Webhook(webhook) => self.receive(&webhook),
            Pending::Online(name) => {
                let runs = self.containers.get(&name).is_some_and(|it| it.exit_code.is_none());
                if let Some(registration) = self.registrations.get_mut(&name) {
                    registration.online = runs;
                }
            }
            Pending::JobEnds(job) => self.job_ends(job),
            Pending::Stops(name, exit_code) => self.stops(name, exit_code),
            // An ephemeral runner is deregistered with its job.
            Pending::GivenUp(name) => {
                if let Some(RealRunner { job: Some(job), .. }) = self.registrations.remove(&name) {
                    self.conclude(job);
                }
            }
            Pending::Launch(launch, stage) => self.launch(launch, stage),
            Pending::Wake(wake) => self.wake(wake),
            Pending::Remove(removal, began) => self.remove(removal, began),
            Pending::LookUp(target) => self.look_up(target),
            Pending::LookUpJob(key, target) => self.look_up_job(key, &target),
            Pending::LookUpRun { host, run_id, repository, target } => {
                self.look_up_run(host, run_id, repository, &target);
            }
            Pending::Survey => {
                let containers = self
                    .containers
                    .iter()
                    .map(|(name, container)| self.adopted(name, container))
                    .collect();
                let event =
                    Event::Survey { provider: 0, containers, taken_at: self.moment().instant };
                self.in_ms(0, 3_000, Pending::Event(event));
            }
            Pending::Event(event) => self.apply(event),
        }
    }

    // GitHub

    /// Queues a job.
    pub(super) fn queue(&mut self, repository: &str, labels: &[&str]) {
        let host = self.below(self.hosts.len() as u64) as usize;
        let host = self.hosts[host];
        let id = self.next_job.entry(host).or_insert(0);
        *id += 1;
        let job = job(*id, labels);
        let key = job.key.on(host);
        let job = Job {
            key,
            repository: repository.into(),
            organization: "acme".into(),
            run_id: *id,
            from_fork: Some(id.is_multiple_of(2)),
            ..job
        };
        let (state, runner) = (JobState::Queued, String::new());
        let held_until = match self.chance(self.faults.held) {
            true if self.chance(200) => u64::MAX,
            true => self.now + self.below(4 * 3_600_000),
            false => 0,
        };
        let real = RealJob { job, queued_at: self.now, state, runner, held_until };
        self.jobs.insert(key, real);
        self.open.insert(key);
        self.queued.insert(key);
        self.announce(key, JobState::Queued);
        if self.chance(self.faults.cancelled) {
            self.in_ms(0, 30_000, Pending::JobEnds(key));
        }
    }

    fn announce(&mut self, key: JobKey, state: JobState) {
        let unnamed = self.chance(self.faults.unnamed);
        let RealJob { job, runner, .. } = &self.jobs[&key];
        let runner = if unnamed { String::new() } else { runner.clone() };
        // A look-up can replace this news, so it may never come.
        let replaceable = match state {
            JobState::Queued => false,
            JobState::InProgress => true,
            JobState::Completed => self.jobs[&key].runner.is_empty(),
        };
        let served = match_pool(&self.settings.pools, job).is_ok();
        let known = self.stored_jobs.get(&key).is_some_and(|(state, _)| *state == JobState::Queued);
        if replaceable && served && known && self.chance(self.faults.never) {
            return;
        }
        let webhook = Webhook { job: key, state, runner };
        if self.chance(self.faults.doubled) {
            self.in_ms(0, 60_000, Pending::Webhook(webhook.clone()));
        }
        if self.chance(self.faults.lost) {
            self.lost.push(webhook);
        } else {
            let late = if self.chance(50) { 40_000 } else { 2_000 };
            self.in_ms(50, late, Pending::Webhook(webhook));
        }
    }

    fn redeliver(&mut self) {
        for webhook in std::mem::take(&mut self.lost) {
            self.in_ms(0, 5_000, Pending::Webhook(webhook));
        }
    }

    /// Assigns queued jobs to runners that are online, at random.
    fn assign(&mut self) {
        if let Some(key) = self.queued.first().copied()
            && self.chance(self.faults.stolen)
        {
            self.take(key, "someone-elses");
        }
        if self.queued.is_empty() {
            return;
        }
        let mut free: Vec<(String, RealRunner)> = self
            .registrations
            .iter()
            .filter(|(_, it)| it.online && it.job.is_none())
            .map(|(name, it)| (name.clone(), it.clone()))
            .collect();
        for key in self.queued.clone() {
            if free.is_empty() {
                break;
            }
            let RealJob { job, held_until, .. } = &self.jobs[&key];
            if *held_until > self.now || self.at_max_parallel(job) {
                continue;
            }
            let fits = |(_, runner): &(String, RealRunner)| {
                let RealRunner { pool, target, parameters, .. } = runner;
                let labels = &self.settings.pools[*pool].labels;
                let asked_for = parameters.labels();
                let has = |label: &String| {
                    label == "self-hosted" || labels.contains(label) || asked_for.contains(label)
                };
                let here = match &target.target {
                    Target::Repository { owner, name } => {
                        job.repository.split_once('/') == Some((owner, name))
                    }
                    Target::Organization(login) => job.organization == *login,
                    Target::Enterprise(_) => false,
                };
                here && target.host == key.host && job.labels.iter().all(has)
            };
            if let Some(found) = free.iter().position(fits)
                && self.chance(800)
            {
                let (name, ..) = free.swap_remove(found);
                self.take(key, &name);
            }
        }
    }

    /// Queued jobs of a repository.
    pub(super) fn waiting_in(&self, repository: &str) -> usize {
        let jobs = self.queued.iter().map(|key| &self.jobs[key].job);
        jobs.filter(|job| job.repository == repository).count()
    }

    fn at_max_parallel(&self, job: &Job) -> bool {
        let Job { key: JobKey { host, .. }, repository, .. } = job;
        self.parallel.get(repository).is_some_and(|max| {
            let running = self.open.iter().map(|key| &self.jobs[key]).filter(|it| {
                it.state == JobState::InProgress
                    && (it.job.key.host, &it.job.repository) == (*host, repository)
            });
            running.count() >= *max
        })
    }

    fn take(&mut self, key: JobKey, runner: &str) {
        let job = self.jobs.get_mut(&key).unwrap();
        assert_eq!(job.state, JobState::Queued);
        (job.state, job.runner) = (JobState::InProgress, runner.to_owned());
        self.queued.remove(&key);
        let waited = self.now - job.queued_at;
        let (queued_at, held, job) = (job.queued_at, job.held_until > 0, job.job.clone());
        self.figures.served += 1;
        if self.refused_since(&self.targets_of(&job), queued_at) {
            self.figures.refused += 1;
        } else {
            self.figures.queue_ms += waited;
            if !held && !self.parallel.contains_key(&job.repository) {
                self.figures.queue_ms_max = self.figures.queue_ms_max.max(waited);
            }
        }
        if let Some(registration) = self.registrations.get_mut(runner) {
            assert_eq!(registration.job.replace(key), None);
            self.busy_since.insert(runner.to_owned(), self.now);
        }
        self.announce(key, JobState::InProgress);
        let longest = if self.chance(self.faults.job_too_long) {
            2_000_000
        } else if self.chance(300) {
            2_000
        } else {
            self.job_longest_ms
        };
        self.in_ms(500, longest, Pending::JobEnds(key));
        if self.containers.contains_key(runner) && self.chance(self.faults.dies_busy) {
            self.in_ms(0, 60_000, Pending::Stops(runner.into(), 137));
        }
    }

    /// The job runs to its end, or is cancelled before.
    fn job_ends(&mut self, key: JobKey) {
        let job = &self.jobs[&key];
        let runner = job.runner.clone();
        match job.state {
            JobState::Queued => self.conclude(key),
            JobState::InProgress if !self.registrations.contains_key(&runner) => self.conclude(key),
            JobState::InProgress => {
                let runs = self.containers.get(&runner).is_some_and(|it| it.exit_code.is_none());
                if runs {
                    self.registrations.remove(&runner);
                    self.conclude(key);
                    if !self.chance(self.faults.does_not_end) {
                        self.in_ms(100, 2_000, Pending::Stops(runner, 0));
                    }
                }
            }
            JobState::Completed => {}
        }
    }

    fn conclude(&mut self, key: JobKey) {
        let job = self.jobs.get_mut(&key).unwrap();
        if job.state < JobState::Completed {
            job.state = JobState::Completed;
            self.open.remove(&key);
            self.queued.remove(&key);
            self.announce(key, JobState::Completed);
        }
    }

    // Docker

    fn stops(&mut self, name: String, exit_code: i64) {
        let Some(container) = self.containers.get_mut(&name) else {
            return;
        };
        if container.exit_code.is_some() {
            return;
        }
        container.exit_code = Some(exit_code);
        let away = self.machines.is_away(container.machine);
        self.gone(&name);
        if !away && !self.chance(self.faults.exit_unreported) {
            // A survey may say otherwise.
            let status = ExitStatus { code: exit_code, out_of_memory: self.chance(100) };
            self.in_ms(0, 500, Pending::Event(Event::ContainerExited { runner: name, status }));
        }
    }

    fn remove_container(&mut self, name: &str) {
        let removed = self.containers.remove(name);
        if let Some(Container { exit_code: None, machine, .. }) = removed {
            self.gone(name);
            if !self.machines.is_away(machine) {
                let exited = Event::ContainerExited { runner: name.into(), status: 137.into() };
                self.in_ms(0, 500, Pending::Event(exited));
            }
        }
    }

    fn gone(&mut self, name: &str) {
        match self.registrations.get_mut(name) {
            Some(RealRunner { job: Some(_), .. }) => {
                self.in_ms(30_000, 60_000, Pending::GivenUp(name.into()));
            }
            Some(idle) => idle.online = false,
            None => {}
        }
    }
}
