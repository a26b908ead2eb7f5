use std::time::Duration;

use serde_json::Value;

use super::{
    Container, RegistrationMethod, Runner,
    document::{Document, Origin, child, other_way},
    job_script::JobScript,
};
use edgerunner_scheduler::{
    plan::{LifeLimits, Pool, RepositoryPattern},
    schedule::{Schedule, Timetable},
};

const SELF_HOSTED: &str = "self-hosted";
/// GitHub's id of the group Default.
pub(super) const DEFAULT_GROUP: u64 = 1;
/// GitHub's own image has no command.
const JIT_COMMAND: &str = "/home/runner/run.sh";

/// A runner group of an organization or enterprise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunnerGroup {
    /// 1 is Default, the only group of a repository.
    Id(u64),
    Name(String),
}

/// A pool with everything it does not say itself taken from `[runner]` and
/// `[docker]`.
#[derive(Clone, Debug)]
pub(crate) struct PoolConfig {
    pub name: String,
    /// As written, `self-hosted` always among them.
    pub labels: Vec<String>,
    /// In their order: the first that holds wins.
    pub schedules: Vec<Schedule>,
    pub contract: RegistrationMethod,
    pub group: RunnerGroup,
    pub work_folder: String,
    pub stop_grace: Duration,
    pub container: Container,
    pub hooks: Vec<JobScript>,
    planner_pool: Pool,
}

impl PoolConfig {
    pub(crate) fn planner_pool(&self) -> &Pool {
        &self.planner_pool
    }

    /// Those of the pools that have schedules.
    pub(crate) fn timetables(pools: &[Self]) -> Vec<Timetable> {
        let with_schedules = pools.iter().enumerate().filter(|(_, it)| !it.schedules.is_empty());
        let timetable = |(index, it): (usize, &Self)| {
            Timetable::new(index, it.schedules.clone(), it.planner_pool.min_idle)
        };
        with_schedules.map(timetable).collect()
    }

    /// Empty: the image's own.
    pub(crate) fn command(&self) -> Vec<String> {
        self.container.command.clone().unwrap_or_else(|| match self.contract {
            RegistrationMethod::Jit => vec![JIT_COMMAND.to_owned()],
            RegistrationMethod::RegistrationToken => Vec::new(),
        })
    }

    fn new(
        name: String,
        runner: Runner,
        container: Container,
        hooks: Vec<JobScript>,
        repositories: Vec<RepositoryPattern>,
        schedules: Vec<Schedule>,
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
        let planner_pool = Pool {
            name: name.clone(),
            provider: 0,
            labels: labels.iter().map(|label| label.to_ascii_lowercase()).collect(),
            repositories,
            jobs_without_labels: runner.jobs_without_labels,
            scope: runner.scope,
            min_idle: runner.min_idle,
            max: runner.max,
            priority: runner.priority,
            limits: LifeLimits {
                provisioning_ms: ms(runner.provisioning_timeout_seconds),
                starting_ms: ms(runner.starting_timeout_seconds),
                idle_ms: ms(runner.idle_timeout_seconds),
                job_ms: ms(runner.job_timeout_seconds),
            },
        };
        Self {
            name,
            labels,
            schedules,
            contract: runner.contract,
            group,
            work_folder: runner.work_folder,
            stop_grace: Duration::from_secs(runner.stop_grace_seconds.into()),
            container,
            hooks,
            planner_pool,
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
            let hooks = self.read_hooks(&pointer, &container);
            let repositories = self.check_runner(&pointer, &runner);
            let schedules = self.check_schedules(&pointer, &runner.schedules);
            let pool = PoolConfig::new(name, runner, container, hooks, repositories, schedules);
            self.check_min_idle(&pointer, &pool);
            pools.push(pool);
        }
        pools
    }

    /// Gives a pool what it does not say itself. What is wrong with that is
    /// then a mistake in the section, not in the pool.
    fn inherit(&mut self, pool: &str, section: &str) {
        let Some(Value::Object(base)) = self.get(&format!("/{section}")).cloned() else {
            return;
        };
        for (field, value) in base {
            let inherited = child(pool, &field);
            if let Some(Value::Object(table)) = self.tree.pointer_mut(pool)
                && !table.contains_key(&field)
                && !other_way(&field).is_some_and(|other| table.contains_key(other))
            {
                table.insert(field.clone(), value);
                let from = format!("/{section}/{field}");
                self.set_origin(&inherited, Origin::Inherited(from));
            }
        }
    }

    fn pool_name(&mut self, pointer: &str, others: &[PoolConfig]) -> String {
        let place = format!("{pointer}/name");
        let name: Option<String> = self.read(&place);
        let Some(name) = name else {
            self.mistake(&place, "each pool needs a name of its own: write name = \"…\"");
            return String::new();
        };
        self.check_name(&place, &name);
        if others.iter().any(|other| other.name == name) {
            self.mistake(&place, "another pool has this name: write one of its own");
        }
        name
    }
}
