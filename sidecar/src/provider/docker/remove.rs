//! Removes a runner's container and everything that belongs to it.

use std::time::Duration;

use bollard::{
    errors::Error as Bollard,
    models::ContainerInspectResponse,
    query_parameters::{RemoveContainerOptions, StopContainerOptions},
};

use super::{Docker, from_bollard, launch::labels_of, within};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::Labels,
};

/// For Docker to kill and report after the grace period of a stop.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// For the whole removal beyond the grace period: disks may be slow.
const REMOVE_MARGIN: Duration = Duration::from_secs(300);

impl Docker {
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let call = format!("remove runner {runner}");
        within(grace + REMOVE_MARGIN, &call, self.remove_all(runner, grace)).await
    }

    async fn remove_all(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let with_leftovers = match self.inspect(runner).await {
            Ok(found) if Labels::from_map(labels_of(&found), &self.instance).is_some() => {
                self.remove_container(runner, grace).await?;
                has_dind(&found)
            }
            // Another installation's: ours was never created, but its Engine may have been.
            Ok(_) => true,
            Err(error) if error.kind == ErrorKind::Gone => true,
            Err(error) => return Err(error),
        };
        if !with_leftovers {
            return Ok(());
        }
        let (leftovers, mut failed) = self.leftovers(Some(runner)).await;
        for leftover in leftovers {
            failed.extend(self.remove_leftover(&leftover).await.err());
        }
        failed.into_iter().next().map_or(Ok(()), Err)
    }

    /// Asks the processes to end, kills them after `grace`, and removes the container with
    /// its anonymous volumes. A container that no longer exists, or that somebody else is
    /// removing, counts as removed.
    async fn remove_container(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let grace_s = grace.as_secs_f64().ceil() as i32;
        let patient = self.bollard.clone().with_timeout(grace + STOP_MARGIN);
        let stop = StopContainerOptions { signal: Some("SIGTERM".to_owned()), t: Some(grace_s) };
        match patient.stop_container(name, Some(stop)).await {
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            // The forced removal below ends those that do not stop.
            Ok(()) | Err(Bollard::DockerResponseServerError { .. }) => {}
            Err(error) => {
                return Err(from_bollard(&format!("stop container {name}"), &error));
            }
        }
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.bollard.remove_container(name, Some(options)).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(Bollard::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            Err(error) => Err(from_bollard(&format!("remove container {name}"), &error)),
        }
    }
}

/// It then shares the network of the other container.
fn has_dind(container: &ContainerInspectResponse) -> bool {
    let network = container.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
    network.is_some_and(|network| network.starts_with("container:"))
}
