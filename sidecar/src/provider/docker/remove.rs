//! Removes a runner's container and everything that belongs to it.

use std::time::Duration;

use bollard::{
    errors::Error as Bollard,
    models::{ContainerInspectResponse, ContainerStateStatusEnum},
    query_parameters::{RemoveContainerOptions, StopContainerOptions},
};
use tokio::time::{Instant, sleep};

use super::{Docker, error, from_bollard, launch::labels_of, within};
use crate::provider::{
    error::{Error, ErrorKind},
    labels::Labels,
};

/// For Docker to kill and report after the grace period of a stop.
const STOP_MARGIN: Duration = Duration::from_secs(60);
/// For the whole removal beyond the grace period: disks may be slow.
const REMOVE_MARGIN: Duration = Duration::from_secs(300);
/// For a removal that is already in progress: Docker unmounts and deletes the files.
const IN_PROGRESS_LIMIT: Duration = Duration::from_secs(10);
const POLL_EVERY: Duration = Duration::from_millis(200);

impl Docker {
    pub(crate) async fn remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let call = format!("remove runner {runner}");
        within(grace + REMOVE_MARGIN, &call, self.remove_all(runner, grace)).await
    }

    async fn remove_all(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        let with_leftovers = match self.inspect(runner).await {
            Ok(found) if Labels::from_map(labels_of(&found), &self.instance).is_some() => {
                self.remove_container(runner, grace).await?;
                has_dind(&found) || has_tool_cache(&found)
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

    /// Stops the container, and removes it with its anonymous volumes.
    async fn remove_container(&self, name: &str, grace: Duration) -> Result<(), Error> {
        self.stop(name, grace).await?;
        self.delete_container(name).await
    }

    /// Asks the processes to end, and kills them after `grace`. Processes that survive it end
    /// with the removal.
    pub(crate) async fn stop(&self, name: &str, grace: Duration) -> Result<(), Error> {
        let grace_s = grace.as_secs_f64().ceil() as i32;
        let patient = self.bollard.clone().with_timeout(grace + STOP_MARGIN);
        let stop = StopContainerOptions { signal: Some("SIGTERM".to_owned()), t: Some(grace_s) };
        match patient.stop_container(name, Some(stop)).await {
            // What Docker refuses to stop, the forced removal ends.
            Ok(()) | Err(Bollard::DockerResponseServerError { .. }) => Ok(()),
            Err(error) => Err(from_bollard(&format!("stop container {name}"), &error)),
        }
    }

    /// Removes a container by force. Whatever Docker answers, the container is removed once
    /// Docker no longer has it, and not before.
    pub(super) async fn delete_container(&self, container: &str) -> Result<(), Error> {
        let call = format!("remove container {container}");
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let refusal = match self.bollard.remove_container(container, Some(options)).await {
            Ok(()) => None,
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            Err(Bollard::DockerResponseServerError { status_code, message }) => {
                Some(format!("{status_code} {}", message.trim()))
            }
            Err(error) => return Err(from_bollard(&call, &error)),
        };
        // Another removal may be about to end.
        let deadline = Instant::now() + IN_PROGRESS_LIMIT;
        loop {
            match self.inspect(container).await {
                Err(error) if error.kind == ErrorKind::Gone => return Ok(()),
                Ok(found) if is_removing(&found) && Instant::now() < deadline => {
                    sleep(POLL_EVERY).await;
                }
                Err(error) if refusal.is_none() => return Err(error),
                Ok(_) | Err(_) => break,
            }
        }
        let still = || "Docker reports that it is removed, but still has it".to_owned();
        let refusal = refusal.unwrap_or_else(still);
        let what = format_args!("{refusal}; if this persists, restart Docker");
        Err(error(ErrorKind::Refused, &call, what))
    }
}

fn is_removing(container: &ContainerInspectResponse) -> bool {
    let status = container.state.as_ref().and_then(|state| state.status);
    status == Some(ContainerStateStatusEnum::REMOVING)
}

/// A volume records that it has one.
fn has_tool_cache(container: &ContainerInspectResponse) -> bool {
    let mounts = container.host_config.as_ref().and_then(|host| host.mounts.as_ref());
    mounts.is_some_and(|mounts| !mounts.is_empty())
}

/// It then shares the network of the other container.
pub(super) fn has_dind(container: &ContainerInspectResponse) -> bool {
    let network = container.host_config.as_ref().and_then(|host| host.network_mode.as_deref());
    network.is_some_and(|network| network.starts_with("container:"))
}
