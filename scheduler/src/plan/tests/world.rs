//! A small GitHub, a small Docker and a small store around the planner, with faults.
//!
//! Time passes in steps. What takes time is a [`Thing`] that is due later; a restart
//! of the sidecar forgets those that happen inside it and keeps the others.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::{super::jobs::Progress, *};
use crate::model::JobState;

/// Chances in a thousand, each where it applies.
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
    pub(super) exit_unheard: u64,
    pub(super) call_fails: u64,
    /// Each step.
    pub(super) restart: u64,
    pub(super) drain: u64,
    /// Another `min_idle`.
    pub(super) schedule: u64,
    /// The pools are read anew.
    pub(super) reload: u64,
}

/// What the sidecar and the world around it have done.
#[derive(Debug, Default)]
pub(super) struct Figures {
    pub(super) served: u64,
    pub(super) launches: u64,
    pub(super) restarts: u64,
    pub(super) queue_ms: u64,
    pub(super) live_max: usize,
    pub(super) jobs_looked_up: u64,
}

#[derive(Debug)]
struct RealJob {
    job: Job,
    state: JobState,
    runner: String,
}

#[derive(Clone, Debug)]
struct RealRunner {
    pool: usize,
    target: Target,
    online: bool,
    job: Option<u64>,
}

#[derive(Debug)]
struct Container {
    pool: usize,
    target: Target,
    exit_code: Option<i64>,
}

#[derive(Clone, Debug)]
struct Webhook {
    job: u64,
    state: JobState,
    runner: String,
}

#[derive(Debug)]
enum Thing {
    // Outside of the sidecar.
    Webhook(Webhook),
    Online(String),
    JobEnds(u64),
    Stops(String, i64),
    /// GitHub notices that a busy runner is gone.
    GivenUp(String),
    // Inside.
    Launch(Launch, Stage),
    Remove(Removal),
    LookUp(Target),
    LookUpJob(u64),
    Survey,
    Tell(Event),
}

pub(super) struct World {
    pub(super) faults: Faults,
    pub(super) figures: Figures,
    /// Check every sum after every event.
    pub(super) thorough: bool,
    pub(super) job_longest_ms: u64,
    pub(super) now: UnixMs,
    pub(super) state: State,
    settings: Settings,
    random: SplitMix64,
    due: BTreeMap<(UnixMs, u64), Thing>,
    things: u64,
    surveyed_at: UnixMs,
    jobs: BTreeMap<u64, RealJob>,
    /// Those not completed, and of them those without a runner.
    open: BTreeSet<u64>,
    queued: BTreeSet<u64>,
    next_job: u64,
    lost: Vec<Webhook>,
    registrations: BTreeMap<String, RealRunner>,
    containers: BTreeMap<String, Container>,
    stored_jobs: BTreeMap<u64, (JobState, String)>,
    stored_runners: BTreeMap<String, Runner>,
    /// Why jobs wait, as told.
    explained: HashMap<JobKey, Waiting>,
    /// Launched and not yet at an end.
    launched: HashSet<String>,
}

impl World {
    pub(super) fn new(settings: Settings, faults: Faults, seed: u64) -> Self {
        let mut random = SplitMix64(seed);
        let mut state = State::new(settings.clone(), random.next());
        let now = 1_000_000_000;
        assert_eq!(plan(&mut state, Event::Tick, now), []);
        let mut world = Self {
            faults,
            figures: Figures::default(),
            thorough: true,
            job_longest_ms: 100_000,
            now,
            state,
            settings,
            random,
            due: BTreeMap::new(),
            things: 0,
            surveyed_at: now,
            jobs: BTreeMap::new(),
            open: BTreeSet::new(),
            queued: BTreeSet::new(),
            next_job: 1,
            lost: Vec::new(),
            registrations: BTreeMap::new(),
            containers: BTreeMap::new(),
            stored_jobs: BTreeMap::new(),
            stored_runners: BTreeMap::new(),
            explained: HashMap::new(),
            launched: HashSet::new(),
        };
        world.tell(Event::Recovered);
        world
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.random.next() % limit
    }

    pub(super) fn chance(&mut self, in_a_thousand: u64) -> bool {
        self.below(1_000) < in_a_thousand
    }

    fn in_ms(&mut self, from: u64, to: u64, thing: Thing) {
        let at = self.now + from + self.below(to - from + 1);
        self.things += 1;
        self.due.insert((at, self.things), thing);
    }

    // Time

    pub(super) fn step(&mut self, ms: u64) {
        let until = self.now + ms;
        while let Some(entry) = self.due.first_entry()
            && entry.key().0 <= until
        {
            let ((at, _), thing) = entry.remove_entry();
            self.now = at;
            self.happen(thing);
        }
        self.now = until;
        self.assign();
        if !self.lost.is_empty() && self.chance(20) {
            self.redeliver();
        }
        if self.chance(self.faults.restart) {
            self.restart();
        }
        if self.chance(self.faults.drain) {
            let pool = self.below(self.settings.pools.len() as u64 + 1) as usize;
            let pool = Some(pool).filter(|pool| *pool < self.settings.pools.len());
            let draining =
                pool.map_or(self.state.draining(), |pool| self.state.pool_draining(pool));
            self.tell(Event::Drain { pool, draining: !draining });
        }
        if self.chance(self.faults.schedule) {
            let pool = self.below(self.settings.pools.len() as u64) as usize;
            let min_idle = self.below(3) as usize;
            self.tell(Event::MinIdle { pool, min_idle });
        }
        if self.chance(self.faults.reload) {
            self.reload();
        }
        if self.now >= self.surveyed_at + 30_000 {
            self.surveyed_at = self.now;
            self.happen(Thing::Survey);
        }
        self.tell(Event::Tick);
    }

    fn happen(&mut self, thing: Thing) {
        match thing {
            Thing::Webhook(webhook) => self.receive(&webhook),
            Thing::Online(name) => {
                let runs = self.containers.get(&name).is_some_and(|it| it.exit_code.is_none());
                if let Some(registration) = self.registrations.get_mut(&name) {
                    registration.online = runs;
                }
            }
            Thing::JobEnds(job) => self.job_ends(job),
            Thing::Stops(name, exit_code) => self.stops(name, exit_code),
            // What had its one job is deregistered with it.
            Thing::GivenUp(name) => {
                if let Some(RealRunner { job: Some(job), .. }) = self.registrations.remove(&name) {
                    self.conclude(job);
                }
            }
            Thing::Launch(launch, stage) => self.launch(launch, stage),
            Thing::Remove(removal) => self.remove(removal),
            Thing::LookUp(target) => self.look_up(target),
            Thing::LookUpJob(id) => self.look_up_job(id),
            Thing::Survey => {
                let containers = self
                    .containers
                    .iter()
                    .map(|(name, container)| self.adopted(name, container))
                    .collect();
                let event = Event::Survey { containers, taken_at: self.now };
                self.in_ms(0, 3_000, Thing::Tell(event));
            }
            Thing::Tell(event) => self.tell(event),
        }
    }

    // GitHub

    /// Jobs of a run, queued now.
    pub(super) fn queue(&mut self, repository: &str, labels: &[&str]) {
        let id = self.next_job;
        self.next_job += 1;
        let job = Job {
            repository: repository.into(),
            organization: "acme".into(),
            queued_at: self.now,
            ..job(id, labels)
        };
        self.jobs.insert(id, RealJob { job, state: JobState::Queued, runner: String::new() });
        self.open.insert(id);
        self.queued.insert(id);
        self.announce(id, JobState::Queued);
        if self.chance(self.faults.cancelled) {
            self.in_ms(0, 30_000, Thing::JobEnds(id));
        }
    }

    fn announce(&mut self, id: u64, state: JobState) {
        let webhook = Webhook { job: id, state, runner: self.jobs[&id].runner.clone() };
        if self.chance(self.faults.doubled) {
            self.in_ms(0, 60_000, Thing::Webhook(webhook.clone()));
        }
        if self.chance(self.faults.lost) {
            self.lost.push(webhook);
        } else {
            let late = if self.chance(50) { 40_000 } else { 2_000 };
            self.in_ms(50, late, Thing::Webhook(webhook));
        }
    }

    fn redeliver(&mut self) {
        for webhook in std::mem::take(&mut self.lost) {
            self.in_ms(0, 5_000, Thing::Webhook(webhook));
        }
    }

    /// Gives queued jobs to runners that are online, at random.
    fn assign(&mut self) {
        if let Some(id) = self.queued.first().copied()
            && self.chance(self.faults.stolen)
        {
            self.take(id, "a-stranger");
        }
        if self.queued.is_empty() {
            return;
        }
        let mut free: Vec<(String, usize, Target)> = self
            .registrations
            .iter()
            .filter(|(_, it)| it.online && it.job.is_none())
            .map(|(name, it)| (name.clone(), it.pool, it.target.clone()))
            .collect();
        for id in self.queued.clone() {
            if free.is_empty() {
                break;
            }
            let job = &self.jobs[&id].job;
            let fits = |(_, pool, target): &(String, usize, Target)| {
                let labels = &self.settings.pools[*pool].labels;
                let here = match target {
                    Target::Repository { owner, name } => {
                        job.repository.split_once('/') == Some((owner, name))
                    }
                    Target::Organization(login) => job.organization == *login,
                    Target::Enterprise(_) => false,
                };
                here && job
                    .labels
                    .iter()
                    .all(|label| label == "self-hosted" || labels.contains(label))
            };
            if let Some(found) = free.iter().position(fits)
                && self.chance(800)
            {
                let (name, ..) = free.swap_remove(found);
                self.take(id, &name);
            }
        }
    }

    fn take(&mut self, id: u64, runner: &str) {
        let job = self.jobs.get_mut(&id).unwrap();
        assert_eq!(job.state, JobState::Queued);
        (job.state, job.runner) = (JobState::InProgress, runner.to_owned());
        self.queued.remove(&id);
        self.figures.queue_ms += self.now - job.job.queued_at;
        self.figures.served += 1;
        if let Some(registration) = self.registrations.get_mut(runner) {
            assert_eq!(registration.job.replace(id), None);
        }
        self.announce(id, JobState::InProgress);
        let longest = if self.chance(self.faults.job_too_long) {
            2_000_000
        } else if self.chance(300) {
            2_000
        } else {
            self.job_longest_ms
        };
        self.in_ms(500, longest, Thing::JobEnds(id));
        if self.containers.contains_key(runner) && self.chance(self.faults.dies_busy) {
            self.in_ms(0, 60_000, Thing::Stops(runner.into(), 137));
        }
    }

    /// It ran to its end, or was cancelled before.
    fn job_ends(&mut self, id: u64) {
        let job = &self.jobs[&id];
        let runner = job.runner.clone();
        match job.state {
            JobState::Queued => self.conclude(id),
            JobState::InProgress if !self.registrations.contains_key(&runner) => self.conclude(id),
            JobState::InProgress => {
                let runs = self.containers.get(&runner).is_some_and(|it| it.exit_code.is_none());
                if runs {
                    self.registrations.remove(&runner);
                    self.conclude(id);
                    if !self.chance(self.faults.does_not_end) {
                        self.in_ms(100, 2_000, Thing::Stops(runner, 0));
                    }
                }
            }
            JobState::Completed => {}
        }
    }

    fn conclude(&mut self, id: u64) {
        let job = self.jobs.get_mut(&id).unwrap();
        if job.state < JobState::Completed {
            job.state = JobState::Completed;
            self.open.remove(&id);
            self.queued.remove(&id);
            self.announce(id, JobState::Completed);
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
        self.gone(&name);
        if !self.chance(self.faults.exit_unheard) {
            self.in_ms(0, 500, Thing::Tell(Event::ContainerExited { runner: name, exit_code }));
        }
    }

    fn remove_container(&mut self, name: &str) {
        if let Some(Container { exit_code: None, .. }) = self.containers.remove(name) {
            self.gone(name);
            let exited = Event::ContainerExited { runner: name.into(), exit_code: 137 };
            self.in_ms(0, 500, Thing::Tell(exited));
        }
    }

    fn gone(&mut self, name: &str) {
        match self.registrations.get_mut(name) {
            Some(RealRunner { job: Some(_), .. }) => {
                self.in_ms(30_000, 60_000, Thing::GivenUp(name.into()));
            }
            Some(idle) => idle.online = false,
            None => {}
        }
    }

    // The sidecar

    fn launch(&mut self, launch: Launch, stage: Stage) {
        let runner = launch.runner.clone();
        self.tell(Event::Progress { runner: runner.clone(), stage });
        let fails = self.chance(self.faults.launch_fails);
        match stage {
            Stage::Accepted => self.in_ms(0, 100, Thing::Launch(launch, Stage::Image)),
            Stage::Image if fails => self.launch_fails(&runner, Cause::Image, false),
            Stage::Image => self.in_ms(0, 100, Thing::Launch(launch, Stage::Credentials)),
            Stage::Credentials => {
                let (pool, target) = (launch.pool, launch.target.clone());
                // An answer that is lost may have registered a runner.
                if !fails || self.chance(500) {
                    let registration = RealRunner { pool, target, online: false, job: None };
                    self.registrations.insert(runner.clone(), registration);
                }
                if fails {
                    let causes = [
                        Cause::GitHubUnavailable,
                        Cause::RateLimited,
                        Cause::Forbidden,
                        Cause::Unauthorized,
                        Cause::Rejected,
                        Cause::Store,
                    ];
                    let cause = causes[self.below(causes.len() as u64) as usize];
                    self.launch_fails(&runner, cause, false);
                } else {
                    if self.chance(500) {
                        self.tell(Event::Registered { runner, registration_id: 1 });
                    }
                    self.in_ms(50, 1_000, Thing::Launch(launch, Stage::Container));
                }
            }
            Stage::Container => {
                let starts = !fails || self.chance(500);
                if starts {
                    self.container_starts(launch);
                }
                if fails {
                    let causes = [Cause::Container, Cause::DockerUnavailable, Cause::TimedOut];
                    let cause = causes[self.below(3) as usize];
                    self.launch_fails(&runner, cause, true);
                } else {
                    self.in_ms(0, 100, Thing::Tell(Event::Launched { runner }));
                }
            }
        }
    }

    fn launch_fails(&mut self, runner: &str, cause: Cause, may_run: bool) {
        let retry_after_ms = if cause == Cause::RateLimited { 20_000 } else { 0 };
        let event = Event::LaunchFailed {
            runner: runner.into(),
            cause,
            message: "a fault".into(),
            retry_after_ms,
            may_run,
        };
        let longest = if cause == Cause::TimedOut { 60_000 } else { 3_000 };
        self.in_ms(0, longest, Thing::Tell(event));
    }

    fn container_starts(&mut self, launch: Launch) {
        let Launch { runner, pool, target, .. } = launch;
        self.containers.insert(runner.clone(), Container { pool, target, exit_code: None });
        if self.chance(self.faults.dies_unused) {
            let code = [0, 1, 7][self.below(3) as usize];
            self.in_ms(0, 20_000, Thing::Stops(runner.clone(), code));
        }
        if !self.chance(self.faults.never_online) {
            self.in_ms(500, 8_000, Thing::Online(runner));
        }
    }

    fn remove(&mut self, removal: Removal) {
        let name = removal.runner.clone();
        let answer = |event: Event| Thing::Tell(event);
        if removal.force {
            self.remove_container(&name);
        }
        if self.chance(self.faults.call_fails) {
            self.in_ms(0, 5_000, answer(Event::RemovalFailed { runner: name }));
            return;
        }
        if removal.deregister {
            if self.registrations.get(&name).is_some_and(|it| it.job.is_some()) {
                self.in_ms(0, 500, answer(Event::RemovalRefused { runner: name }));
                return;
            }
            self.registrations.remove(&name);
        }
        self.remove_container(&name);
        self.in_ms(0, 500, answer(Event::Removed { runner: name }));
    }

    fn look_up(&mut self, target: Target) {
        if self.chance(self.faults.call_fails) {
            return;
        }
        let runners = self
            .registrations
            .iter()
            .filter(|(_, it)| it.target == target)
            .map(|(name, it)| Registration {
                name: name.clone(),
                id: 1,
                online: it.online,
                busy: it.job.is_some(),
            })
            .collect();
        self.in_ms(0, 1_000, Thing::Tell(Event::Registrations { target, runners }));
    }

    fn look_up_job(&mut self, id: u64) {
        if self.chance(self.faults.call_fails) {
            return;
        }
        let RealJob { job, state, runner } = &self.jobs[&id];
        let (job, state, runner) = (job.key, *state, runner.clone());
        let status = match state {
            JobState::Queued => JobStatus::Queued,
            JobState::InProgress => JobStatus::InProgress { runner: runner.clone() },
            JobState::Completed => JobStatus::Over,
        };
        self.figures.jobs_looked_up += 1;
        if self.stored_jobs[&id].0 < state {
            self.stored_jobs.insert(id, (state, runner));
        }
        self.in_ms(0, 1_000, Thing::Tell(Event::JobFound { job, status }));
    }

    /// Store first, then the planner, as for a webhook that Envoy hands on.
    fn receive(&mut self, webhook: &Webhook) {
        let Webhook { job: id, state, runner } = webhook;
        let advanced = self.stored_jobs.get(id).is_none_or(|(stored, _)| stored < state);
        if advanced {
            self.stored_jobs.insert(*id, (*state, runner.clone()));
            self.tell(self.event(*id));
        }
    }

    fn event(&self, id: u64) -> Event {
        let job = self.jobs[&id].job.clone();
        let (state, runner) = self.stored_jobs[&id].clone();
        match state {
            JobState::Queued => Event::JobQueued(job),
            JobState::InProgress => Event::JobStarted { job, runner },
            JobState::Completed => Event::JobCompleted { job, runner },
        }
    }

    fn adopted(&self, name: &str, container: &Container) -> Adopted {
        Adopted {
            runner: name.into(),
            pool: self.settings.pools[container.pool].name.clone(),
            target: container.target.clone(),
            registration_id: None,
            job: None,
            created_at: self.now,
            container: match container.exit_code {
                None => AdoptedContainer::Running,
                Some(code) => AdoptedContainer::Exited(code),
            },
        }
    }

    /// Killed and started again: what was in its memory is lost.
    fn restart(&mut self) {
        self.figures.restarts += 1;
        self.due.retain(|_, thing| {
            use Thing::{GivenUp, JobEnds, Online, Stops, Webhook};
            matches!(thing, Webhook(_) | Online(_) | JobEnds(_) | Stops(..) | GivenUp(_))
        });
        self.state = State::new(self.settings.clone(), self.random.next());
        let stored: Vec<u64> = self
            .stored_jobs
            .iter()
            .filter(|(_, (state, _))| *state < JobState::Completed)
            .map(|(id, _)| *id)
            .collect();
        for id in stored {
            self.tell(self.event(id));
        }
        let mut left: Vec<Adopted> = Vec::new();
        for (name, runner) in &self.stored_runners {
            let container = self.containers.get(name).map(|it| self.adopted(name, it).container);
            left.push(Adopted {
                runner: name.clone(),
                pool: runner.pool.clone(),
                target: runner.target.clone(),
                registration_id: runner.registration_id,
                job: runner.job,
                created_at: runner.created_at,
                container: container.unwrap_or(AdoptedContainer::Missing),
            });
        }
        for (name, container) in &self.containers {
            if !self.stored_runners.contains_key(name) {
                left.push(self.adopted(name, container));
            }
        }
        for adopted in left {
            self.tell(Event::Adopted(adopted));
        }
        self.tell(Event::Recovered);
    }

    /// The same pools, but each has another index.
    fn reload(&mut self) {
        self.settings.pools.reverse();
        let last = self.settings.pools.len() - 1;
        for container in self.containers.values_mut() {
            container.pool = last - container.pool;
        }
        for runner in self.registrations.values_mut() {
            runner.pool = last - runner.pool;
        }
        for thing in self.due.values_mut() {
            if let Thing::Launch(launch, _) = thing {
                launch.pool = last - launch.pool;
            }
        }
        self.tell(Event::Pools(self.settings.pools.clone()));
    }

    pub(super) fn tell(&mut self, event: Event) {
        let again = (self.thorough && self.chance(200)).then(|| event.clone());
        let tick = matches!(event, Event::Tick);
        let actions = plan(&mut self.state, event, self.now);
        let quiet = tick && actions.is_empty();
        for action in actions {
            self.carry_out(action);
        }
        if tick && self.thorough && self.chance(20) {
            self.check_told_reasons();
        }
        if let Some(event) = again {
            let told = format!("{event:?}");
            let actions = plan(&mut self.state, event, self.now);
            assert_eq!(actions, [], "told again: {told}");
        }
        // Most ticks change nothing; some of them are looked at all the same.
        if !quiet || self.chance(50) {
            self.check();
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Launch(launch) => {
                let record = self.state.runner(&launch.runner).unwrap().clone();
                self.figures.launches += 1;
                assert!(self.launched.insert(launch.runner.clone()), "launched twice");
                self.stored_runners.insert(launch.runner.clone(), record);
                self.in_ms(0, 100, Thing::Launch(launch, Stage::Accepted));
            }
            Action::Remove(removal) => self.in_ms(10, 500, Thing::Remove(removal)),
            Action::LookUp(target) => self.in_ms(100, 1_000, Thing::LookUp(target)),
            Action::LookUpJob { job, .. } => self.in_ms(100, 1_000, Thing::LookUpJob(job.id)),
            Action::Explain(reasons) => self.explained.extend(reasons),
            Action::Record(name) => {
                let record = self.state.runner(&name).expect("a record of nobody").clone();
                if let Some(Runner { job: Some(before), .. }) = self.stored_runners.get(&name) {
                    assert_eq!(record.job, Some(*before), "{name} serves two jobs");
                }
                self.stored_runners.insert(name, record);
            }
            Action::Forget(runner, _) => {
                assert!(self.launched.remove(&runner.name), "{} ended twice", runner.name);
                assert!(!self.containers.contains_key(&runner.name), "{runner:?} runs");
                self.stored_runners.remove(&runner.name);
            }
        }
    }

    // What must hold

    fn check(&mut self) {
        let running = |pool: Option<usize>| {
            self.containers
                .values()
                .filter(|it| it.exit_code.is_none() && pool.is_none_or(|pool| pool == it.pool))
                .count()
        };
        let live = running(None);
        self.figures.live_max = self.figures.live_max.max(live);
        assert!(live <= self.settings.max, "{live} live");
        if self.state.recovered() {
            assert!(live <= self.state.live(), "{live} live, not {}", self.state.live());
        }
        if !self.thorough {
            return;
        }
        for (index, pool) in self.settings.pools.iter().enumerate() {
            assert!(running(Some(index)) <= pool.max, "too many in {}", pool.name);
        }
        recount(&self.state);
        if self.chance(200) {
            self.check_reasons();
        }
    }

    /// What was told of the jobs that wait is how it is.
    fn check_told_reasons(&self) {
        for (job, reason) in self.state.waiting(self.now) {
            assert_eq!(self.explained.get(&job.key), Some(&reason), "{}", job.key);
        }
    }

    fn check_reasons(&self) {
        let waiting = self.state.waiting(self.now);
        for (job, reason) in &waiting {
            let (preemptible, leaving) = match (reason, &self.state.jobs[&job.key].lane) {
                (Waiting::PoolMax { .. }, Ok((pool, _))) => {
                    let counts = &self.state.pool_counts[*pool];
                    (counts.preemptible, counts.leaving)
                }
                (Waiting::GlobalMax { .. }, _) => {
                    (self.state.counts.preemptible, self.state.counts.leaving)
                }
                _ => continue,
            };
            assert!(preemptible == 0 || leaving > 0, "{} waits for the place of nobody", job.key);
        }
        let shown: BTreeSet<JobKey> = waiting.iter().map(|(job, _)| job.key).collect();
        assert_eq!(shown.len(), waiting.len(), "a job has two reasons");
        let queued: BTreeSet<JobKey> = self
            .state
            .jobs
            .iter()
            .filter(|(_, tracked)| tracked.progress == Progress::Queued)
            .map(|(key, _)| *key)
            .collect();
        assert_eq!(shown, queued);
        for key in self.state.jobs.keys() {
            assert!(!self.state.tombstones.contains_key(key), "{key} lives and is over");
        }
    }

    // The end

    /// No faults from now on, and what was lost comes yet, except what the planner can
    /// find out: that a job it holds as queued was taken or is over. Whatever a pool
    /// serves must run and end, and nothing be left over.
    pub(super) fn settle(&mut self) {
        self.faults = Faults::default();
        self.tell(Event::Drain { pool: None, draining: false });
        for pool in 0..self.settings.pools.len() {
            let min_idle = self.settings.pools[pool].min_idle;
            self.tell(Event::MinIdle { pool, min_idle });
        }
        let served = |job: &Job| match_pool(&self.settings.pools, job).is_ok();
        let on_its_way: BTreeSet<u64> = self
            .due
            .values()
            .filter_map(|thing| match thing {
                Thing::Webhook(webhook) => Some(webhook.job),
                _ => None,
            })
            .collect();
        let held_as_queued = |id: &u64| {
            self.stored_jobs.get(id).is_some_and(|(state, _)| *state == JobState::Queued)
                && !on_its_way.contains(id)
        };
        self.lost.retain(|webhook| {
            let found_out = match webhook.state {
                JobState::Queued => false,
                JobState::InProgress => true,
                JobState::Completed => webhook.runner.is_empty(),
            };
            !(found_out && held_as_queued(&webhook.job) && served(&self.jobs[&webhook.job].job))
        });
        let unserved: Vec<u64> =
            self.open.iter().copied().filter(|id| !served(&self.jobs[id].job)).collect();
        for id in unserved {
            self.conclude(id);
        }
        self.redeliver();
        let warm: usize = self
            .settings
            .pools
            .iter()
            .map(|pool| pool.min_idle * pool.targets_known_beforehand().len())
            .sum();
        let give_up = self.now + 6 * 3_600_000;
        while !self.settled(warm) {
            assert!(self.now < give_up, "never settles: {}", self.leftovers());
            self.step(1_000);
        }
        assert_eq!(self.launched.len(), warm, "launches without an end");
        assert_eq!(self.registrations.len(), warm, "{}", self.leftovers());
        assert_eq!(self.stored_runners.len(), warm);
        assert!(self.state.jobs.is_empty() && self.state.repositories.is_empty());
        if warm == 0 {
            assert!(self.state.lanes.is_empty() && self.state.deadlines.is_empty());
        }
        recount(&self.state);
    }

    fn settled(&self, warm: usize) -> bool {
        self.open.is_empty()
            && self.due.is_empty()
            && self.containers.len() == warm
            && self.state.runners.len() == warm
            && self.state.jobs.is_empty()
            && self.state.runners().all(|runner| runner.phase == Phase::Idle)
    }

    fn leftovers(&self) -> String {
        let waiting = self.state.waiting(self.now);
        let waiting: Vec<String> =
            waiting.iter().take(5).map(|(job, reason)| format!("{}: {reason}", job.key)).collect();
        format!(
            "jobs {:?}\nknown {:?}\nwaiting {waiting:?}\nregistrations {:?}\ncontainers {:?}\nrunners {:?}\n\
             backoffs {:?}\ndue {:?}",
            self.open,
            self.state.jobs.values().take(5).collect::<Vec<_>>(),
            self.registrations,
            self.containers,
            self.state.runners,
            self.state.backoffs().collect::<Vec<_>>(),
            self.due,
        )
    }
}
