//! How long `plan` takes for one event as the number of queued jobs and live runners
//! grows. `cargo bench -p edgerunner-scheduler --bench plan`; it fails above 10 ms.
//!
//! It measures CPU time, so that other load on the machine does not count.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use edgerunner_scheduler::{
    model::{Host, Instant, Job, JobKey, Moment, ServerTarget, Target, Visibility},
    plan::{
        Action, Adopted, AdoptedContainer, Credential, Event, Forks, LabelParameters, LifeLimits,
        Order, Parameters, Pool, Registration, Resources, Scope, Settings, Stage, State,
        TargetPattern, plan,
    },
};
use rustix::time::{ClockId, clock_gettime};

const LIMIT: Duration = Duration::from_millis(10);
const JOBS: [u64; 3] = [1_000, 10_000, 100_000];
const RUNNERS: [usize; 3] = [100, 1_000, 10_000];
/// Milliseconds on both clocks.
const BEGIN: u64 = 1_000_000_000;
const SAMPLES: usize = 2_000;
const TICKS: usize = 500;

/// How the load is distributed.
#[derive(Clone, Copy)]
enum Shape {
    /// One pool at one organization.
    OneTarget,
    /// Five pools, each at a thousand repositories, each repository limited.
    ManyTargets,
}

impl Shape {
    fn settings(self, runners: usize) -> Settings {
        let pool = |number: usize| Pool {
            name: format!("pool{number}"),
            provider: 0,
            labels: [format!("l{number}"), "linux".into()].into(),
            repositories: Vec::new(),
            jobs_without_labels: false,
            require_labels: false,
            public_repositories: false,
            forks: Forks::Allow,
            scope: match self {
                Self::OneTarget => Scope::Organization,
                Self::ManyTargets => Scope::Repository,
            },
            min_idle: 0,
            parked: 0,
            parked_ms: 43_200_000,
            revision: 0,
            max: usize::MAX,
            priority: 0,
            limits: LifeLimits {
                provisioning_ms: 60_000,
                starting_ms: 60_000,
                idle_ms: 600_000,
                job_ms: 3_600_000,
            },
            devices: 0,
            promised: Resources { memory_mib: 1, cpu_millis: 1 },
            containers: 1,
            label_parameters: LabelParameters::default(),
        };
        let (pools, max_per_repository) = match self {
            Self::OneTarget => (1, usize::MAX),
            Self::ManyTargets => (5, 50),
        };
        Settings {
            pools: (0..pools).map(pool).collect(),
            credentials: vec![Credential {
                name: "any".into(),
                host: Host::default(),
                targets: vec![TargetPattern::Any],
            }],
            providers: vec!["Docker".into()],
            devices: Vec::new(),
            max: runners,
            max_per_repository,
            order: Order::Fair,
            instance: "bench".into(),
            term: None,
        }
    }

    fn job(self, id: u64) -> Job {
        let (repository, pool) = match self {
            Self::OneTarget => (0, 0),
            Self::ManyTargets => (id % 1_000, id % 5),
        };
        Job {
            key: JobKey::new(id, 1),
            repository: format!("acme/repository-{repository}"),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: id,
            from_fork: None,
            labels: vec!["self-hosted".into(), format!("l{pool}")],
            queued_at: BEGIN + id,
            delivery: format!("72d3162e-cc78-11e3-81ab-{id:012x}"),
        }
    }
}

struct Bench {
    shape: Shape,
    state: State,
    /// Milliseconds on both clocks.
    now: u64,
    next_job: u64,
    /// Runners whose containers run, without a job yet.
    free: Vec<String>,
    busy: Vec<(Job, String)>,
}

/// The times of one kind of event.
#[derive(Default)]
struct Times(Vec<Duration>);

impl Bench {
    fn empty(shape: Shape, runners: usize) -> Self {
        let mut bench = Self {
            shape,
            state: State::new(shape.settings(runners), 1),
            now: BEGIN,
            next_job: 1,
            free: Vec::new(),
            busy: Vec::new(),
        };
        bench.apply(Event::Recovered { provider: 0 });
        bench
    }

    /// `runners` busy and `jobs` queued.
    fn new(shape: Shape, jobs: u64, runners: usize) -> Self {
        let mut bench = Self::empty(shape, runners);
        while bench.busy.len() < runners {
            bench.queue(&mut Times::default());
            bench.start(&mut Times::default());
        }
        for _ in 0..jobs {
            bench.queue(&mut Times::default());
        }
        bench
    }

    /// Idle runners whose jobs were cancelled.
    fn preemptible(shape: Shape, runners: usize) -> Self {
        let mut bench = Self::empty(shape, runners);
        while bench.free.len() < runners {
            bench.queue(&mut Times::default());
        }
        let mut listed: BTreeMap<ServerTarget, Vec<Registration>> = BTreeMap::new();
        for runner in bench.state.runners() {
            let name = runner.name.clone();
            let registration = Registration { name, id: 1, online: true, busy: false };
            listed.entry(runner.target.clone()).or_default().push(registration);
        }
        for (target, runners) in listed {
            // One list changes a thousand of them.
            for _ in 0..runners.len().div_ceil(1_000) {
                let (target, runners) = (target.clone(), runners.clone());
                let requested_at = bench.moment().instant;
                bench.apply(Event::Registrations { target, runners, requested_at });
            }
        }
        for id in 1..bench.next_job {
            bench.apply(Event::JobCompleted { job: shape.job(id), runner: String::new() });
        }
        bench
    }

    /// Queues jobs elsewhere, for which idle runners are preempted.
    fn preempt(&mut self) -> Times {
        let mut times = Times::default();
        for sample in 0..self.free.len().min(SAMPLES) as u64 {
            let mut job = self.shape.job(self.next_job + sample);
            job.repository = format!("other/repository-{}", sample % 1_000);
            job.organization = "other".into();
            times.0.push(self.apply(Event::JobQueued(job)));
        }
        times
    }

    /// Carries out launches and removals at once. Returns the time of this call of `plan`.
    fn apply(&mut self, event: Event) -> Duration {
        let now = self.moment();
        let begin = cpu_time();
        let actions = plan(&mut self.state, event, now);
        let time = cpu_time() - begin;
        for action in actions {
            match action {
                Action::Launch(launch) => {
                    let runner = launch.runner;
                    for stage in [Stage::Image, Stage::Credentials, Stage::Container] {
                        self.apply(Event::Progress { runner: runner.clone(), stage });
                    }
                    self.apply(Event::Launched { runner: runner.clone() });
                    self.free.push(runner);
                }
                Action::Remove(removal) => {
                    self.apply(Event::Removed { runner: removal.runner });
                }
                _ => {}
            }
        }
        time
    }

    fn moment(&self) -> Moment {
        Moment { instant: Instant::from_millis(self.now as i64), wall: self.now }
    }

    fn survey(&mut self, containers: Vec<Adopted>) -> Duration {
        self.apply(Event::Survey { provider: 0, containers, taken_at: self.moment().instant })
    }

    fn queue(&mut self, times: &mut Times) {
        let job = self.shape.job(self.next_job);
        self.next_job += 1;
        times.0.push(self.apply(Event::JobQueued(job)));
    }

    /// A free runner takes a job at its target.
    fn start(&mut self, times: &mut Times) {
        let Some(runner) = self.free.pop() else {
            return;
        };
        let known = self.state.runner(&runner).expect("it runs");
        let (pool, target) = (known.pool.clone(), known.target.clone());
        let job = self.job_at(&pool, &target);
        times.0.push(self.apply(Event::JobStarted { job: job.clone(), runner: runner.clone() }));
        self.busy.push((job, runner));
    }

    /// A busy runner's job ends and its container exits.
    fn end(&mut self, sample: usize, completed: &mut Times, exited: &mut Times) {
        let (job, runner) = self.busy.swap_remove(sample * 7 % self.busy.len());
        completed.0.push(self.apply(Event::JobCompleted { job, runner: runner.clone() }));
        exited.0.push(self.apply(Event::ContainerExited { runner, status: 0.into() }));
    }

    fn job_at(&self, pool: &str, target: &ServerTarget) -> Job {
        let served = |job: &Job| match &target.target {
            Target::Repository { name, .. } => {
                job.repository.ends_with(name) && pool.ends_with(&job.labels[1][1..])
            }
            _ => true,
        };
        // Repositories and pools repeat, so checking the last jobs is enough. A job that has
        // already started is fine, like a late webhook.
        (1..self.next_job)
            .rev()
            .take(1_000)
            .map(|id| self.shape.job(id))
            .find(served)
            .unwrap_or_else(|| self.shape.job(self.next_job))
    }

    fn measure(&mut self) -> Vec<(&'static str, Times)> {
        let [
            mut queued,
            mut started,
            mut completed,
            mut exited,
            mut tick,
            mut listed,
            mut surveyed,
        ] = [(); 7].map(|()| Times::default());
        for sample in 0..SAMPLES {
            self.now += 10;
            self.queue(&mut queued);
            self.end(sample, &mut completed, &mut exited);
            while !self.free.is_empty() {
                self.start(&mut started);
            }
        }
        // From here on half of the runners have no job: they start and come online, which is
        // the most work for a tick.
        for sample in 0..self.busy.len() / 2 {
            self.end(sample, &mut Times::default(), &mut Times::default());
        }
        for _ in 0..20 {
            self.now += 1_000;
            tick.0.push(self.apply(Event::Tick));
        }
        let target = self.state.runners().next().expect("some run").target.clone();
        let mut runners: Vec<Registration> = self
            .state
            .runners()
            .filter(|runner| runner.target == target)
            .map(|runner| Registration {
                name: runner.name.clone(),
                id: 1,
                online: true,
                busy: runner.job.is_some(),
            })
            .collect();
        for _ in 0..20 {
            let (target, runners) = (target.clone(), runners.clone());
            let requested_at = self.moment().instant;
            let event = Event::Registrations { target, runners, requested_at };
            listed.0.push(self.apply(event));
        }
        let containers: Vec<Adopted> = self
            .state
            .runners()
            .map(|runner| Adopted {
                runner: runner.name.clone(),
                pool: runner.pool.clone(),
                provider: 0,
                target: runner.target.clone(),
                registration_id: None,
                job: None,
                created_at: runner.created.wall,
                container: AdoptedContainer::Running,
                parameters: Parameters::default(),
                devices: Vec::new(),
                parked: None,
            })
            .collect();
        for _ in 0..20 {
            surveyed.0.push(self.survey(containers.clone()));
        }
        // No machine answers for a minute, and GitHub has all runners there as offline.
        let mut unreachable = containers.clone();
        for adopted in &mut unreachable {
            adopted.container = AdoptedContainer::Unreachable;
        }
        for _ in 0..60 {
            surveyed.0.push(self.survey(unreachable.clone()));
            self.now += 1_000;
            tick.0.push(self.apply(Event::Tick));
        }
        for registration in &mut runners {
            (registration.online, registration.busy) = (false, false);
        }
        let requested_at = self.moment().instant;
        listed.0.push(self.apply(Event::Registrations { target, runners, requested_at }));
        for _ in 0..20 {
            surveyed.0.push(self.survey(containers.clone()));
        }
        for _ in 0..TICKS {
            self.now += 1_000;
            tick.0.push(self.apply(Event::Tick));
        }
        vec![
            ("queued", queued),
            ("started", started),
            ("completed", completed),
            ("exited", exited),
            ("tick", tick),
            ("listed", listed),
            ("surveyed", surveyed),
        ]
    }
}

impl Times {
    fn at(&self, percent: usize) -> Duration {
        self.0[(self.0.len() - 1) * percent / 100]
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

fn main() -> ExitCode {
    let mut worst = Duration::ZERO;
    for (shape, title) in [
        (Shape::OneTarget, "one pool at one organization"),
        (Shape::ManyTargets, "five pools, a thousand repositories, each limited"),
    ] {
        println!("\n{title}; microseconds an event, median / 99th percentile / longest\n");
        println!(
            "| queued jobs | live runners | queued | started | completed | exited | tick | listed | surveyed | preempt |"
        );
        println!("|{}", " ---: |".repeat(10));
        for (jobs, runners) in JOBS.into_iter().flat_map(|jobs| RUNNERS.map(|it| (jobs, it))) {
            let mut cells = Vec::new();
            let mut measured = Bench::new(shape, jobs, runners).measure();
            measured.push(("preempt", Bench::preemptible(shape, runners).preempt()));
            for (name, mut times) in measured {
                times.0.sort_unstable();
                assert!(!times.0.is_empty(), "{name} was not measured");
                worst = worst.max(times.at(100));
                let us = |time: Duration| time.as_nanos() as f64 / 1_000.0;
                cells.push(format!(
                    "{:.1} / {:.1} / {:.0}",
                    us(times.at(50)),
                    us(times.at(99)),
                    us(times.at(100)),
                ));
            }
            println!("| {jobs} | {runners} | {} |", cells.join(" | "));
        }
    }
    println!("\nlongest: {:.2} ms", worst.as_secs_f64() * 1e3);
    if worst > LIMIT {
        eprintln!("an event took longer than {} ms", LIMIT.as_millis());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
