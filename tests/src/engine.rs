//! A Docker Engine of its own, to be stopped and started without troubling
//! anybody else.

use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bollard::models::NetworkCreateRequest;
use bollard::query_parameters::{ImportImageOptions, InspectNetworkOptions};
use futures_util::TryStreamExt as _;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::eventually::eventually_within;
use crate::process::Process;
use crate::programs::{Programs, dind_image};

/// It starts a containerd of its own first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It gives containers ten seconds before it ends them.
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Engine {
    directory: TempDir,
    daemon: Option<Process>,
    bridge: Bridge,
}

/// What the Engine's containers are attached to unless told otherwise. Of this machine's
/// Engine: with its usual one, or none at all, ours would take that Engine's from it.
struct Bridge {
    network: String,
    interface: String,
    gateway: IpAddr,
}

impl Engine {
    /// With the stand-in runner's image.
    pub async fn new() -> Result<Self> {
        Self::with(&[]).await
    }

    /// With these images as well. All are taken from the Engine of this machine.
    async fn with(images: &[&str]) -> Result<Self> {
        let bridge = Bridge::new().await?;
        let mut engine = Self { directory: TempDir::new()?, daemon: None, bridge };
        engine.start().await?;
        let runner = Programs::from_environment()?.runner_image;
        let here = bollard::Docker::connect_with_defaults()?;
        let names: Vec<&str> = images.iter().copied().chain([&*runner]).collect();
        let archive = here.export_images(&names);
        let there = engine.client()?;
        let loaded = there.import_image_stream(ImportImageOptions::default(), archive, None);
        loaded.try_collect::<Vec<_>>().await.context("the images were not loaded")?;
        Ok(engine)
    }

    /// The one whose runners can have Engines of their own. Tests that run at the same
    /// time share it; it ends with the last of them.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Engine>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(engine) = shared.upgrade() {
            return Ok(engine);
        }
        let engine = Arc::new(Self::with(&[&dind_image()?]).await?);
        *shared = Arc::downgrade(&engine);
        Ok(engine)
    }

    /// An address of this machine that containers reach.
    pub fn gateway(&self) -> IpAddr {
        self.bridge.gateway
    }

    /// The value for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// Returns when it answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut dockerd = Command::new("dockerd");
        dockerd
            .arg("--data-root")
            .arg(self.path("data"))
            .arg("--exec-root")
            .arg(self.path("exec"))
            .arg("--pidfile")
            .arg(self.path("docker.pid"))
            .args(["--host", &self.host()])
            .args(["--bridge", &self.bridge.interface])
            // The other Engine's rules stay as they are.
            .args(["--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
        if !may_raise_limits()? {
            let runtime = self.path("runtime");
            std::fs::write(&runtime, RUNTIME)?;
            std::fs::set_permissions(&runtime, Permissions::from_mode(0o755))?;
            dockerd
                .arg(format!("--add-runtime=unlimited={}", runtime.display()))
                .arg("--default-runtime=unlimited");
        }
        self.daemon = Some(Process::start(dockerd, &self.log())?);
        eventually_within(START_LIMIT, "dockerd answers", async || {
            self.client()?.ping().await?;
            Ok(Some(()))
        })
        .await
        .with_context(|| std::fs::read_to_string(self.log()).unwrap_or_default())
    }

    /// Its containers end with it.
    pub async fn stop(&mut self) -> Result<()> {
        let daemon = self.daemon.take().context("dockerd does not run")?;
        daemon.end(Signal::TERM).await?;
        Ok(())
    }

    pub fn client(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_host(&self.host())?)
    }

    fn log(&self) -> PathBuf {
        self.path("dockerd.log")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Engine {
    /// Killed, it would leave mounts and its containerd behind.
    #[expect(clippy::disallowed_methods, reason = "a destructor cannot await")]
    fn drop(&mut self) {
        if let Some(daemon) = &self.daemon
            && daemon.signal(Signal::TERM).is_ok()
        {
            let deadline = Instant::now() + STOP_LIMIT;
            while self.path("docker.pid").exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        // The one mount that it leaves even so; none is there if no container ran.
        let _ = unmount(self.path("exec/netns/default"), UnmountFlags::DETACH);
        self.bridge.remove();
    }
}

impl Bridge {
    async fn new() -> Result<Self> {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..8];
        let (network, interface) = (format!("edgerunner-tests-{id}"), format!("er-{id}"));
        let docker = bollard::Docker::connect_with_defaults()?;
        let request = NetworkCreateRequest {
            name: network.clone(),
            options: Some(
                [("com.docker.network.bridge.name".to_owned(), interface.clone())].into(),
            ),
            ..Default::default()
        };
        docker.create_network(request).await?;
        let gateway = gateway(&docker, &network).await?;
        Ok(Self { network, interface, gateway })
    }

    /// On a thread of its own, since a destructor cannot await.
    fn remove(&self) {
        let network = self.network.clone();
        let removed = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let docker = bollard::Docker::connect_with_defaults()?;
            Ok(runtime.block_on(docker.remove_network(&network))?)
        })
        .join();
        if !matches!(removed, Ok(Ok(()))) {
            eprintln!("network {} stays: {removed:?}", self.network);
        }
    }
}

/// Where the containers of a network find this machine.
pub(crate) async fn gateway(docker: &bollard::Docker, network: &str) -> Result<IpAddr> {
    let made = docker.inspect_network(network, None::<InspectNetworkOptions>).await?;
    let configured = made.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    let gateway = configured.into_iter().find_map(|config| config.gateway);
    Ok(gateway.with_context(|| format!("the network {network} has no gateway"))?.parse()?)
}

/// A machine may withhold `CAP_SYS_RESOURCE`, and a privileged container asks for all
/// there are: this stands before runc and asks for one less.
const RUNTIME: &str = r#"#!/bin/sh
previous=
for argument in "$@"; do
    case $previous in
    --bundle) sed -i 's/"CAP_SYS_RESOURCE",//g' "$argument/config.json" ;;
    --process) sed -i 's/"CAP_SYS_RESOURCE",//g' "$argument" ;;
    esac
    previous=$argument
done
exec runc "$@"
"#;

fn may_raise_limits() -> Result<bool> {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let bounds = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounds = u64::from_str_radix(bounds.context("no CapBnd")?.trim(), 16)?;
    Ok(bounds >> CAP_SYS_RESOURCE & 1 == 1)
}
