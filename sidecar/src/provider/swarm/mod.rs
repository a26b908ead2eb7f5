//! Runners on the nodes of a Docker Swarm (Engine 23.0.3 or later).
//!
//! Swarm only chooses the node. Each runner has a service in job mode, whose one container is a
//! launcher: `edgerunner launch` with the node's own Docker socket. The launcher carries out the
//! same order by the same code as [`Docker`](super::docker::Docker) does on one machine, so
//! every setting of a pool works alike. What runs is its own record: the labels of the launchers.

mod attend;
mod error;
mod launch;
mod managers;
mod node;
mod remove;
mod reports;
mod service;
mod survey;
mod sweep;
mod task;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bollard::{
    errors::Error as Bollard,
    models::NodeSpecAvailabilityEnum,
    query_parameters::{InspectServiceOptions, UpdateNodeOptions},
};
use futures_util::{
    FutureExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use tokio::{
    spawn,
    sync::{Semaphore, watch},
};

use self::{
    attend::Attendance,
    error::error,
    launch::Underway,
    managers::Managers,
    service::Launcher,
    survey::{Polled, Survey, Surveys},
    sweep::NodeSweeps,
    task::{Task, TaskState},
};
use super::{
    docker::image::credentials,
    error::{Error, ErrorKind},
    instance::{Exit, Instance, InstanceState},
    labels::Labels,
    node::Node,
    node_task::NodeTask,
    order::RegistryLogin,
    report::Report,
};
use crate::config::{Registry, SwarmConfig};
use edgerunner_scheduler::plan::ExitStatus;

/// The log of one runner, from its node.
const LOG_LIMIT: Duration = Duration::from_secs(30);
/// Reports that are read at once.
const REPORTS_AT_ONCE_MAX: usize = 32;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Swarm {
    shared: Arc<Shared>,
}

struct Shared {
    config: SwarmConfig,
    /// The label of services and secrets.
    instance: String,
    /// The label of launchers and of what they create on their nodes: the Engine of a manager may
    /// run runners of its own.
    owner: String,
    /// For the registry of the launcher's image.
    login: Option<RegistryLogin>,
    managers: Arc<Managers>,
    surveys: Surveys,
    /// Those of runners whose end was reported.
    exit_statuses: Mutex<HashMap<String, ExitStatus>>,
    launches: Underway,
    /// Their launchers may end as if they had been killed.
    removals: Underway,
    /// Names of services that carry out something else than a runner's order.
    helpers: Underway,
    attendance: Attendance,
    sweeps: NodeSweeps,
    /// Permits to read the reports of runners that have ended.
    reads: Semaphore,
    /// Logs that were read, for unique names.
    logs: AtomicU64,
}

impl Swarm {
    /// Starts to poll, and changes nothing. The managers may be away.
    pub(crate) fn connect(config: &SwarmConfig, instance: &str, registries: &[Registry]) -> Self {
        let owner = format!("{instance}.swarm");
        let managers = Arc::new(Managers::new(&config.managers));
        let surveys = Surveys::start(Arc::clone(&managers), instance.to_owned(), owner.clone());
        Self {
            shared: Arc::new(Shared {
                config: config.clone(),
                instance: instance.to_owned(),
                owner,
                login: RegistryLogin::find(registries, &config.launcher_image),
                managers,
                surveys,
                exit_statuses: Mutex::default(),
                launches: Underway::default(),
                removals: Underway::default(),
                helpers: Underway::default(),
                attendance: Attendance::default(),
                sweeps: NodeSweeps::default(),
                reads: Semaphore::new(REPORTS_AT_ONCE_MAX),
                logs: AtomicU64::default(),
            }),
        }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        let survey = self.shared.surveys.fresh().await?;
        self.exit_statuses().retain(|runner, _| survey.tasks.contains_key(runner));
        self.shared.attendance.adopt(&survey);
        let ended = survey.tasks.values().filter_map(|tasks| {
            let task = self.shared.attendance.current(tasks)?;
            (task.state == TaskState::Complete).then(|| task.clone())
        });
        let statuses: HashMap<String, ExitStatus> = stream::iter(ended.collect::<Vec<_>>())
            .map(|task| async move {
                let status = self.exit_status(&task).await;
                (task.labels.runner, status)
            })
            .buffer_unordered(REPORTS_AT_ONCE_MAX)
            .collect()
            .await;
        let mut instances: Vec<Instance> = survey
            .tasks
            .values()
            .filter_map(|tasks| {
                let task = self.shared.attendance.current(tasks)?;
                let state = self.state(task, &survey, statuses.get(&task.labels.runner).copied());
                let node = survey.nodes.get(&task.node).map(|node| node.name().to_owned());
                Some(Instance { labels: task.labels.clone(), id: task.id.clone(), node, state })
            })
            .collect();
        // Between two launchers a runner has no task.
        let listed: HashSet<String> =
            instances.iter().map(|instance| instance.labels.runner.clone()).collect();
        for (labels, node) in self.shared.attendance.runners() {
            if !listed.contains(&labels.runner) {
                let node = survey.nodes.get(&node);
                instances.push(Instance {
                    id: labels.runner.clone(),
                    labels,
                    node: node.map(|node| node.name().to_owned()),
                    state: match node {
                        Some(node) if !node.is_down() => InstanceState::Running,
                        _ => InstanceState::Unreachable,
                    },
                });
            }
        }
        Ok(instances)
    }

    fn state(&self, task: &Task, survey: &Survey, status: Option<ExitStatus>) -> InstanceState {
        let is_down = survey.nodes.get(&task.node).is_none_or(|node| node.is_down());
        let attended = self.shared.attendance.contains(&task.labels.runner);
        match &task.state {
            TaskState::Complete => InstanceState::Exited(status.unwrap_or_else(|| 0.into())),
            TaskState::Orphaned if !attended => InstanceState::Unreachable,
            TaskState::NoRoom(_) | TaskState::Launching | TaskState::NotStarted(_) if !attended => {
                InstanceState::Created
            }
            // A launcher that attends to a runner on a drained node has no node yet.
            _ if is_down => InstanceState::Unreachable,
            _ => InstanceState::Running,
        }
    }

    /// That of a runner whose launcher is complete; code 0 if its report is lost.
    async fn exit_status(&self, task: &Task) -> ExitStatus {
        let runner = &task.labels.runner;
        if let Some(status) = self.exit_statuses().get(runner) {
            return *status;
        }
        let report = reports::last(&self.shared.managers, runner).await;
        let Some(Report::Ended { exit_code, out_of_memory, .. }) = report else { return 0.into() };
        let status = ExitStatus { code: exit_code.unwrap_or_default(), out_of_memory };
        self.exit_statuses().insert(runner.clone(), status);
        status
    }

    fn exit_statuses(&self) -> MutexGuard<'_, HashMap<String, ExitStatus>> {
        self.shared.exit_statuses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn exits(&self) -> impl Stream<Item = Result<Exit, Error>> + Send + use<> {
        let exits = Exits {
            swarm: self.clone(),
            polled: self.shared.surveys.subscribe(),
            reported: HashSet::new(),
            reading: FuturesUnordered::new(),
            failed: false,
        };
        stream::unfold(exits, |mut exits| async {
            let next = exits.next().await?;
            Some((next, exits))
        })
    }

    pub(crate) async fn log(&self, runner: &str, lines: usize) -> Result<String, Error> {
        let call = format!("read the log of {runner}");
        let survey = self.shared.surveys.fresh().await?;
        let Some(task) = survey.tasks.get(runner).and_then(|tasks| tasks.first()) else {
            return Err(error(ErrorKind::Gone, &call, "it has no task"));
        };
        if let TaskState::Complete | TaskState::NotStarted(_) | TaskState::Abandoned(_) = task.state
        {
            return match reports::last(&self.shared.managers, runner).await {
                Some(Report::Ended { log, .. }) => Ok(log),
                _ => Err(error(ErrorKind::Gone, &call, "its launcher has not reported it")),
            };
        }
        if task.node.is_empty() {
            return Err(error(ErrorKind::Gone, &call, "it has no node yet"));
        }
        let (this, node, runner) = (self.clone(), task.node.clone(), runner.to_owned());
        // It goes on if nobody waits for the log any more: its launcher would be left over.
        let reading = spawn(async move { this.log_on_node(runner, &node, lines).await });
        reading.await.unwrap_or_else(|stopped| Err(error(ErrorKind::Unavailable, &call, stopped)))
    }

    async fn log_on_node(&self, runner: String, node: &str, lines: usize) -> Result<String, Error> {
        let call = format!("read the log of {runner}");
        let number = self.shared.logs.fetch_add(1, Ordering::Relaxed);
        let name = format!("{runner}-log-{number}");
        let _helper = self.shared.helpers.begin(&name);
        let labels = Labels {
            runner: String::new(),
            instance: self.shared.owner.clone(),
            ..Labels::default()
        };
        let launcher = Launcher::on_node(name.clone(), &labels, node, Duration::ZERO);
        let order = NodeTask::Log { instance: self.shared.owner.clone(), runner, lines };
        self.create(&launcher, &order).await?;
        let mut reports = reports::answers(&self.shared.managers, &name, 1, LOG_LIMIT).await;
        // Whatever became of it.
        let removed = self.delete(&name).await;
        match reports.pop() {
            Some(Report::Log { log }) => removed.map(|()| log),
            Some(Report::Failed { kind, message }) => Err(error(kind, &call, message)),
            _ => Err(error(ErrorKind::Unavailable, &call, "its node has not sent it in time")),
        }
    }

    /// All nodes, by name.
    pub(crate) async fn nodes(&self) -> Result<Vec<Node>, Error> {
        let survey = self.shared.surveys.recent().await?;
        let mut on_node: HashMap<&str, Vec<&Task>> = HashMap::new();
        let attended = self.shared.attendance.runners();
        let is_attended = |runner: &str| attended.iter().any(|(labels, _)| labels.runner == runner);
        for task in survey.tasks.values().filter_map(|tasks| tasks.first()) {
            if !is_attended(&task.labels.runner) {
                on_node.entry(&task.node).or_default().push(task);
            }
        }
        let mut nodes: Vec<Node> = survey
            .nodes
            .values()
            .map(|node| {
                let mut shown = node.to_node(on_node.get(&*node.id).into_iter().flatten().copied());
                // Whatever their second launcher does: on a drained node it waits.
                shown.runners += attended.iter().filter(|(_, on)| *on == node.id).count();
                shown
            })
            .collect();
        nodes.sort_by(|one, other| (&one.name, &one.id).cmp(&(&other.name, &other.id)));
        Ok(nodes)
    }

    /// While a node is drained nothing new is launched there, and its runners finish. `node` is a
    /// name or an ID.
    pub(crate) async fn drain_node(&self, node: &str, drain: bool) -> Result<(), Error> {
        let call = format!("change the availability of node {node}");
        let found = self.node_id(node, &call).await?;
        let changed = self.shared.managers.call(&call, |connection| {
            let id = found.clone();
            async move {
                let known = connection.bollard.inspect_node(&id).await?;
                let version = known.version.and_then(|it| it.index).unwrap_or_default();
                let availability = match drain {
                    true => NodeSpecAvailabilityEnum::DRAIN,
                    false => NodeSpecAvailabilityEnum::ACTIVE,
                };
                let mut spec = known.spec.unwrap_or_default();
                spec.availability = Some(availability);
                let version =
                    UpdateNodeOptions { version: i64::try_from(version).unwrap_or_default() };
                connection.bollard.update_node(&id, spec, version).await
            }
        });
        changed.await?;
        // Whoever lists the nodes next sees the change.
        let _ = self.shared.surveys.fresh().await;
        Ok(())
    }

    async fn node_id(&self, node: &str, call: &str) -> Result<String, Error> {
        let survey = self.shared.surveys.fresh().await?;
        let mut found = survey.nodes.values().filter(|it| it.id == node || it.name() == node);
        match (found.next(), found.next()) {
            (Some(one), None) => Ok(one.id.clone()),
            (Some(_), Some(_)) => {
                let what = "several nodes have this name: use the ID";
                Err(error(ErrorKind::Refused, call, what))
            }
            (None, _) => {
                let mut names: Vec<&str> = survey.nodes.values().map(|node| node.name()).collect();
                names.sort_unstable();
                let what = format_args!("no such node; there are: {}", names.join(", "));
                Err(error(ErrorKind::Gone, call, what))
            }
        }
    }

    /// Creates a launcher's service and the secret with its order. Both may exist already. Returns
    /// the ID of the service.
    async fn create(&self, launcher: &Launcher<'_>, order: &NodeTask) -> Result<String, Error> {
        let shared = &*self.shared;
        let name = &launcher.name;
        let without = self.unusable_nodes().await?;
        let call = format!("create the secret of {name}");
        let order =
            serde_json::to_vec(order).map_err(|cause| error(ErrorKind::Refused, &call, cause))?;
        let secret = launcher.to_secret(&shared.instance, &order);
        let created = shared.managers.call(&call, |connection| {
            let (secret, name) = (secret.clone(), name.clone());
            async move {
                match connection.bollard.create_secret(secret).await {
                    Ok(created) => Ok(created.id),
                    // By an earlier try whose answer was lost.
                    Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                        Ok(connection.bollard.inspect_secret(&name).await?.id.unwrap_or_default())
                    }
                    Err(error) => Err(error),
                }
            }
        });
        let secret = created.await?;
        let service = launcher.to_service(&shared.config, &shared.instance, &secret, &without);
        let call = format!("create service {name}");
        let created = shared.managers.call(&call, |connection| {
            let (service, credentials) = (service.clone(), shared.login.as_ref().map(credentials));
            let name = name.clone();
            async move {
                match connection.bollard.create_service(service, credentials).await {
                    Ok(created) => Ok((created.id, created.warnings)),
                    Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                        let found = connection
                            .bollard
                            .inspect_service(&name, None::<InspectServiceOptions>)
                            .await?;
                        Ok((found.id, None))
                    }
                    Err(error) => Err(error),
                }
            }
        });
        let (id, warnings) = created.await?;
        for warning in warnings.unwrap_or_default() {
            tracing::warn!(service = name, warning, "Docker Swarm warns about a service");
        }
        shared.surveys.hasten();
        Ok(id.unwrap_or_default())
    }

    /// Deletes a launcher's service and its secret, if they exist.
    async fn delete(&self, name: &str) -> Result<(), Error> {
        let call = format!("remove service {name}");
        let removed = self.shared.managers.call(&call, |connection| {
            let name = name.to_owned();
            async move { connection.bollard.delete_service(&name).await }
        });
        absent_is_fine(removed.await)?;
        let call = format!("remove the secret of {name}");
        let removed = self.shared.managers.call(&call, |connection| {
            let name = name.to_owned();
            async move { connection.bollard.delete_secret(&name).await }
        });
        absent_is_fine(removed.await)
    }

    /// IDs of nodes that nothing may be launched on.
    async fn unusable_nodes(&self) -> Result<Vec<String>, Error> {
        let survey = self.shared.surveys.recent().await?;
        if let Some(old) = survey.nodes.values().find(|node| node.is_manager() && node.is_too_old())
        {
            let what = format_args!(
                "manager {} has Docker Engine {}: 23.0.3 or newer is required",
                old.name(),
                old.engine(),
            );
            return Err(error(ErrorKind::Unavailable, "launch", what));
        }
        let old = survey.nodes.values().filter(|node| node.is_too_old());
        Ok(old.map(|node| node.id.clone()).collect())
    }
}

fn absent_is_fine(removed: Result<(), Error>) -> Result<(), Error> {
    match removed {
        Err(error) if error.kind == ErrorKind::Gone => Ok(()),
        removed => removed,
    }
}

/// The stream of exits.
struct Exits {
    swarm: Swarm,
    polled: watch::Receiver<Option<Polled>>,
    /// Those whose tasks are still listed.
    reported: HashSet<String>,
    /// One whose log is slow must not delay the others.
    reading: FuturesUnordered<BoxFuture<'static, Exit>>,
    failed: bool,
}

impl Exits {
    async fn next(&mut self) -> Option<Result<Exit, Error>> {
        if self.failed {
            return None;
        }
        loop {
            tokio::select! {
                Some(exit) = self.reading.next() => return Some(Ok(exit)),
                changed = self.polled.changed() => {
                    // The sender lives as long as the Swarm does.
                    changed.ok()?;
                    let polled = self.polled.borrow_and_update().clone();
                    match polled.map(|polled| polled.survey) {
                        Some(Ok(survey)) => self.read(&survey),
                        Some(Err(error)) => {
                            self.failed = true;
                            return Some(Err(error));
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn read(&mut self, survey: &Survey) {
        self.reported.retain(|runner| survey.tasks.contains_key(runner));
        let attendance = &self.swarm.shared.attendance;
        for task in survey.tasks.values().filter_map(|tasks| attendance.current(tasks)) {
            if task.state == TaskState::Complete && self.reported.insert(task.labels.runner.clone())
            {
                let (swarm, task) = (self.swarm.clone(), task.clone());
                let read = async move {
                    let _permit = swarm.shared.reads.acquire().await;
                    let status = swarm.exit_status(&task).await;
                    Exit { runner: task.labels.runner, status }
                };
                self.reading.push(read.boxed());
            }
        }
    }
}
