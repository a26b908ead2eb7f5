//! Underway a runner: creates its launcher's service, and waits until the launcher reports that the
//! runner runs.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::BoxStream};
use tokio::time::{Instant, timeout};

use super::{
    Swarm,
    error::error,
    reports,
    service::Launcher,
    survey::Polled,
    task::{Task, TaskState},
};
use crate::provider::{
    OnWait,
    error::{Error, ErrorKind},
    instance::Launched,
    node_task::NodeTask,
    order::Order,
    report::Report,
};

/// How long a launcher may run before its log is read from the start again.
/// Doubled each time: it may be pulling an image.
const FOLLOW_AGAIN: Duration = Duration::from_secs(2);
const FOLLOW_AGAIN_MAX: Duration = Duration::from_secs(15);
/// For a survey that shows the node of a runner that has started.
const NODE_LIMIT: Duration = Duration::from_secs(3);
/// Lists in a row that may lack the task of a service that was just created.
const MISSING_MAX: u32 = 3;

/// Names of services that somebody waits for.
#[derive(Default)]
pub(super) struct Underway(Mutex<HashSet<String>>);

pub(super) struct Guard<'a>(&'a Underway, String);

impl Underway {
    pub(super) fn begin(&self, runner: &str) -> Guard<'_> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(runner.to_owned());
        Guard(self, runner.to_owned())
    }

    pub(super) fn contains(&self, runner: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(runner)
    }
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Swarm {
    pub(crate) async fn launch(
        &self,
        order: &Order,
        on_wait: OnWait<'_>,
    ) -> Result<Launched, Error> {
        let runner = order.labels.runner.clone();
        let _launching = self.shared.launches.begin(&runner);
        let mut order = order.clone();
        order.labels.instance.clone_from(&self.shared.owner);
        let launcher = Launcher::of_order(&order);
        self.create(&launcher, &NodeTask::Run(order.clone())).await?;
        self.started(&runner, on_wait).await
    }

    async fn started(&self, runner: &str, on_wait: OnWait<'_>) -> Result<Launched, Error> {
        let created_at = Instant::now();
        let call = format!("launch {runner}");
        let mut polled = self.shared.surveys.subscribe();
        let mut reports: Option<BoxStream<'_, Report>> =
            Some(reports::follow(&self.shared.managers, runner).boxed());
        let (mut followed_since, mut follow_again) = (Instant::now(), FOLLOW_AGAIN);
        let mut waits = None;
        let mut missing = 0;
        loop {
            let next = async {
                match &mut reports {
                    Some(reports) => reports.next().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                report = next => match report {
                    Some(report) => return self.launched(runner, &call, Some(report)).await,
                    // The next survey shows whether there is something to read.
                    None => reports = None,
                },
                changed = polled.changed() => {
                    if changed.is_err() {
                        return Err(error(ErrorKind::Unavailable, &call, "shutting down"));
                    }
                    let Some(Polled { requested_at, survey: Ok(survey) }) =
                        polled.borrow_and_update().clone()
                    else {
                        continue;
                    };
                    if requested_at < created_at {
                        continue;
                    }
                    let Some(task) = survey.tasks.get(runner).and_then(|tasks| tasks.first()) else {
                        missing += 1;
                        if missing >= MISSING_MAX {
                            return Err(error(ErrorKind::Gone, &call, "its service is gone"));
                        }
                        continue;
                    };
                    missing = 0;
                    let no_room = match &task.state {
                        TaskState::NoRoom(why) => Some(why.clone()),
                        _ => None,
                    };
                    if no_room != waits {
                        on_wait(no_room.clone());
                        waits = no_room;
                    }
                    match &task.state {
                        TaskState::NoRoom(_) | TaskState::Launching | TaskState::Orphaned => {}
                        // A log that is followed from before its task runs may stay silent.
                        TaskState::Running => {
                            if reports.is_none() || followed_since.elapsed() >= follow_again {
                                let again = reports::follow(&self.shared.managers, runner);
                                (reports, followed_since) = (Some(again.boxed()), Instant::now());
                                follow_again = (follow_again * 2).min(FOLLOW_AGAIN_MAX);
                            }
                        }
                        TaskState::Complete | TaskState::NotStarted(_) | TaskState::Abandoned(_) => {
                            let report = reports::last(&self.shared.managers, runner).await;
                            return match (report, &task.state) {
                                (None, TaskState::NotStarted(why) | TaskState::Abandoned(why)) => {
                                    Err(self.not_started(&call, why))
                                }
                                (report, _) => self.launched(runner, &call, report).await,
                            };
                        }
                    }
                }
            }
        }
    }

    /// `report`: the first one that was seen. Without one the log is lost, and the launcher has
    /// carried out its order.
    async fn launched(
        &self,
        runner: &str,
        call: &str,
        report: Option<Report>,
    ) -> Result<Launched, Error> {
        let id = match report {
            Some(Report::Started { container }) => container,
            Some(Report::Ended { .. }) | None => runner.to_owned(),
            Some(Report::Failed { kind, message }) => return Err(Error { kind, message }),
            Some(Report::Refused { message }) => {
                return Err(error(ErrorKind::Refused, call, message));
            }
            Some(other @ (Report::Log { .. } | Report::Swept { .. })) => {
                let what = format_args!("unexpected report {other:?}");
                return Err(error(ErrorKind::Refused, call, what));
            }
        };
        // The report may come before a survey that shows where it came from.
        let mut node = self.node_of(runner);
        if node.is_none() {
            let _ = timeout(NODE_LIMIT, self.shared.surveys.fresh()).await;
            node = self.node_of(runner);
        }
        Ok(Launched { id, node })
    }

    /// The name of a runner's node, as the last survey has it.
    pub(super) fn node_of(&self, runner: &str) -> Option<String> {
        let survey = self.shared.surveys.latest()?.ok()?;
        let task: &Task = survey.tasks.get(runner)?.last()?;
        Some(survey.nodes.get(&task.node)?.name().to_owned())
    }

    /// The launcher itself could not run.
    fn not_started(&self, call: &str, why: &str) -> Error {
        let image = &self.shared.config.launcher_image;
        if why.to_ascii_lowercase().contains("image") {
            let what = format_args!(
                "{why}; the node must have the image {image} or be able to pull it: correct \
                 swarm.launcher_image, or add its registry to [[registries]]"
            );
            return error(ErrorKind::Image, call, what);
        }
        error(ErrorKind::Refused, call, format_args!("the launcher ended early: {why}"))
    }
}
