//! Programs that the tests use, as `cargo xtask test` installs them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use edgerunner_testkit::programs::{command, file, variable};
use tokio::process::Command;

/// The image of a Docker Engine for one runner.
pub fn dind_image() -> Result<String> {
    variable("EDGERUNNER_DIND_IMAGE")
}

/// The image of the Envoy that pools with `egress` use.
pub fn egress_image() -> Result<String> {
    variable("EDGERUNNER_EGRESS_IMAGE")
}

/// The image of a runner that tries to get around it.
pub fn hostile_image() -> Result<String> {
    variable("EDGERUNNER_HOSTILE_IMAGE")
}

/// The command that runs Docker Compose, in one or two words.
pub fn compose() -> Result<String> {
    variable("EDGERUNNER_COMPOSE")
}

/// The script of axe-core, which finds accessibility problems.
pub fn axe() -> Result<PathBuf> {
    file("EDGERUNNER_AXE")
}

/// Chromedriver and Chromium.
pub fn browser() -> Result<(PathBuf, PathBuf)> {
    Ok((file("EDGERUNNER_CHROMEDRIVER")?, file("EDGERUNNER_CHROMIUM")?))
}

/// An image registry.
pub fn registry() -> Result<PathBuf> {
    file("EDGERUNNER_REGISTRY")
}

/// The programs of a Docker Engine that can be part of a Swarm, in `bin` and `sbin`.
pub fn swarm_programs() -> Result<PathBuf> {
    Ok(PathBuf::from(variable("EDGERUNNER_SWARM_PROGRAMS")?))
}

/// Podman, which some tests use in Docker's place.
pub fn podman() -> Result<PathBuf> {
    file("EDGERUNNER_PODMAN")
}

pub fn promtool() -> Result<Command> {
    Ok(command(&file("EDGERUNNER_PROMTOOL")?))
}

/// An OpenID Connect provider: Canaille, with the people in `sign-in/provider.py`. Its arguments are
/// missing.
pub fn identity_provider() -> Result<Command> {
    let mut command = command(Path::new(&variable("EDGERUNNER_PYTHON")?));
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/sign-in/provider.py"))
        .env("PYTHONPATH", variable("EDGERUNNER_CANAILLE")?)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Schemathesis, which tests an API against its OpenAPI description.
pub fn schemathesis() -> Result<Command> {
    let mut command = command(Path::new(&variable("EDGERUNNER_PYTHON")?));
    command
        .args(["-m", "schemathesis.cli"])
        .env("PYTHONPATH", variable("EDGERUNNER_SCHEMATHESIS")?)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}
