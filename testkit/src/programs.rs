//! The programs under test, as `cargo xtask` builds or downloads them.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// The image of the sandbox's runner.
pub const RUNNER_IMAGE: &str = "edgerunner/sandbox-runner:local";
/// The image of the sidecar, which also launches runners on the nodes of a Swarm.
pub const LAUNCHER_IMAGE: &str = "edgerunner:local";
/// The environment variable from which its runner takes its credentials.
pub const RUNNER_CREDENTIALS: &str = "ACTIONS_RUNNER_INPUT_JITCONFIG";

#[derive(Clone)]
pub struct Programs {
    pub envoy: PathBuf,
    /// The Envoy filter.
    pub module: PathBuf,
    pub sidecar: PathBuf,
    pub sandbox: PathBuf,
    /// Starts each program in its own process group: Ctrl-C then reaches only the
    /// caller, who stops them in order.
    pub own_groups: bool,
}

const VARIABLES: [&str; 4] =
    ["EDGERUNNER_ENVOY", "EDGERUNNER_WASM", "EDGERUNNER_SIDECAR", "EDGERUNNER_SANDBOX"];

impl Programs {
    /// As [`Self::pass_to`] left them. They share the caller's process group.
    pub fn from_environment() -> Result<Self> {
        let [envoy, module, sidecar, sandbox] = VARIABLES.map(file);
        Ok(Self {
            envoy: envoy?,
            module: module?,
            sidecar: sidecar?,
            sandbox: sandbox?,
            own_groups: false,
        })
    }

    pub fn pass_to(&self, command: &mut Command) {
        let Self { envoy, module, sidecar, sandbox, own_groups: _ } = self;
        command.envs(VARIABLES.into_iter().zip([envoy, module, sidecar, sandbox]));
    }

    /// See [`command`].
    pub fn command(&self, program: &Path) -> Command {
        let mut command = command(program);
        if self.own_groups {
            command.process_group(0);
        }
        command
    }
}

/// A variable that `cargo xtask` sets.
pub fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run cargo xtask"))
}

/// A file that `cargo xtask` names in a variable.
pub fn file(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(variable(name)?);
    ensure!(path.is_file(), "{name}={}: no such file: run cargo xtask", path.display());
    // Programs start in other directories.
    Ok(path.canonicalize()?)
}

/// A command that inherits only what is needed to reach Docker, so that the results do
/// not depend on the caller's environment.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in
        ["PATH", "HOME", "DOCKER_HOST", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "RUST_BACKTRACE"]
    {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // Not the configuration of this machine.
    command.env("EDGERUNNER_CONFIG", "");
    command
}
