//! The programs that run together, and how each is told what to do.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::build::{Profile, cargo};
use crate::command;
use crate::envoy;
use crate::image;
use crate::ports::{Ports, local};
use crate::progress::Step;
use crate::stop::Stop;
use crate::wasm;
use crate::workspace;

/// The path that `envoy/envoy.yaml` listens for.
pub(crate) const WEBHOOK_PATH: &str = "/webhooks/github";

pub(crate) struct Programs {
    pub(crate) envoy: PathBuf,
    /// The filter.
    pub(crate) module: PathBuf,
    pub(crate) sidecar: PathBuf,
    pub(crate) sandbox: PathBuf,
}

impl Programs {
    pub(crate) async fn get(stop: &Stop, profile: Profile) -> Result<Self> {
        let envoy = envoy::get(stop).await?;
        let module = wasm::build(stop).await?;
        build(stop, profile).await?;
        Ok(Self::built(envoy, module, profile))
    }

    pub(crate) fn built(envoy: PathBuf, module: PathBuf, profile: Profile) -> Self {
        let binary = |name| profile.directory().join(name);
        Self { envoy, module, sidecar: binary("edgerunner"), sandbox: binary("edgerunner-sandbox") }
    }
}

/// Builds the sidecar and the sandbox GitHub.
pub(crate) async fn build(stop: &Stop, profile: Profile) -> Result<()> {
    let mut step = Step::start("building sidecar and sandbox");
    let arguments = [
        "build",
        profile.flag(),
        // All packages have their say in the features of what they share, as
        // in the tests: libraries are then compiled once for both.
        "--workspace",
        "--bin=edgerunner",
        "--bin=edgerunner-sandbox",
    ];
    command::run(stop, &mut step, cargo(arguments)).await?;
    step.done(&workspace::shown(&profile.directory()));
    Ok(())
}

/// What the sandbox, the sidecar and Envoy have to agree on.
pub(crate) struct Secrets {
    token: String,
    webhook: String,
}

impl Secrets {
    /// For one run, and passed on in environments only.
    pub(crate) fn random() -> Self {
        Self {
            token: format!("sandbox-{}", uuid::Uuid::new_v4().simple()),
            webhook: uuid::Uuid::new_v4().simple().to_string(),
        }
    }

    /// Of GitHub's API.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) fn webhook(&self) -> &str {
        &self.webhook
    }
}

/// Webhooks go to this URL.
pub(crate) fn sandbox(
    programs: &Programs,
    ports: &Ports,
    secrets: &Secrets,
    webhook_url: &str,
) -> Command {
    let mut command = bare(&programs.sandbox);
    command
        .arg("serve")
        .args(["--listen", &local(ports.sandbox).to_string()])
        .args(["--webhook-url", webhook_url])
        .env("GITHUB_TOKEN", &secrets.token)
        .env("GITHUB_WEBHOOK_SECRET", &secrets.webhook);
    command
}

/// A sidecar that takes the sandbox for GitHub.
pub(crate) fn sidecar(
    programs: &Programs,
    ports: &Ports,
    secrets: &Secrets,
    directory: &Path,
    instance: &str,
) -> Command {
    let github = format!("http://{}", local(ports.sandbox));
    let mut command = bare(&programs.sidecar);
    command
        .arg("serve")
        // Away from any configuration file of the person who runs this.
        .current_dir(directory)
        .env("GITHUB_API_URL", &github)
        .env("GITHUB_WEB_URL", &github)
        .env("GITHUB_TOKEN", &secrets.token)
        .env("GITHUB_WEBHOOK_SECRET", &secrets.webhook)
        .env("DOCKER_RUNNER_IMAGE", image::RUNNER)
        .env("DOCKER_PULL_POLICY", "never")
        // The runner reaches the sandbox on the loopback interface.
        .env("DOCKER_NETWORK", "host")
        .env("STORE_PATH", directory.join("edgerunner.db"))
        .env("SCHEDULER_INSTANCE", instance)
        .env("SCHEDULER_SHUTDOWN_GRACE_SECONDS", "5")
        .env("LOG_FORMAT", "human");
    listening(&mut command, ports);
    command
}

/// A sidecar configured by the environment it is started from.
pub(crate) fn sidecar_of_environment(
    programs: &Programs,
    ports: &Ports,
    directory: &Path,
    instance: &str,
) -> Command {
    let mut command = Command::new(&programs.sidecar);
    command.arg("serve").current_dir(workspace::root());
    for (name, value) in [
        ("SCHEDULER_INSTANCE", instance.into()),
        ("STORE_PATH", directory.join("edgerunner.db").into_os_string()),
    ] {
        if std::env::var_os(name).is_none() {
            command.env(name, value);
        }
    }
    listening(&mut command, ports);
    command
}

fn listening(command: &mut Command, ports: &Ports) {
    command
        .env("SERVER_GRPC_ADDRESS", local(ports.grpc).to_string())
        .env("SERVER_HTTP_ADDRESS", local(ports.http).to_string());
}

/// Envoy with so many workers.
pub(crate) fn envoy_configured_by(
    configuration: &Path,
    programs: &Programs,
    workers: u32,
) -> Command {
    let mut command = bare(&programs.envoy);
    command
        .arg("--config-path")
        .arg(configuration)
        .args(["--concurrency", &workers.to_string()])
        // Hot restart would tie this Envoy to any other on the machine.
        .arg("--disable-hot-restart")
        // What is left is the access log and what the filter says.
        .args(["--log-level", "warning", "--component-log-level", "wasm:info"]);
    command
}

/// A command that sees little of our environment: variables meant for another
/// set-up, such as those of a CI job on GitHub, must not change this one.
fn bare(binary: &Path) -> Command {
    let mut command = Command::new(binary);
    command.env_clear();
    for name in [
        "PATH",
        "HOME",
        "DOCKER_HOST",
        "DOCKER_TLS_VERIFY",
        "DOCKER_CERT_PATH",
        "RUST_LOG",
        "RUST_BACKTRACE",
    ] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
