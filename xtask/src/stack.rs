//! Everything that runs together: sandbox, sidecar, Envoy, and the containers
//! they lead to.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bollard::errors::Error;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use futures_util::future::{BoxFuture, FutureExt, select_all};
use tokio::process::Command;

use crate::docker::Engine;
use crate::http;
use crate::ports::Ports;
use crate::process::Process;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_GRACE: Duration = Duration::from_secs(15);

/// The label by which the sidecar knows its own containers.
const INSTANCE_LABEL: &str = "dev.edgerunner.instance";

pub(crate) struct Stack {
    engine: Engine,
    ports: Ports,
    /// Logs, the store, and Envoy's configuration.
    directory: PathBuf,
    instance: String,
    processes: Vec<Process>,
}

impl Stack {
    pub(crate) fn new(engine: Engine, ports: Ports, directory: PathBuf, instance: String) -> Self {
        Self { engine, ports, directory, instance, processes: Vec::new() }
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Starts a program and waits until it answers with 2xx at `address` and
    /// `path`.
    pub(crate) async fn start(
        &mut self,
        stop: &Stop,
        name: &'static str,
        command: Command,
        (address, path): (SocketAddr, &str),
    ) -> Result<()> {
        let step = Step::start(format!("starting {name}"));
        let log = self.directory.join(format!("{name}.log"));
        self.processes.push(Process::start(name, command, &log)?);
        let ready = tokio::time::timeout(READY_TIMEOUT, async {
            while !answers(address, path).await {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        let ready = async {
            tokio::select! {
                ready = ready => ready.with_context(|| format!(
                    "{name} is not ready after {READY_TIMEOUT:?}; its log is {}",
                    workspace::shown(&log)
                )),
                error = self.died() => Err(error),
            }
        };
        stop.or(ready).await?;
        step.done(&format!("log in {}", workspace::shown(&log)));
        Ok(())
    }

    /// Waits until something ends that should not have.
    pub(crate) async fn died(&self) -> anyhow::Error {
        let deaths: Vec<BoxFuture<'_, anyhow::Error>> = self
            .processes
            .iter()
            .chain(self.engine.daemon())
            .map(|process| process.died().boxed())
            .collect();
        if deaths.is_empty() {
            return std::future::pending().await;
        }
        select_all(deaths).await.0
    }

    /// The containers of this installation, whatever their state.
    pub(crate) async fn containers(&self) -> Result<Vec<ContainerSummary>> {
        let label = format!("{INSTANCE_LABEL}={}", self.instance);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label", vec![label])]))
            .build();
        let containers = self.engine.client().list_containers(Some(options)).await;
        containers.context("cannot list containers")
    }

    /// Removes them all and returns how many there were.
    pub(crate) async fn remove_containers(&self) -> Result<usize> {
        let mut seen = HashSet::new();
        let deadline = Instant::now() + REMOVAL_TIMEOUT;
        loop {
            let ids: Vec<String> =
                self.containers().await?.into_iter().filter_map(|container| container.id).collect();
            if ids.is_empty() {
                return Ok(seen.len());
            }
            if Instant::now() > deadline {
                bail!("these containers do not go: {}", ids.join(", "));
            }
            for id in ids {
                let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
                match self.engine.client().remove_container(&id, Some(options)).await {
                    // It has gone, or is going: the next look tells.
                    Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    result => result.context("cannot remove a container")?,
                }
                seen.insert(id);
            }
        }
    }

    /// Ends everything in the reverse order of its start.
    pub(crate) async fn end(self) {
        for process in self.processes.iter().rev() {
            process.end(STOP_GRACE).await;
        }
        // After the sidecar, which would otherwise replace what is removed.
        match self.remove_containers().await {
            Ok(0) => {}
            Ok(count) => eprintln!("removed {count} runner container(s)"),
            Err(error) => eprintln!("{error:#}; look at `docker ps -a`"),
        }
        self.engine.stop().await;
    }
}

async fn answers(address: SocketAddr, path: &str) -> bool {
    http::get(address, path).await.is_ok_and(|(status, _)| status.is_success())
}
