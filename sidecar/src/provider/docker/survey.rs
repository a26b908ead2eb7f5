use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as Summary};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptions};

use super::{Cause, Docker, Error, Labels, labels};

/// A runner's container, in whatever state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub labels: Labels,
    pub container_id: String,
    pub image: String,
    pub state: ContainerState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ContainerState {
    Created,
    /// Also while paused, restarting or stopping: it has processes.
    Running,
    Exited {
        code: i64,
    },
    /// Being removed, or left over from a removal that failed.
    Removing,
}

impl Docker {
    pub(crate) async fn survey(&self, instance: &str) -> Result<Vec<Found>, Error> {
        let options = ListContainersOptions {
            all: true,
            filters: Some([Labels::filter(instance)].into()),
            ..Default::default()
        };
        let listed = self
            .bollard
            .list_containers(Some(options))
            .await
            .map_err(|error| Error::from_bollard("list containers", &error))?;
        let mut found = Vec::with_capacity(listed.len());
        for container in listed {
            if let Some(container) = self.read(container, instance).await? {
                found.push(container);
            }
        }
        Ok(found)
    }

    async fn read(
        &self,
        container: ContainerSummary,
        instance: &str,
    ) -> Result<Option<Found>, Error> {
        let map = container.labels.unwrap_or_default();
        if labels::is_dind(&map) {
            return Ok(None);
        }
        let (Some(labels), Some(container_id)) = (Labels::from_map(&map, instance), container.id)
        else {
            return Ok(None);
        };
        let state = match container.state {
            Some(Summary::CREATED) => ContainerState::Created,
            Some(Summary::EXITED) => match self.exit_code(&container_id).await {
                Ok(code) => ContainerState::Exited { code },
                Err(Error { cause: Cause::NoSuchContainer, .. }) => return Ok(None),
                Err(error) => return Err(error),
            },
            Some(Summary::REMOVING | Summary::DEAD) => ContainerState::Removing,
            _ => ContainerState::Running,
        };
        let image = container.image.unwrap_or_default();
        Ok(Some(Found { labels, container_id, image, state }))
    }

    /// The list holds it only inside a text for people.
    async fn exit_code(&self, id: &str) -> Result<i64, Error> {
        let container = self
            .bollard
            .inspect_container(id, None::<InspectContainerOptions>)
            .await
            .map_err(|error| Error::from_bollard("inspect container", &error))?;
        Ok(container.state.and_then(|state| state.exit_code).unwrap_or_default())
    }
}
