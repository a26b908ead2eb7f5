//! Pools: their settings, with everything inherited from `[runner]` and `[docker]`.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::{
    Container, DockerAccess, Gpus, PodTemplate, ProviderName, RegistrationMethod, Runner,
    document::{Document, Origin, alternative, child},
    job_script::JobScript,
};
use edgerunner_scheduler::{
    plan::{
        Forks, LabelParameters, LifeLimits, Parameters, Pool, RepositoryPattern, Resources, Scope,
    },
    schedule::{Schedule, Timetable},
};

const SELF_HOSTED: &str = "self-hosted";
/// GitHub's ID of the group Default.
pub(super) const DEFAULT_GROUP: u64 = 1;
/// GitHub's image does not define a command.
const JIT_COMMAND: &str = "/home/runner/run.sh";

/// A runner group of an organization or enterprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunnerGroup {
    /// 1 is Default, the only group of a repository.
    Id(u64),
    Name(String),
}

/// All settings of a pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolConfig {
    pub name: String,
    /// As written, and always with `self-hosted`.
    pub labels: Vec<String>,
    /// In their order: the first that matches the time applies.
    pub schedules: Vec<Schedule>,
    pub registration: RegistrationMethod,
    pub group: RunnerGroup,
    pub work_folder: String,
    pub limits: LifeLimits,
    pub stop_grace: Duration,
    pub container: Container,
    pub job_scripts: Vec<JobScript>,
    pub provider: ProviderName,
    /// Index of the provider in [`super::Config::providers`].
    pub place: usize,
    /// Constraints of Docker Swarm, or labels of nodes in Kubernetes.
    pub placement: Vec<String>,
    pub spread_over: Vec<String>,
    /// For pods in Kubernetes.
    pub pod_template: Option<PodTemplate>,
    /// What jobs may ask for by their labels.
    pub label_parameters: LabelParameters,
    repositories: Vec<RepositoryPattern>,
    jobs_without_labels: bool,
    require_labels: bool,
    public_repositories: bool,
    forks: Forks,
    scope: Scope,
    min_idle: usize,
    parked: usize,
    parked_ms: u64,
    max: usize,
    priority: i32,
}

impl PoolConfig {
    /// The part of the settings that the planner needs.
    pub(crate) fn planner_pool(&self) -> Pool {
        Pool {
            name: self.name.clone(),
            provider: self.place,
            labels: self.labels.iter().map(|label| label.to_ascii_lowercase()).collect(),
            repositories: self.repositories.clone(),
            jobs_without_labels: self.jobs_without_labels,
            require_labels: self.require_labels,
            public_repositories: self.public_repositories,
            forks: self.forks,
            scope: self.scope,
            min_idle: self.min_idle,
            parked: self.parked,
            parked_ms: self.parked_ms,
            revision: self.revision(),
            max: self.max,
            priority: self.priority,
            limits: self.limits,
            devices: self.own_devices(),
            promised: self.promised(),
            containers: self.containers_of_each(),
            label_parameters: self.label_parameters.clone(),
        }
    }

    /// How many of the devices that the planner hands out each of its runners gets: Kubernetes hands
    /// out those of its nodes itself.
    fn own_devices(&self) -> usize {
        match self.provider {
            ProviderName::Docker | ProviderName::Swarm => {
                self.container.gpus.as_ref().map_or(0, Gpus::own)
            }
            ProviderName::Kubernetes => 0,
        }
    }

    /// The containers of each of its runners that have its limits: the runner, and its own Engine.
    fn containers_of_each(&self) -> u32 {
        if self.container.docker == DockerAccess::Dind { 2 } else { 1 }
    }

    /// What each of its runners may use, with its own Engine.
    pub(crate) fn promised(&self) -> Resources {
        let Container { cpus, memory_mib, .. } = &self.container;
        let cpu_millis = cpus.map_or(0, |cpus| (cpus * 1_000.0).round() as u64);
        Resources { memory_mib: memory_mib.unwrap_or_default(), cpu_millis }
            .times(self.containers_of_each() as usize)
    }

    /// The settings of a runner that is launched with these parameters.
    pub(crate) fn with(self: &Arc<Self>, parameters: &Parameters) -> Arc<Self> {
        if parameters.is_empty() {
            return Arc::clone(self);
        }
        let mut pool = Self::clone(self);
        pool.labels.extend(parameters.labels());
        let Container { cpus, memory_mib, runner_image, .. } = &mut pool.container;
        *cpus = parameters.cpu.map(f64::from).or(*cpus);
        *memory_mib = parameters.memory_mib().or(*memory_mib);
        if let Some(image) = &parameters.image {
            runner_image.clone_from(image);
        }
        Arc::new(pool)
    }

    /// Its container with each image that its runners may have.
    pub(crate) fn containers(&self) -> impl Iterator<Item = Container> {
        let with =
            |image: &String| Container { runner_image: image.clone(), ..self.container.clone() };
        let permitted = self.label_parameters.image.iter();
        [&self.container.runner_image].into_iter().chain(permitted).map(with)
    }

    /// Another number whenever a setting changes that a runner is launched with, or the version of
    /// edgerunner.
    pub(crate) fn revision(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let Self { labels, registration, group, work_folder, container, job_scripts, .. } = self;
        let settings = (labels, registration, group, work_folder, container, job_scripts);
        // Secrets are left out there.
        format!("{settings:?}").hash(&mut hasher);
        for (name, value) in &container.env {
            (name, value.expose_secret()).hash(&mut hasher);
        }
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        hasher.finish()
    }

    /// The timetables of the pools that have schedules.
    pub(crate) fn timetables(pools: &[Self]) -> Vec<Timetable> {
        let with_schedules = pools.iter().enumerate().filter(|(_, it)| !it.schedules.is_empty());
        let timetable =
            |(index, it): (usize, &Self)| Timetable::new(index, it.schedules.clone(), it.min_idle);
        with_schedules.map(timetable).collect()
    }

    /// Empty for the image's command.
    pub(crate) fn command(&self) -> Vec<String> {
        self.container.command.clone().unwrap_or_else(|| match self.registration {
            RegistrationMethod::Jit => vec![JIT_COMMAND.to_owned()],
            RegistrationMethod::RegistrationToken => Vec::new(),
        })
    }

    fn new(
        name: String,
        runner: Runner,
        container: Container,
        job_scripts: Vec<JobScript>,
        repositories: Vec<RepositoryPattern>,
        schedules: Vec<Schedule>,
        label_parameters: LabelParameters,
    ) -> Self {
        let mut labels = runner.labels;
        if !labels.iter().any(|label| label.eq_ignore_ascii_case(SELF_HOSTED)) {
            labels.insert(0, SELF_HOSTED.to_owned());
        }
        let group = match runner.group {
            Some(name) => RunnerGroup::Name(name),
            None => RunnerGroup::Id(runner.group_id.unwrap_or(DEFAULT_GROUP)),
        };
        let ms = |seconds: u32| u64::from(seconds) * 1000;
        Self {
            name,
            labels,
            schedules,
            registration: runner.contract,
            group,
            work_folder: runner.work_folder,
            limits: LifeLimits {
                provisioning_ms: ms(runner.provisioning_timeout_seconds),
                starting_ms: ms(runner.starting_timeout_seconds),
                idle_ms: ms(runner.idle_timeout_seconds),
                job_ms: ms(runner.job_timeout_seconds),
            },
            stop_grace: Duration::from_secs(runner.stop_grace_seconds.into()),
            container,
            job_scripts,
            provider: runner.provider,
            place: 0,
            placement: runner.placement,
            spread_over: runner.spread_over,
            pod_template: None,
            label_parameters,
            repositories,
            jobs_without_labels: runner.jobs_without_labels,
            require_labels: runner.require_labels,
            public_repositories: runner.public_repositories,
            forks: runner.forks,
            scope: runner.scope,
            min_idle: runner.min_idle,
            parked: runner.parked,
            parked_ms: ms(runner.parked_timeout_seconds),
            max: runner.max,
            priority: runner.priority,
        }
    }
}

impl Document {
    pub(super) fn read_pools(&mut self) -> Vec<PoolConfig> {
        if self.get("/pools").is_none()
            && let Value::Object(tree) = &mut self.tree
        {
            tree.insert("pools".into(), serde_json::json!([{ "name": "default" }]));
        }
        let mut pools = Vec::new();
        for pointer in self.tables("/pools") {
            self.inherit(&pointer, "runner");
            self.inherit(&pointer, "docker");
            let name = self.pool_name(&pointer, &pools);
            let runner: Runner = self.read(&pointer);
            let container: Container = self.read(&pointer);
            self.check_container(&pointer, &container);
            self.check_tool_cache(&pointer, &runner, &container);
            let job_scripts = self.read_job_scripts(&pointer, &container);
            let repositories = self.check_runner(&pointer, &runner);
            let schedules = self.check_schedules(&pointer, &runner.schedules);
            let parameters = self.check_label_parameters(&pointer, &runner.label_parameters);
            let pod_template = self.read_pod_template(&pointer, &runner);
            let mut pool = PoolConfig::new(
                name,
                runner,
                container,
                job_scripts,
                repositories,
                schedules,
                parameters,
            );
            pool.pod_template = pod_template;
            self.check_min_idle(&pointer, &pool);
            self.check_parked(&pointer, &pool);
            pools.push(pool);
        }
        pools
    }

    /// Gives a pool the settings of a section that it does not have itself. An error in one of
    /// them is then reported in the section, not in the pool.
    fn inherit(&mut self, pool: &str, section: &str) {
        let Some(Value::Object(base)) = self.get(&format!("/{section}")).cloned() else {
            return;
        };
        for (field, value) in base {
            let inherited = child(pool, &field);
            if let Some(Value::Object(table)) = self.tree.pointer_mut(pool)
                && !table.contains_key(&field)
                && !alternative(&field).is_some_and(|other| table.contains_key(other))
            {
                table.insert(field.clone(), value);
                let from = format!("/{section}/{field}");
                self.set_origin(&inherited, Origin::Inherited(from));
            }
        }
    }

    fn pool_name(&mut self, pointer: &str, others: &[PoolConfig]) -> String {
        let location = format!("{pointer}/name");
        let name: Option<String> = self.read(&location);
        let Some(name) = name else {
            self.error(&location, "each pool needs a unique name: write name = \"…\"");
            return String::new();
        };
        self.check_name(&location, &name);
        if others.iter().any(|other| other.name == name) {
            self.error(&location, "another pool has this name: write a unique one");
        }
        name
    }
}
