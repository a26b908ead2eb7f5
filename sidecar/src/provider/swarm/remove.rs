//! Removes a runner: its launcher's service, at whose end the launcher removes everything on its
//! node.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Swarm, error::error, task::TaskState};
use crate::provider::error::{Error, ErrorKind};

/// Beyond the grace period: for the launcher to remove its runner, and for the managers to notice.
const REMOVE_MARGIN: Duration = Duration::from_secs(300);
const POLL_EVERY: Duration = Duration::from_millis(500);

impl Swarm {
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let _removing = self.shared.removals.begin(runner);
        // Before the service, which it would create again.
        if self.shared.attendance.end(runner) {
            self.shared.sweeps.want();
        }
        self.delete(runner).await?;
        self.exit_codes().remove(runner);
        let gone = async {
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
        };
        let call = format!("remove runner {runner}");
        let late =
            || Err(error(ErrorKind::Unavailable, &call, "its node has not removed it in time"));
        timeout(grace + REMOVE_MARGIN, gone).await.unwrap_or_else(|_| late())
    }
}
