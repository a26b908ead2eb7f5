//! The state of one runner's container, and the wait for its end.

use std::{pin::pin, time::Duration};

use bollard::{
    errors::Error as Bollard,
    models::{ContainerInspectResponse, ContainerStateStatusEnum as Status},
    query_parameters::WaitContainerOptions,
};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::{Docker, error, from_bollard, launch::labels_of, short};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::{Instance, InstanceState},
    labels::Labels,
};
use edgerunner_scheduler::plan::ExitStatus;

impl Docker {
    /// `None` if this installation has no such runner. Bounded in time.
    pub(crate) async fn find(&self, runner: &str) -> Result<Option<Instance>, Error> {
        match self.inspect(runner).await {
            Ok(found) => Ok(self.instance_of(&found).await),
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The exit status of a runner that has started, as soon as it has ended; `None` if it still
    /// runs after `limit`.
    pub(crate) async fn wait(
        &self,
        runner: &str,
        limit: Duration,
    ) -> Result<Option<ExitStatus>, Error> {
        let call = format!("wait for container {runner}");
        let mut ends = pin!(self.bollard.wait_container(runner, None::<WaitContainerOptions>));
        let code = match timeout(limit, ends.next()).await {
            Err(_) => return Ok(None),
            Ok(Some(Ok(ended))) => ended.status_code,
            // What the client makes of every other exit code.
            Ok(Some(Err(Bollard::DockerContainerWaitError { code, .. }))) => code,
            Ok(Some(Err(error))) => return Err(from_bollard(&call, &error)),
            Ok(None) => {
                return Err(error(ErrorKind::Unavailable, &call, "Docker ended the response"));
            }
        };
        Ok(Some(self.status_of_ended(runner, code).await))
    }

    async fn instance_of(&self, found: &ContainerInspectResponse) -> Option<Instance> {
        let labels = Labels::from_map(labels_of(found), &self.instance)?;
        let status = found.state.as_ref().and_then(|state| state.status);
        let exited = match status {
            Some(Status::EXITED) => self.exit_status_of(found).await,
            _ => None,
        };
        let state = match (status, exited) {
            (Some(Status::CREATED), _) => InstanceState::Created,
            (Some(Status::EXITED), Some(status)) => InstanceState::Exited(status),
            (Some(Status::REMOVING | Status::DEAD), _) => InstanceState::Removing,
            _ => InstanceState::Running,
        };
        let id = short(found.id.as_deref().unwrap_or_default()).to_owned();
        Some(Instance { labels, id, node: None, state })
    }
}
