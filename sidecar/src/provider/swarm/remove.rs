//! Removes a runner: its launcher's service, at whose end the launcher removes everything on its
//! node. Where the launcher ended before its runner, another one does so.

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};

use super::{
    Swarm, attend::Unattended, error::error, reports, service::Launcher, survey::Survey,
    task::TaskState,
};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::Labels,
    node_task::NodeTask,
    report::Report,
};

/// Beyond the grace period: for the launcher to remove its runner, and for the managers to notice.
const REMOVE_MARGIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(500);

impl Swarm {
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let _removing = self.shared.removals.begin(runner);
        // Before the service, which a launcher that attends to it would have again.
        let survey = self.survey_before_removal(runner).await?;
        let tasks = survey.tasks.get(runner).map(Vec::as_slice).unwrap_or_default();
        let unattended = self.shared.attendance.begin_removal(runner, tasks);
        self.delete(runner).await?;
        let call = format!("remove runner {runner}");
        let late =
            || Err(error(ErrorKind::Unavailable, &call, "its node has not removed it in time"));
        let gone = self.gone(runner);
        timeout(grace + REMOVE_MARGIN, gone).await.unwrap_or_else(|_| late())?;
        if let Some(unattended) = unattended {
            self.remove_unattended(runner, &unattended, grace, &call).await?;
        }
        self.shared.attendance.end(runner);
        self.exit_statuses().remove(runner);
        Ok(())
    }

    /// A new one, unless the last one shows that the runner has ended.
    async fn survey_before_removal(&self, runner: &str) -> Result<Arc<Survey>, Error> {
        if let Some(Ok(survey)) = self.shared.surveys.latest() {
            let tasks = survey.tasks.get(runner);
            let current = tasks.and_then(|tasks| self.shared.attendance.current(tasks));
            if current.is_some_and(|task| task.state == TaskState::Complete) {
                return Ok(survey);
            }
        }
        self.shared.surveys.fresh().await
    }

    /// Returns once none of its launchers runs, as far as can be known.
    async fn gone(&self, runner: &str) -> Result<(), Error> {
        loop {
            let survey = self.shared.surveys.fresh().await?;
            let Some(tasks) = survey.tasks.get(runner) else { return Ok(()) };
            let is_left = |state: &TaskState| {
                matches!(state, TaskState::Running | TaskState::Launching | TaskState::Orphaned)
            };
            let mut left = tasks.iter().filter(|task| is_left(&task.state));
            if left.all(|task| survey.nodes.get(&task.node).is_none_or(|node| node.is_down())) {
                // A launcher that ended early removed nothing, and a node that is down removes
                // it once it is back.
                self.shared.sweeps.want();
                return Ok(());
            }
            sleep(POLL_EVERY).await;
        }
    }

    async fn remove_unattended(
        &self,
        runner: &str,
        Unattended { labels, node }: &Unattended,
        grace: Duration,
        call: &str,
    ) -> Result<(), Error> {
        let survey = self.shared.surveys.fresh().await?;
        let Some(found) = survey.nodes.get(node).filter(|node| !node.is_down()) else {
            // Once it is back.
            self.shared.sweeps.want();
            return Ok(());
        };
        if !found.is_active() {
            let what = format_args!(
                "its launcher has ended, and no other can start on node {name}, which is drained \
                 or paused: run `edgerunner nodes resume {name}`, or remove container {runner} there",
                name = found.name(),
            );
            return Err(error(ErrorKind::Refused, call, what));
        }
        let name = format!("{runner}-remove");
        let _helper = self.shared.helpers.begin(&name);
        let of_none = Labels { instance: self.shared.owner.clone(), ..Labels::default() };
        let launcher = Launcher::on_node(name.clone(), &of_none, node, Duration::ZERO);
        let task = NodeTask::Remove { labels: labels.clone(), stop_grace: grace };
        // One that an earlier try left.
        self.delete(&name).await?;
        self.create(&launcher, &task).await?;
        let limit = grace + REMOVE_MARGIN;
        let mut reports = reports::answers(&self.shared.managers, &name, 1, limit).await;
        // Whatever became of it.
        let deleted = self.delete(&name).await;
        match reports.pop() {
            Some(Report::Ended { .. }) => deleted,
            Some(Report::Failed { kind, message }) => Err(error(kind, call, message)),
            _ => Err(error(ErrorKind::Unavailable, call, "its node has not removed it in time")),
        }
    }
}
