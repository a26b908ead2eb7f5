//! The Docker Engine: the one that runs, or one we start and stop.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::process::Process;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

const PING_TIMEOUT: Duration = Duration::from_secs(5);
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// A package's own start script needs this long to bring its service up.
const AFTER_INSTALL_TIMEOUT: Duration = Duration::from_secs(5);
/// dockerd gives containers ten seconds before it ends itself.
const STOP_GRACE: Duration = Duration::from_secs(30);

pub(crate) struct Engine {
    client: Docker,
    started: Started,
}

/// What has to be stopped again because of us.
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

    /// The Docker daemon that is ours to look after, if there is one.
    pub(crate) fn daemon(&self) -> Option<&Process> {
        match &self.started {
            Started::Daemon(daemon) => Some(daemon),
            Started::Nothing | Started::Systemd | Started::Init => None,
        }
    }

    pub(crate) async fn stop(self) {
        let (program, arguments): (&str, &[&str]) = match self.started {
            Started::Nothing => return,
            Started::Daemon(daemon) => {
                eprintln!("stopping dockerd, which was started for this");
                daemon.end(STOP_GRACE).await;
                return;
            }
            // The socket unit would start the service again at the next touch.
            Started::Systemd => ("systemctl", &["stop", "docker.service", "docker.socket"]),
            Started::Init => ("service", &["docker", "stop"]),
        };
        eprintln!("stopping the docker service, which was started for this");
        let mut stop = Command::new(program);
        stop.args(arguments);
        if command::answer(stop).await.is_none() {
            eprintln!("could not stop it: run `{program} {}`", arguments.join(" "));
        }
    }
}

/// Finds, or else installs and starts, a Docker Engine that answers.
pub(crate) async fn engine(stop: &Stop) -> Result<Engine> {
    let mut step = Step::start("Docker Engine");
    let client = connect()?;
    if let Some(version) = version(&client).await {
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

    let installed = dockerd_is_there().await;
    if !installed {
        // ca-certificates: for pulling images, and only recommended there.
        apt::install(stop, &mut step, &["docker.io", "ca-certificates"], "Docker Engine").await?;
    }
    let client = connect()?;
    // Installing may have started it, where an init system does such things.
    let started = if !installed && answers_within(stop, &client, AFTER_INSTALL_TIMEOUT).await? {
        if systemd_runs() { Started::Systemd } else { Started::Init }
    } else {
        start(stop, &mut step).await?
    };
    let engine = Engine { client, started };
    match wait(stop, &engine).await {
        Ok(version) => {
            step.done(&format!("{version}, started for this"));
            Ok(engine)
        }
        Err(error) => {
            engine.stop().await;
            Err(error)
        }
    }
}

fn connect() -> Result<Docker> {
    Docker::connect_with_defaults().context("cannot tell where Docker is; see DOCKER_HOST")
}

async fn version(client: &Docker) -> Option<String> {
    let version =
        tokio::time::timeout(PING_TIMEOUT, Box::pin(client.version())).await.ok()?.ok()?;
    Some(version.version.unwrap_or_else(|| "of unknown version".to_owned()))
}

async fn answers_within(stop: &Stop, client: &Docker, limit: Duration) -> Result<bool> {
    let answered = tokio::time::timeout(limit, async {
        while version(client).await.is_none() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    stop.or(async { Ok(answered.await.is_ok()) }).await
}

async fn wait(stop: &Stop, engine: &Engine) -> Result<String> {
    let answers = answers_within(stop, &engine.client, START_TIMEOUT);
    let answers = match engine.daemon() {
        Some(daemon) => tokio::select! {
            answers = answers => answers?,
            error = daemon.died() => {
                return Err(error.context(
                    "cannot run a Docker Engine here; inside a container it needs --privileged",
                ));
            }
        },
        None => answers.await?,
    };
    if !answers {
        bail!("the Docker Engine was started but does not answer after {START_TIMEOUT:?}");
    }
    version(&engine.client).await.context("the Docker Engine answered once and then no more")
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
    Ok(Started::Daemon(Process::start("dockerd", Command::new("dockerd"), &log)?))
}

/// Someone outside the group `docker` must not be told to install Docker.
fn socket_may_be_opened() -> Result<()> {
    match std::os::unix::net::UnixStream::connect("/var/run/docker.sock") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => bail!(
            "you may not use the Docker Engine of this machine; \
             run `sudo usermod -aG docker $USER`, log in again, and try again"
        ),
        _ => Ok(()),
    }
}

async fn dockerd_is_there() -> bool {
    let mut dockerd = Command::new("dockerd");
    dockerd.arg("--version");
    command::answer(dockerd).await.is_some()
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}
