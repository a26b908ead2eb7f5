//! A Docker Engine of its own, to be stopped and started without troubling
//! anybody else.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bollard::query_parameters::ImportImageOptions;
use futures_util::TryStreamExt as _;
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::eventually::eventually_within;
use crate::process::Process;
use crate::programs::Programs;

/// It starts a containerd of its own first.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It gives containers ten seconds before it ends them.
const STOP_LIMIT: Duration = Duration::from_secs(20);

pub struct Engine {
    directory: TempDir,
    daemon: Option<Process>,
}

impl Engine {
    /// With the stand-in runner's image, which is taken from the Engine of this
    /// machine.
    pub async fn new() -> Result<Self> {
        let mut engine = Self { directory: TempDir::new()?, daemon: None };
        engine.start().await?;
        let image = Programs::from_environment()?.runner_image;
        let here = bollard::Docker::connect_with_defaults()?;
        let archive = here.export_image(&image);
        let there = engine.client()?;
        let loaded = there.import_image_stream(ImportImageOptions::default(), archive, None);
        loaded.try_collect::<Vec<_>>().await.context("the runner's image was not loaded")?;
        Ok(engine)
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
            // The other Engine's bridge and rules stay as they are.
            .args(["--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]);
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

    fn client(&self) -> Result<bollard::Docker> {
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
    }
}
