//! The machine's Docker Engine, installed and started if necessary.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use edgerunner_testkit::{Process, workspace};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::rootfs::find;
use crate::stop::Stop;

const PING_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Enough for the package's script to start the service.
const AFTER_INSTALL_TIMEOUT: Duration = Duration::from_secs(5);
/// dockerd gives containers ten seconds.
const STOP_GRACE: Duration = Duration::from_secs(30);

pub(crate) struct Engine {
    client: Docker,
    started: Started,
}

/// What `stop` has to undo.
enum Started {
    Nothing,
    Daemon(Process),
    Systemd,
    Init,
}

impl Engine {
    pub(crate) fn client(&self) -> &Docker {
        &self.client
    }

    /// Waits until it ends unexpectedly; forever, if it was not started as a child.
    pub(crate) async fn died(&self) -> anyhow::Error {
        self.started.died().await
    }

    pub(crate) async fn stop(self) {
        self.started.stop().await;
    }
}

impl Started {
    async fn died(&self) -> anyhow::Error {
        match self {
            Self::Daemon(daemon) => daemon.died().await,
            Self::Nothing | Self::Systemd | Self::Init => std::future::pending().await,
        }
    }

    async fn stop(self) {
        let (program, arguments): (&str, &[&str]) = match self {
            Self::Nothing => return,
            Self::Daemon(daemon) => {
                eprintln!("stopping dockerd, which was started for this");
                daemon.stop(STOP_GRACE).await;
                return;
            }
            // The socket unit would start the service again on the next connection.
            Self::Systemd => ("systemctl", &["stop", "docker.service", "docker.socket"]),
            Self::Init => ("service", &["docker", "stop"]),
        };
        eprintln!("stopping the docker service, which was started for this");
        let mut stop = Command::new(program);
        stop.args(arguments);
        if command::output(stop).await.is_none() {
            eprintln!("could not stop it: run `{program} {}`", arguments.join(" "));
        }
    }
}

/// Whether [`engine`] would install it.
pub(crate) async fn is_missing() -> bool {
    find("dockerd").is_none()
        && std::env::var_os("DOCKER_HOST").is_none()
        && answer().await.is_none()
}

/// Finds, or else installs and starts, a Docker Engine that answers.
pub(crate) async fn engine(stop: &Stop) -> Result<Engine> {
    let mut step = Step::start("Docker Engine");
    if let Some((client, version)) = stop.or(async { Ok(answer().await) }).await? {
        step.done(&version);
        return Ok(Engine { client, started: Started::Nothing });
    }
    if let Ok(host) = std::env::var("DOCKER_HOST") {
        bail!(
            "no Docker Engine answers at DOCKER_HOST={host}; start it, or unset DOCKER_HOST to use the one of this machine"
        );
    }
    socket_may_be_opened()?;
    if !cfg!(target_os = "linux") {
        bail!("no Docker Engine answers; start Docker and try again");
    }

    let installed = find("dockerd").is_some();
    if !installed {
        // ca-certificates is needed to pull images, and docker.io only recommends it.
        apt::install(stop, &mut step, &["docker.io", "ca-certificates"], "Docker Engine").await?;
    }
    // With an init system, installing starts it.
    let answers = match installed {
        true => None,
        false => answer_within(stop, AFTER_INSTALL_TIMEOUT).await?,
    };
    let started = match answers {
        Some(_) if systemd_runs() => Started::Systemd,
        Some(_) => Started::Init,
        None => start(stop, &mut step).await?,
    };
    match wait(stop, &started).await {
        Ok((client, version)) => {
            step.done(&format!("{version}, started for this"));
            Ok(Engine { client, started })
        }
        Err(error) => {
            started.stop().await;
            Err(error)
        }
    }
}

/// The Engine and its version, if it answers. Each attempt needs a new client, which
/// expects the socket to exist.
async fn answer() -> Option<(Docker, String)> {
    let client = Docker::connect_with_defaults().ok()?;
    let version =
        tokio::time::timeout(PING_TIMEOUT, Box::pin(client.version())).await.ok()?.ok()?;
    Some((client, version.version.unwrap_or_else(|| "of unknown version".to_owned())))
}

async fn answer_within(stop: &Stop, limit: Duration) -> Result<Option<(Docker, String)>> {
    let answer = tokio::time::timeout(limit, async {
        loop {
            if let Some(answer) = answer().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    stop.or(async { Ok(answer.await.ok()) }).await
}

async fn wait(stop: &Stop, started: &Started) -> Result<(Docker, String)> {
    let answer = tokio::select! {
        answer = answer_within(stop, START_TIMEOUT) => answer?,
        error = started.died() => {
            return Err(error.context(
                "cannot run a Docker Engine here; inside a container it needs --privileged",
            ));
        }
    };
    answer.with_context(|| {
        format!("the Docker Engine was started but does not answer after {START_TIMEOUT:?}")
    })
}

async fn start(stop: &Stop, step: &mut Step) -> Result<Started> {
    let root = rustix::process::geteuid().is_root();
    if systemd_runs() {
        if !root {
            bail!("no Docker Engine answers; run `sudo systemctl start docker` and try again");
        }
        step.say("starting the docker service");
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["start", "docker"]);
        command::run(stop, step, systemctl).await?;
        return Ok(Started::Systemd);
    }
    if !root {
        bail!("no Docker Engine answers; run `sudo dockerd` in another terminal and try again");
    }
    let log = workspace::target().join("dockerd.log");
    step.say(&format!("starting dockerd, log in {}", workspace::shown(&log)));
    let _ = std::fs::remove_file(&log);
    let mut dockerd = Command::new("dockerd");
    dockerd.process_group(0);
    Ok(Started::Daemon(Process::start("dockerd", dockerd, &log)?))
}

/// A user outside the group `docker` must not be asked to install Docker.
fn socket_may_be_opened() -> Result<()> {
    match std::os::unix::net::UnixStream::connect("/var/run/docker.sock") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
            "you may not use the Docker Engine of this machine; \
             run `sudo usermod -aG docker $USER`, log in again, and try again"
        ),
        _ => Ok(()),
    }
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
