//! Podman in Docker's place, with storage, settings and a socket of its own.

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::{Context, Result};
use edgerunner_testkit::programs::RUNNER_IMAGE;
use edgerunner_testkit::{Process, eventually_within, images};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::tools;

const START_LIMIT: Duration = Duration::from_secs(30);
/// Of open files and of processes. Podman would give more, which this machine may not permit.
const LIMIT: u32 = 4096;
const REGISTRIES: &str = "registries.conf";

pub struct Podman {
    program: PathBuf,
    directory: TempDir,
    service: Option<Process>,
}

impl Podman {
    /// With the image of the sandbox's runner, copied from the machine's Engine.
    pub async fn new() -> Result<Self> {
        Self::with_registries("").await
    }

    /// The same, with a registry that has no certificate.
    pub async fn with_registry(host: &str) -> Result<Self> {
        Self::with_registries(&format!("[[registry]]\nlocation = \"{host}\"\ninsecure = true\n"))
            .await
    }

    async fn with_registries(registries: &str) -> Result<Self> {
        let program = tools::podman()?;
        let mut podman = Self { program, directory: TempDir::new()?, service: None };
        for (name, text) in [
            ("containers.conf", podman.settings()),
            ("storage.conf", podman.storage()),
            (REGISTRIES, registries.to_owned()),
        ] {
            std::fs::write(podman.path(name), text)?;
        }
        podman.start().await?;
        let images = [RUNNER_IMAGE];
        images::load(&podman.client()?, &images, images::export(&images).await?).await?;
        Ok(podman)
    }

    /// Tests that run at the same time share it; it ends with the last of them.
    pub async fn shared() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Podman>> = Mutex::const_new(Weak::new());
        let mut shared = SHARED.lock().await;
        if let Some(podman) = shared.upgrade() {
            return Ok(podman);
        }
        let podman = Arc::new(Self::new().await?);
        *shared = Arc::downgrade(&podman);
        Ok(podman)
    }

    /// Nothing outside of the directory: this machine may use Podman for something else.
    fn settings(&self) -> String {
        format!(
            r#"
[containers]
default_ulimits = ["nofile={LIMIT}:{LIMIT}", "nproc={LIMIT}:{LIMIT}"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
lock_type = "file"
tmp_dir = "{}"
[network]
network_config_dir = "{}"
"#,
            self.path("tmp").display(),
            self.path("networks").display(),
        )
    }

    /// The driver that works on every file system.
    fn storage(&self) -> String {
        let [data, run] = ["data", "run"].map(|name| self.path(name).display().to_string());
        format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{data}\"\nrunroot = \"{run}\"\n")
    }

    /// Starts its service and waits until that answers.
    pub async fn start(&mut self) -> Result<()> {
        let mut service = Command::from(self.command());
        service.args(["system", "service", "--time", "0", &self.host()]);
        self.service = Some(Process::start("podman", service, &self.path("podman.log"))?);
        eventually_within(START_LIMIT, "Podman answers", async || {
            self.client()?.ping().await?;
            Ok(Some(()))
        })
        .await
        .with_context(|| std::fs::read_to_string(self.path("podman.log")).unwrap_or_default())
    }

    /// Kills its service. Containers go on.
    pub async fn kill(&mut self) -> Result<()> {
        self.service.take().context("Podman is not running")?.end(Signal::KILL).await?;
        Ok(())
    }

    /// The value for `DOCKER_HOST`.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path("podman.sock").display())
    }

    pub fn client(&self) -> Result<bollard::Docker> {
        Ok(bollard::Docker::connect_with_host(&self.host())?)
    }

    fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.program);
        command
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"))
            .env("CONTAINERS_REGISTRIES_CONF", self.path(REGISTRIES));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}

impl Drop for Podman {
    /// Containers outlive the service, and have mounts in the directory.
    fn drop(&mut self) {
        let removed = self.command().args(["rm", "--all", "--force", "--time", "0"]).output();
        if !removed.as_ref().is_ok_and(|output| output.status.success()) {
            eprintln!("cannot remove the containers of Podman: {removed:?}");
        }
    }
}
