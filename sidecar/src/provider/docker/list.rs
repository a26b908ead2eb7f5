//! Lists the runners' containers.

use std::collections::HashMap;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant, timeout_at};
use tracing::warn;

use super::{CALL_LIMIT, Docker, docker_status, error, from_bollard, is_dind, no_answer, within};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::{Instance, InstanceState},
    labels::Labels,
};
use edgerunner_scheduler::plan::ExitStatus;

/// For all inspections of one list together: nothing is launched before the first list.
const INSPECTIONS_LIMIT: Duration = Duration::from_secs(10);
const INSPECTIONS_AT_ONCE_MAX: usize = 16;

/// A container of this installation, as the list shows it.
pub(super) struct Listed {
    pub id: String,
    pub labels: HashMap<String, String>,
    pub state: String,
}

impl Docker {
    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        let deadline = Instant::now() + INSPECTIONS_LIMIT;
        let inspected: Vec<_> = stream::iter(self.list_containers(None).await?)
            .map(|container| self.instance(container, deadline))
            .buffered(INSPECTIONS_AT_ONCE_MAX)
            .collect()
            .await;
        let mut instances = Vec::new();
        let mut failed = Vec::new();
        for (instance, error) in inspected.into_iter().flatten() {
            failed.extend(error.map(|error| (instance.labels.runner.clone(), error.message)));
            instances.push(instance);
        }
        for (runner, error) in self.not_inspected.replace(failed) {
            warn!(runner, error, "the exit code cannot be read: the runner counts as running");
        }
        Ok(instances)
    }

    /// All containers of this installation, or of one of its runners, in any state. Reads no
    /// more of each than it needs, so that one that is unusual does not hide the others.
    pub(super) async fn list_containers(&self, runner: Option<&str>) -> Result<Vec<Listed>, Error> {
        self.list_filtered(self.filter(runner)).await
    }

    /// All containers with these labels, in any state.
    pub(super) async fn list_filtered(
        &self,
        (label, values): (String, Vec<String>),
    ) -> Result<Vec<Listed>, Error> {
        let call = "list containers";
        let filters = json!({ label: values }).to_string();
        let query = [("all", "true"), ("filters", &*filters)];
        let listed = self.connection.get("/containers/json", &query);
        let listed = within(CALL_LIMIT, call, async {
            listed.await.map_err(|error| from_bollard(call, &error))
        });
        match listed.await? {
            Value::Array(containers) => Ok(containers.iter().filter_map(listed_as).collect()),
            _ => Err(error(ErrorKind::Refused, call, "the response is not a list")),
        }
    }

    /// One that cannot be inspected comes with the error.
    async fn instance(
        &self,
        Listed { id, labels, state }: Listed,
        deadline: Instant,
    ) -> Option<(Instance, Option<Error>)> {
        if is_dind(&labels) {
            return None;
        }
        let labels = Labels::from_map(&labels, &self.instance)?;
        let (state, error) = match &*state {
            "created" => (InstanceState::Created, None),
            "exited" => match timeout_at(deadline, self.exit_status(&id)).await {
                Ok(Ok(status)) => (InstanceState::Exited(status), None),
                Ok(Err(error)) if error.kind == ErrorKind::Gone => return None,
                Ok(Err(error)) => (InstanceState::Running, Some(error)),
                Err(_) => (InstanceState::Running, Some(no_answer("inspect the container"))),
            },
            "removing" | "dead" => (InstanceState::Removing, None),
            _ => (InstanceState::Running, None),
        };
        Some((Instance { labels, id, node: None, state }, error))
    }

    /// The list contains the exit code only in a text for people.
    pub(super) async fn exit_status(&self, id: &str) -> Result<ExitStatus, Error> {
        let found = self.inspect(id).await?;
        self.exit_status_of(&found).await.ok_or_else(|| {
            error(ErrorKind::Refused, "inspect the container", "the response has no exit code")
        })
    }
}

/// `None` if it cannot be ours.
fn listed_as(container: &Value) -> Option<Listed> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let labels = container["Labels"].as_object()?.iter();
    Some(Listed {
        id: text(&container["Id"])?,
        labels: labels.filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
        state: docker_status(container["State"].as_str().unwrap_or_default()).to_owned(),
    })
}
