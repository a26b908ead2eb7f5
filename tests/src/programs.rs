use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

/// What is tested, as `cargo xtask test` has built or fetched it.
pub struct Programs {
    pub envoy: PathBuf,
    /// The filter.
    pub module: PathBuf,
    pub sidecar: PathBuf,
    /// The image of the stand-in runner.
    pub runner_image: String,
}

impl Programs {
    pub fn from_environment() -> Result<Self> {
        Ok(Self {
            envoy: file("EDGERUNNER_ENVOY")?,
            module: file("EDGERUNNER_WASM")?,
            sidecar: file("EDGERUNNER_SIDECAR")?,
            runner_image: variable("EDGERUNNER_RUNNER_IMAGE")?,
        })
    }
}

/// Of an Engine for a runner alone.
pub fn dind_image() -> Result<String> {
    variable("EDGERUNNER_DIND_IMAGE")
}

/// The words that run Docker Compose.
pub(crate) fn compose() -> Result<String> {
    variable("EDGERUNNER_COMPOSE")
}

/// The script that finds what keeps people from using a page.
pub fn axe() -> Result<PathBuf> {
    file("EDGERUNNER_AXE")
}

/// The program that drives a browser, and the browser.
pub fn browser() -> Result<(PathBuf, PathBuf)> {
    Ok((file("EDGERUNNER_CHROMEDRIVER")?, file("EDGERUNNER_CHROMIUM")?))
}

/// The program that serves images.
pub(crate) fn registry() -> Result<PathBuf> {
    file("EDGERUNNER_REGISTRY")
}

/// What tries metrics.
pub fn promtool() -> Result<Command> {
    Ok(command(&file("EDGERUNNER_PROMTOOL")?))
}

/// What tries an API against its description.
pub fn schemathesis() -> Result<Command> {
    let mut command = command(Path::new(&variable("EDGERUNNER_PYTHON")?));
    command
        .args(["-m", "schemathesis.cli"])
        .env("PYTHONPATH", variable("EDGERUNNER_SCHEMATHESIS")?)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).with_context(|| format!("{name} is not set: run cargo xtask test"))
}

fn file(name: &str) -> Result<PathBuf> {
    let path = PathBuf::from(variable(name)?);
    ensure!(path.is_file(), "{name}={}: no such file: run cargo xtask test", path.display());
    // Tests start programs in directories of their own.
    Ok(path.canonicalize()?)
}

/// A command that sees nothing of our environment but how to reach Docker:
/// variables meant for another set-up must not change this one.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "HOME", "DOCKER_HOST", "RUST_BACKTRACE"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
