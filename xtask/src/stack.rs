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
use crate::envoy_config;
use crate::http;
use crate::ports::{Ports, local};
use crate::process::Process;
use crate::production::Production;
use crate::programs::{self, Programs, Secrets};
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

const READY_TIMEOUT: Duration = Duration::from_secs(60);
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(20);
/// Longer than the sidecar lets launches under way take when it is told to end.
const STOP_GRACE: Duration = Duration::from_secs(40);

/// The label by which the sidecar knows its own containers.
const INSTANCE_LABEL: &str = "dev.edgerunner.instance";

pub(crate) struct Stack {
    engine: Engine,
    ports: Ports,
    /// Logs, the store, and Envoy's configuration.
    directory: PathBuf,
    instance: String,
    /// Variables beside those that every sidecar gets.
    sidecar: Vec<(&'static str, String)>,
    /// In place of the configuration without TLS.
    production: Option<Production>,
    processes: Vec<Process>,
}

impl Stack {
    pub(crate) fn new(engine: Engine, ports: Ports, directory: PathBuf, instance: String) -> Self {
        Self {
            engine,
            ports,
            directory,
            instance,
            sidecar: Vec::new(),
            production: None,
            processes: Vec::new(),
        }
    }

    /// Has Envoy face GitHub by TLS, and reach the sidecar by mutual TLS.
    pub(crate) fn use_tls(&mut self, programs: &Programs) -> Result<()> {
        let production = Production::write(&self.directory, &programs.module, &self.ports)?;
        self.production = Some(production);
        Ok(())
    }

    /// Where webhooks go.
    pub(crate) fn webhook_url(&self) -> String {
        let scheme = if self.production.is_some() { "https" } else { "http" };
        format!("{scheme}://{}{}", local(self.ports.envoy), programs::WEBHOOK_PATH)
    }

    /// Who signed what Envoy shows, if it speaks TLS.
    pub(crate) fn ca(&self) -> Option<PathBuf> {
        self.production.as_ref().map(Production::ca)
    }

    /// A variable for the sidecar that is to be started with the sandbox.
    pub(crate) fn configure_sidecar(&mut self, name: &'static str, value: String) {
        self.sidecar.push((name, value));
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

    /// The label that all containers of this installation bear.
    pub(crate) fn label(&self) -> String {
        format!("{INSTANCE_LABEL}={}", self.instance)
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

    /// Starts everything with the sandbox in GitHub's place, from nothing.
    pub(crate) async fn start_with_sandbox(
        &mut self,
        stop: &Stop,
        programs: &Programs,
        secrets: &Secrets,
        envoy_workers: u32,
    ) -> Result<()> {
        // The sandbox remembers nothing of earlier runs, so nothing else may.
        for suffix in ["", "-wal", "-shm"] {
            remove_file(&self.directory.join(format!("edgerunner.db{suffix}")))?;
        }
        stop.or(self.remove_containers()).await?;
        let ports = self.ports;
        let mut sandbox = programs::sandbox(programs, &ports, secrets, &self.webhook_url());
        if let Some(ca) = self.ca() {
            sandbox.arg("--webhook-ca").arg(ca);
        }
        self.start(stop, "sandbox", sandbox, (local(ports.sandbox), "/_sandbox/")).await?;
        let mut sidecar =
            programs::sidecar(programs, &ports, secrets, &self.directory, &self.instance);
        sidecar.envs(self.sidecar.iter().cloned());
        self.start_sidecar(stop, sidecar).await?;
        let mut envoy = self.envoy(programs, envoy_workers)?;
        envoy.env("GITHUB_WEBHOOK_SECRET", secrets.webhook());
        self.start(stop, "envoy", envoy, (local(ports.envoy_admin), "/ready")).await
    }

    /// Starts everything as the environment says, which has credentials for
    /// GitHub.
    pub(crate) async fn start_with_github(
        &mut self,
        stop: &Stop,
        programs: &Programs,
        envoy_workers: u32,
    ) -> Result<()> {
        let ports = self.ports;
        let sidecar =
            programs::sidecar_of_environment(programs, &ports, &self.directory, &self.instance);
        self.start_sidecar(stop, sidecar).await?;
        let mut envoy = self.envoy(programs, envoy_workers)?;
        for name in ["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_PREVIOUS"] {
            if let Some(secret) = std::env::var_os(name) {
                envoy.env(name, secret);
            }
        }
        self.start(stop, "envoy", envoy, (local(ports.envoy_admin), "/ready")).await
    }

    async fn start_sidecar(&mut self, stop: &Stop, mut command: Command) -> Result<()> {
        if let Some(production) = &self.production {
            production.secure(&mut command);
        }
        let ready = (local(self.ports.http), "/readyz");
        self.start(stop, "sidecar", command, ready).await
    }

    /// The secrets are still to be put into its environment.
    fn envoy(&self, programs: &Programs, workers: u32) -> Result<Command> {
        let configuration = match &self.production {
            Some(production) => production.configuration(),
            None => envoy_config::write(&self.directory, &programs.module, &self.ports)?,
        };
        Ok(programs::envoy_configured_by(&configuration, programs, workers))
    }

    pub(crate) fn process(&self, name: &str) -> Option<&Process> {
        self.processes.iter().find(|process| process.name() == name)
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
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label", vec![self.label()])]))
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
        self.leave().await.stop().await;
    }

    /// The same, but the Docker Engine is still needed.
    pub(crate) async fn leave(self) -> Engine {
        for process in self.processes.iter().rev() {
            process.end(STOP_GRACE).await;
        }
        // After the sidecar, which would otherwise replace what is removed.
        match self.remove_containers().await {
            Ok(0) => {}
            Ok(count) => eprintln!("removed {count} runner container(s)"),
            Err(error) => eprintln!("{error:#}; look at `docker ps -a`"),
        }
        self.engine
    }
}

async fn answers(address: SocketAddr, path: &str) -> bool {
    http::get(address, path).await.is_ok_and(|(status, _)| status.is_success())
}

fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
