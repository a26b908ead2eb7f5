//! A host with a Docker Engine.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::hosts::{Cgroups, Host, Network};
use crate::{Process, eventually_within, runtime};

/// It starts its own containerd first.
const START_LIMIT: Duration = Duration::from_secs(60);
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Ends the Engine as a crash does; its containers stay.
const KILL: &str = "kill -KILL $(cat /run/docker.pid) $(cat /run/docker/containerd/containerd.pid)
rm /run/docker.pid";

/// The directory of specifications of the Container Device Interface.
const CDI: &str = "cdi";

pub struct Node {
    number: u8,
    name: String,
    address: Ipv4Addr,
    directory: PathBuf,
    path: OsString,
    host: Host,
    network: Arc<Network>,
    daemon: Option<Process>,
}

/// What all nodes of a cluster share.
pub(super) struct Shared<'a> {
    pub(super) network: &'a Arc<Network>,
    /// `PATH`, with the Engine's programs in front.
    pub(super) path: &'a OsStr,
    pub(super) init: &'a Path,
    pub(super) cgroups: &'a Cgroups,
}

impl Node {
    /// A host without an Engine yet. `number` counts from 1.
    pub(super) async fn new(shared: &Shared<'_>, number: u8, directory: PathBuf) -> Result<Self> {
        let Shared { network, path, init, cgroups } = *shared;
        let name = format!("node-{number}");
        let address = network.address(number);
        let host = Host::start(&name, init)?;
        network.attach(&host, number).await?;
        for name in ["data", CDI] {
            std::fs::create_dir_all(directory.join(name))?;
        }
        let configuration = configuration(&directory, &cgroups.of_host(&name), network)?;
        std::fs::write(directory.join("daemon.json"), configuration.to_string())?;
        let (network, path) = (Arc::clone(network), path.to_owned());
        Ok(Self { number, name, address, directory, path, host, network, daemon: None })
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where other nodes reach it.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Where this machine reaches it.
    pub fn outside_address(&self) -> Ipv4Addr {
        self.network.outside_address(self.number)
    }

    /// The value for `DOCKER_HOST` of a program on this machine. On the node itself, the Engine
    /// listens at its usual address.
    pub fn docker_host(&self) -> String {
        docker_host(&self.directory)
    }

    pub fn docker(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_host(&self.docker_host())?)
    }

    /// Gives it devices, by a specification of the Container Device Interface.
    pub fn specify_devices(&self, specification: &Value) -> Result<()> {
        let file = self.directory.join(CDI).join("devices.json");
        Ok(std::fs::write(file, specification.to_string())?)
    }

    /// Starts the Engine and waits until it answers.
    pub async fn start(&mut self) -> Result<()> {
        ensure!(self.daemon.is_none(), "the Engine of {} is running", self.name);
        let configuration = self.directory.join("daemon.json").display().to_string();
        let arguments = ["--config-file".to_owned(), configuration];
        let log = self.directory.join("dockerd.log");
        let daemon = self.host.process("dockerd", &arguments, &self.path, &log)?;
        let daemon = self.daemon.insert(daemon);
        let host = docker_host(&self.directory);
        let answers = eventually_within(START_LIMIT, "dockerd answers", async || {
            bollard::Docker::connect_with_host(&host)?.ping().await?;
            Ok(Some(()))
        });
        tokio::select! {
            answers = answers => {
                answers.with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
            }
            error = daemon.died() => Err(error),
        }
    }

    /// Kills the Engine with its containerd. Its containers stay until it is started again: Swarm
    /// permits no `live-restore`.
    pub async fn kill(&mut self) -> Result<()> {
        let daemon = self.daemon.take().with_context(|| format!("{} has no Engine", self.name))?;
        let killed = self.host.command("sh").args(["-c", KILL]).status().await?;
        ensure!(killed.success(), "the Engine of {} cannot be killed", self.name);
        timeout(KILL_LIMIT, daemon.died()).await.context("dockerd is still running")?;
        Ok(())
    }

    pub fn is_running(&self) -> bool {
        self.daemon.is_some()
    }

    /// Cuts the node off from all others. Its runners still reach GitHub.
    pub async fn partition(&self) -> Result<()> {
        self.network.set_reachable(self.number, false).await
    }

    /// Ends [`Self::partition`].
    pub async fn heal(&self) -> Result<()> {
        self.network.set_reachable(self.number, true).await
    }

    /// Ends the host, without waiting for the end.
    pub(super) fn close(&mut self) {
        self.host.close();
    }
}

fn docker_host(directory: &Path) -> String {
    format!("unix://{}", directory.join("docker.sock").display())
}

fn configuration(directory: &Path, cgroup: &str, network: &Network) -> Result<Value> {
    let mut configuration = json!({
        "data-root": directory.join("data"),
        // The host has a /run of its own.
        "exec-root": "/run/docker",
        "pidfile": "/run/docker.pid",
        "hosts": ["unix:///run/docker.sock", docker_host(directory)],
        // The default depends on this machine's init.
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "cgroup-parent": cgroup,
        "insecure-registries": [network.subnet()],
        // Newer versions do so by themselves.
        "features": { "cdi": true },
        "cdi-spec-dirs": [directory.join(CDI)],
    });
    if let Some(wrapper) = runtime::wrapper(directory)? {
        configuration["runtimes"] = json!({ "unlimited": { "path": wrapper } });
        configuration["default-runtime"] = "unlimited".into();
    }
    Ok(configuration)
}
