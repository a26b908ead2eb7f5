//! The programs that run together: builds and downloads.

use std::path::PathBuf;

use anyhow::Result;
use edgerunner_testkit::{Programs, workspace};

use crate::cargo::{Profile, cargo, with_progress};
use crate::command;
use crate::envoy;
use crate::progress::Step;
use crate::stop::Stop;
use crate::wasm;

/// Builds or downloads all programs.
pub(crate) async fn programs(stop: &Stop, profile: Profile) -> Result<Programs> {
    let (envoy, module, ()) =
        tokio::try_join!(envoy::get(stop), wasm::build(stop), sidecar_and_sandbox(stop, profile))?;
    Ok(built(envoy, module, profile))
}

pub(crate) fn built(envoy: PathBuf, module: PathBuf, profile: Profile) -> Programs {
    let binary = |name| profile.directory().join(name);
    let (sidecar, sandbox) = (binary("edgerunner"), binary("edgerunner-sandbox"));
    Programs { envoy, module, sidecar, sandbox, own_groups: true }
}

pub(crate) async fn sidecar_and_sandbox(stop: &Stop, profile: Profile) -> Result<()> {
    let mut step = Step::start("building sidecar, sandbox and runner");
    let arguments = [
        "build",
        profile.flag(),
        // The features of shared libraries are those of all packages, as in the tests, so
        // that each library is compiled once for both.
        "--workspace",
        "--bin=edgerunner",
        "--bin=edgerunner-sandbox",
        "--bin=edgerunner-sandbox-runner",
        "--bin=edgerunner-entrypoint",
    ];
    command::run(stop, &mut step, with_progress(cargo(arguments))).await?;
    step.done(&workspace::shown(&profile.directory()));
    Ok(())
}
