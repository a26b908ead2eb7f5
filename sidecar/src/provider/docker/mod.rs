//! Runner containers on one Docker Engine (API 1.41, Engine 20.10, or later), or on Podman by the
//! same API.

mod body;
pub(super) mod connection;
mod dind;
mod egress;
mod engine;
mod error;
mod exits;
#[cfg(test)]
pub(crate) mod fake_engine;
mod host_config;
pub(super) mod image;
mod launch;
mod leftovers;
mod list;
mod log;
mod node_sweep;
mod out_of_memory;
mod park;
mod probe;
mod refresh;
mod remove;
mod space;
mod state;
#[cfg(test)]
mod tests;
mod tool_cache;
mod usage;

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use bollard::models::ContainerInspectResponse;
use serde_json::Value;
use tokio::time::timeout;

use self::image::PullKey;
use self::{
    connection::Connection,
    error::{error, from_bollard, no_answer},
    tool_cache::Measurements,
};
pub(crate) use self::{
    engine::{PodmanInfo, Product},
    image::Availability,
    leftovers::Swept,
    probe::Probed,
};
use crate::{
    blocking::OneAtATime,
    config::EngineAddress,
    provider::{
        error::{Error, ErrorKind},
        labels::{self, Labels},
    },
    singleflight::Singleflight,
    telemetry::recurring::Recurring,
};

/// In every container that may use an Engine. GitHub's runner
/// mounts it from there into the containers of jobs.
const SOCKET: &str = "/var/run/docker.sock";

/// Time limit of calls that the Engine answers from memory. The client's own limit, of the same
/// length, covers only the head of a response.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// A label of containers that are not the runner itself.
const ROLE: &str = "dev.edgerunner.role";
const DIND: &str = "dind";
/// Of the name of a runner's inner Engine, after that of the runner.
const DIND_SUFFIX: &str = "-dind";

#[derive(Clone)]
pub(crate) struct Docker {
    /// The client of `connection`.
    bollard: bollard::Docker,
    connection: Arc<Connection>,
    /// The Engine's socket on this machine.
    socket: PathBuf,
    /// Containers of other installations are not touched.
    instance: Arc<str>,
    pulls: Arc<Singleflight<PullKey, Result<(), Error>>>,
    /// Runners whose containers the last list could not inspect.
    not_inspected: Arc<Recurring>,
    /// Of the sizes of volumes.
    measurements: Arc<Measurements>,
    /// The ways out of pools with `egress`.
    ways_out: Arc<egress::WaysOut>,
    /// Whether its machine is this one, as far as its address shows.
    is_here: bool,
    pulled: Arc<space::Pulled>,
    lacked_memory: Arc<out_of_memory::LackedMemory>,
    /// Measures the disk in MiB. A file system may hang.
    disk: Arc<OneAtATime<Option<u64>>>,
    /// Identifies the directory of images.
    storage: Arc<OneAtATime<Option<String>>>,
}

impl Docker {
    /// Sends nothing yet: the Engine may be away.
    pub(crate) fn connect(address: &EngineAddress, instance: &str) -> Self {
        let socket = match address {
            EngineAddress::Unix(path) => path.clone(),
            EngineAddress::Tcp { .. } => SOCKET.into(),
        };
        let connection = Arc::new(connection::open(address));
        Self {
            bollard: connection.bollard.clone(),
            connection,
            socket,
            instance: instance.into(),
            pulls: Arc::new(Singleflight::new()),
            not_inspected: Arc::default(),
            measurements: Arc::default(),
            ways_out: Arc::default(),
            is_here: address.is_here(),
            pulled: Arc::default(),
            lacked_memory: Arc::default(),
            disk: Arc::default(),
            storage: Arc::default(),
        }
    }

    /// Boxed, because the response is large.
    async fn inspect(&self, container: &str) -> Result<Box<ContainerInspectResponse>, Error> {
        let call = format!("inspect container {}", short(container));
        let path = format!("/containers/{container}/json");
        let inspected = within(CALL_LIMIT, &call, async {
            let inspected = self.connection.get(&path, &[]).await;
            inspected.map_err(|error| from_bollard(&call, &error))
        });
        let mut inspected = inspected.await?;
        if let Some(Value::String(status)) = inspected.pointer_mut("/State/Status") {
            *status = docker_status(status).to_owned();
        }
        serde_json::from_value(inspected)
            .map(Box::new)
            .map_err(|cause| error(ErrorKind::Refused, &call, cause))
    }

    /// Makes Docker list what belongs to this installation, or to one of its runners.
    fn filter(&self, runner: Option<&str>) -> (String, Vec<String>) {
        let labels = [(labels::INSTANCE, Some(&*self.instance)), (labels::RUNNER, runner)];
        let wanted =
            labels.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
        ("label".to_owned(), wanted.collect())
    }
}

/// Ends `work` after `limit`.
async fn within<T>(
    limit: Duration,
    call: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(limit, Box::pin(work)).await.unwrap_or_else(|_| Err(no_answer(call)))
}

fn dind_labels(labels: &Labels) -> HashMap<String, String> {
    let mut map = labels.to_map();
    map.insert(ROLE.to_owned(), DIND.to_owned());
    map
}

fn is_dind(map: &HashMap<String, String>) -> bool {
    map.get(ROLE).is_some_and(|role| role == DIND)
}

/// Docker's name for a container's status that Podman has another name for.
fn docker_status(status: &str) -> &str {
    match status {
        // It has ended, and Podman has yet to unmount its files.
        "stopped" => "exited",
        // Its command has not begun.
        "initialized" => "created",
        status => status,
    }
}

/// Ids as the docker command line shows them; names as they are.
fn short(container: &str) -> &str {
    let is_id = container.len() == 64 && container.bytes().all(|it| it.is_ascii_hexdigit());
    if is_id { &container[..12] } else { container }
}
