//! Lists the runners' containers.

use bollard::{
    models::{ContainerSummary, ContainerSummaryStateEnum as Summary},
    query_parameters::ListContainersOptions,
};
use tracing::warn;

use super::{CALL_LIMIT, Docker, from_bollard, is_dind, within};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::{Instance, InstanceState},
    labels::Labels,
};

impl Docker {
    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        let mut instances = Vec::new();
        for container in self.list_containers(None).await? {
            instances.extend(self.instance(container).await);
        }
        Ok(instances)
    }

    /// All containers of this installation, or of one of its runners, in any state.
    pub(super) async fn list_containers(
        &self,
        runner: Option<&str>,
    ) -> Result<Vec<ContainerSummary>, Error> {
        let call = "list containers";
        let options = ListContainersOptions {
            all: true,
            filters: Some([self.filter(runner)].into()),
            ..Default::default()
        };
        let listed = self.bollard.list_containers(Some(options));
        within(CALL_LIMIT, call, async { listed.await.map_err(|error| from_bollard(call, &error)) })
            .await
    }

    async fn instance(&self, container: ContainerSummary) -> Option<Instance> {
        let map = container.labels.unwrap_or_default();
        if is_dind(&map) {
            return None;
        }
        let labels = Labels::from_map(&map, &self.instance)?;
        let id = container.id?;
        let state = match container.state {
            Some(Summary::CREATED) => InstanceState::Created,
            Some(Summary::EXITED) => match self.exit_code(&id).await {
                Ok(code) => InstanceState::Exited { code },
                Err(error) if error.kind == ErrorKind::Gone => return None,
                Err(error) => {
                    warn!(runner = labels.runner, %error, "the exit code cannot be read");
                    InstanceState::Running
                }
            },
            Some(Summary::REMOVING | Summary::DEAD) => InstanceState::Removing,
            _ => InstanceState::Running,
        };
        Some(Instance { labels, id, state })
    }

    /// The list contains it only in a text for people.
    async fn exit_code(&self, id: &str) -> Result<i64, Error> {
        let container = self.inspect(id).await?;
        Ok(container.state.and_then(|state| state.exit_code).unwrap_or_default())
    }
}
