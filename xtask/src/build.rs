//! Cargo builds of this workspace.

use std::ffi::OsStr;
use std::path::PathBuf;

use anyhow::Result;
use edgerunner_testkit::{Programs, workspace};
use tokio::process::Command;

use crate::command;
use crate::envoy;
use crate::progress::Step;
use crate::stop::Stop;
use crate::wasm;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Dev => "--profile=dev",
            Self::Release => "--profile=release",
        }
    }

    pub(crate) fn directory(self) -> PathBuf {
        self.directory_of(None)
    }

    /// Where Cargo puts builds for this target; by default for this machine.
    pub(crate) fn directory_of(self, target: Option<&str>) -> PathBuf {
        workspace::target().join(target.unwrap_or_default()).join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    // Set by `cargo xtask`: the cargo that built this program.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root());
    command
}

/// Builds or downloads all programs.
pub(crate) async fn programs(stop: &Stop, profile: Profile) -> Result<Programs> {
    let envoy = envoy::get(stop).await?;
    let module = wasm::build(stop).await?;
    sidecar_and_sandbox(stop, profile).await?;
    Ok(built(envoy, module, profile))
}

pub(crate) fn built(envoy: PathBuf, module: PathBuf, profile: Profile) -> Programs {
    let binary = |name| profile.directory().join(name);
    let (sidecar, sandbox) = (binary("edgerunner"), binary("edgerunner-sandbox"));
    Programs { envoy, module, sidecar, sandbox, own_groups: true }
}

pub(crate) async fn sidecar_and_sandbox(stop: &Stop, profile: Profile) -> Result<()> {
    let mut step = Step::start("building sidecar and sandbox");
    let arguments = [
        "build",
        profile.flag(),
        // The features of shared libraries are those of all packages, as in the tests, so
        // that each library is compiled once for both.
        "--workspace",
        "--bin=edgerunner",
        "--bin=edgerunner-sandbox",
    ];
    command::run(stop, &mut step, cargo(arguments)).await?;
    step.done(&workspace::shown(&profile.directory()));
    Ok(())
}
