//! Python packages, each set in its own directory.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;

const STAMP: &str = "requirements.txt";

pub(crate) struct Packages {
    pub(crate) python: &'static str,
    pub(crate) directory: PathBuf,
}

impl Packages {
    /// Python with these packages, in the checkout.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.python);
        command.env("PYTHONPATH", &self.directory).current_dir(workspace::root());
        command
    }
}

/// Installs `requirements` to `target/NAME`, unless it is up to date.
pub(crate) async fn packages(stop: &Stop, name: &str, requirements: &Path) -> Result<Packages> {
    let mut step = Step::start(name);
    let directory = workspace::target().join(name);
    let python = with_pip(stop, &mut step).await?;
    if !installed(&directory, requirements) {
        install(stop, &mut step, python, &directory, requirements).await?;
    }
    step.done(&workspace::shown(&directory));
    Ok(Packages { python, directory })
}

/// Whether [`packages`] would have nothing to install.
pub(crate) fn are_installed(name: &str, requirements: &Path) -> bool {
    installed(&workspace::target().join(name), requirements)
}

/// Whether exactly these requirements are installed in `directory`.
fn installed(directory: &Path, requirements: &Path) -> bool {
    let stamp = std::fs::read(directory.join(STAMP));
    stamp.is_ok_and(|stamp| std::fs::read(requirements).is_ok_and(|now| stamp == now))
}

/// Installs exactly `requirements`, only from wheels. pip checks hashes where they are given.
async fn install(
    stop: &Stop,
    step: &mut Step,
    python: &str,
    directory: &Path,
    requirements: &Path,
) -> Result<()> {
    // Renamed at the end, so that an interrupted installation is never used.
    let partial = directory.with_extension("partial");
    remove(&partial)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--only-binary", ":all:", "--no-deps", "--no-input"])
        .args(["--disable-pip-version-check", "--no-compile", "--target"])
        .arg(&partial)
        .arg("-r")
        .arg(requirements)
        // A personal setting that cannot be combined with --target.
        .env("PIP_USER", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    command::run(stop, step, pip).await?;
    std::fs::copy(requirements, partial.join(STAMP))
        .with_context(|| format!("cannot write to {}", partial.display()))?;
    remove(directory)?;
    std::fs::rename(&partial, directory)
        .with_context(|| format!("cannot move packages to {}", directory.display()))
}

/// A Python with pip. The first one on the path may lack it.
async fn with_pip(stop: &Stop, step: &mut Step) -> Result<&'static str> {
    if let Some(python) = find().await {
        return Ok(python);
    }
    apt::install(stop, step, &["python3-pip"], "Python with pip").await?;
    find().await.context("python3-pip is installed, but `python3 -m pip` does not run")
}

async fn find() -> Option<&'static str> {
    for python in ["python3", "/usr/bin/python3"] {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--version"]);
        if command::output(command).await.is_some() {
            return Some(python);
        }
    }
    None
}

pub(crate) fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
