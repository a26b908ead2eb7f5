//! Runners whose launcher ended before them: another launcher on the same node waits for their end.
//!
//! Swarm itself would start a failed launcher a second time once another manager leads, and
//! perhaps elsewhere. So its service is removed at once.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{
    Swarm,
    service::Launcher,
    survey::Survey,
    task::{Task, TaskState},
};
use crate::{
    provider::{error::Error, labels::Labels, node_task::NodeTask},
    telemetry::metrics,
};

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Attendance {
    /// By runner.
    attended: Mutex<HashMap<String, Attended>>,
    /// Runners whose launcher Swarm has started a second time.
    second_starts: Mutex<HashSet<String>>,
    has_adopted: AtomicBool,
}

struct Attended {
    labels: Labels,
    /// ID of its node.
    node: String,
    /// ID of its second launcher's service; `None` while that is created.
    service: Option<String>,
    attempts: u32,
    /// It gets no other launcher any more.
    removing: bool,
}

impl Attended {
    /// By the launcher with this task.
    fn by(task: &Task, node: &str, attempts: u32) -> Self {
        let (labels, service) = (task.labels.clone(), Some(task.service.clone()));
        Self { labels, node: node.to_owned(), service, attempts, removing: false }
    }
}

/// A runner that no launcher will remove.
#[derive(Debug)]
pub(super) struct Unattended {
    pub labels: Labels,
    /// ID of its node.
    pub node: String,
}

impl Attendance {
    fn locked(&self) -> MutexGuard<'_, HashMap<String, Attended>> {
        self.attended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self) {
        self.locked().clear();
        self.has_adopted.store(false, Ordering::Relaxed);
    }

    /// The first time that it is noticed.
    fn is_second_start(&self, runner: &str) -> bool {
        let mut known = self.second_starts.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(runner.to_owned())
    }

    pub(super) fn contains(&self, runner: &str) -> bool {
        self.locked().contains_key(runner)
    }

    /// Labels, and IDs of nodes.
    pub(super) fn runners(&self) -> Vec<(Labels, String)> {
        self.locked().values().map(|it| (it.labels.clone(), it.node.clone())).collect()
    }

    /// Whether it may get another launcher.
    fn goes_on(&self, runner: &str) -> bool {
        self.locked().get(runner).is_some_and(|attended| !attended.removing)
    }

    /// From now on the runner gets no other launcher. `tasks`: all of the runner. Returns it if it
    /// may run although it has no launcher that removes it when its service is removed.
    pub(super) fn begin_removal(&self, runner: &str, tasks: &[Task]) -> Option<Unattended> {
        let mut all = self.locked();
        if let Some(Task { state: TaskState::Abandoned(_), node, .. }) = tasks.first() {
            let attended = || Attended::by(&tasks[0], node, 0);
            all.entry(runner.to_owned()).or_insert_with(attended);
        }
        let attended = all.get_mut(runner)?;
        attended.removing = true;
        let current = tasks.iter().find(|task| Some(&task.service) == attended.service.as_ref());
        match current.map(|task| &task.state) {
            Some(TaskState::Running | TaskState::Complete | TaskState::Orphaned) => None,
            _ => {
                attended.service = None;
                let (labels, node) = (attended.labels.clone(), attended.node.clone());
                Some(Unattended { labels, node })
            }
        }
    }

    /// The runner is removed.
    pub(super) fn end(&self, runner: &str) {
        self.second_starts.lock().unwrap_or_else(PoisonError::into_inner).remove(runner);
        self.locked().remove(runner);
    }

    /// The task that shows the state of a runner, whose tasks are in the order of their creation;
    /// `None` while it has no launcher.
    pub(super) fn current<'a>(&self, tasks: &'a [Task]) -> Option<&'a Task> {
        let first = tasks.first()?;
        match self.locked().get(&first.labels.runner) {
            None => Some(first),
            Some(Attended { service, .. }) => {
                tasks.iter().find(|task| Some(&task.service) == service.as_ref())
            }
        }
    }

    /// Takes over what an earlier process began, as the first survey shows it. Later ones may still
    /// list what was removed since.
    pub(super) fn adopt(&self, survey: &Survey) {
        if self.has_adopted.swap(true, Ordering::Relaxed) {
            return;
        }
        for task in survey.tasks.values().filter_map(|tasks| tasks.last()) {
            if let Some(node) = &task.attends_on {
                self.locked().insert(task.labels.runner.clone(), Attended::by(task, node, 1));
            }
        }
    }

    /// Returns how long to wait before the launcher is created; `None` if that is under way, or
    /// the runner is being removed.
    fn begin(&self, task: &Task) -> Option<Duration> {
        let mut all = self.locked();
        let attended = all
            .entry(task.labels.runner.clone())
            .or_insert_with(|| Attended::by(task, &task.node, 0));
        if attended.removing {
            return None;
        }
        attended.service.take()?;
        let wait = match attended.attempts {
            0 => Duration::ZERO,
            attempts => (FIRST_WAIT * (1 << (attempts - 1).min(10))).min(LONGEST_WAIT),
        };
        attended.attempts += 1;
        Some(wait)
    }

    fn created(&self, runner: &str, service: String) {
        if let Some(attended) = self.locked().get_mut(runner) {
            attended.service = Some(service);
        }
    }
}

impl Swarm {
    /// Starts other launchers where some ended early, for as long as it is polled. What an earlier
    /// call began is taken up from the Swarm's own records.
    pub(crate) async fn attend_abandoned(self) {
        self.shared.attendance.forget();
        let mut polled = self.shared.surveys.subscribe();
        let mut attending = FuturesUnordered::new();
        loop {
            tokio::select! {
                changed = polled.changed() => {
                    // Surveys end with the last clone of this Swarm.
                    if changed.is_err() {
                        return pending().await;
                    }
                    let latest = polled.borrow_and_update().clone();
                    let Some(Ok(survey)) = latest.map(|polled| polled.survey) else { continue };
                    self.shared.attendance.adopt(&survey);
                    for tasks in survey.tasks.values() {
                        attending.extend(self.check_tasks(tasks));
                    }
                }
                Some(()) = attending.next() => {}
            }
        }
    }

    /// Returns what starts another launcher, if one is needed.
    fn check_tasks(&self, tasks: &[Task]) -> Option<impl Future<Output = ()> + use<>> {
        let task = self.shared.attendance.current(tasks)?;
        let runner = &task.labels.runner;
        let attended = self.shared.attendance.contains(runner);
        if !attended
            && task.has_second_start(tasks)
            && self.shared.attendance.is_second_start(runner)
        {
            metrics::swarm_second_start(&task.labels.pool);
            warn!(runner, "Docker Swarm has started its launcher a second time");
        }
        let why = match &task.state {
            TaskState::Abandoned(why) => why,
            TaskState::NotStarted(why) if attended => why,
            _ => return None,
        };
        if self.shared.launches.contains(runner) || self.shared.removals.contains(runner) {
            return None;
        }
        let wait = self.shared.attendance.begin(task)?;
        warn!(
            runner,
            node = task.node,
            why,
            "the launcher of a runner ended early: starting another"
        );
        let (swarm, task) = (self.clone(), task.clone());
        Some(async move {
            sleep(wait).await;
            let mut wait = FIRST_WAIT;
            while swarm.shared.attendance.goes_on(&task.labels.runner) {
                match swarm.attend(&task).await {
                    Ok(service) => {
                        info!(runner = task.labels.runner, "its end is waited for again");
                        return swarm.shared.attendance.created(&task.labels.runner, service);
                    }
                    Err(error) => {
                        warn!(runner = task.labels.runner, %error, "no other launcher yet");
                    }
                }
                sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        })
    }

    /// The resources that the runner takes are no longer reserved: a job that waits for them must
    /// not keep its launcher away. Returns the ID of the service.
    async fn attend(&self, task: &Task) -> Result<String, Error> {
        let runner = &task.labels.runner;
        // Until there is another launcher, its labels are on record here alone.
        self.unusable_nodes().await?;
        self.delete(runner).await?;
        let node = task.attends_on.as_ref().unwrap_or(&task.node);
        let launcher = Launcher {
            attends_on: Some(node.clone()),
            ..Launcher::on_node(runner.clone(), &task.labels, node, task.stop_grace)
        };
        let order = NodeTask::Attend { labels: task.labels.clone(), stop_grace: task.stop_grace };
        let service = self.create(&launcher, &order).await;
        if !self.shared.attendance.goes_on(runner) {
            // It is being removed, or was, since.
            self.delete(runner).await?;
        }
        service
    }
}
