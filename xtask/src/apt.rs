//! Debian and Ubuntu packages.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::command;
use crate::progress::Step;
use crate::rootfs::find;
use crate::stop::Stop;

/// Two steps may install something at the same time. apt-get waits for the lock of an installation,
/// and not for that of an update.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Installs `packages` if it may: as root, with apt. Otherwise the error says what to run.
pub(crate) async fn install(
    stop: &Stop,
    step: &mut Step,
    packages: &[&str],
    missing: &str,
) -> Result<()> {
    let names = packages.join(" ");
    if command::output(apt_get(&["--version"])).await.is_none() {
        bail!("{missing} is missing; install it with your system's package manager");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{missing} is missing; run `sudo apt-get install -y {names}` and try again");
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    step.say(&format!("{missing} is missing: installing {names} with apt-get"));
    command::run(stop, step, apt_get(&["update"])).await?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    command::run(stop, step, apt_get(&arguments)).await
}

/// Finds a program, or installs its package.
pub(crate) async fn program(stop: &Stop, program: &str, package: &str) -> Result<PathBuf> {
    let mut step = Step::start(program);
    if find(program).is_none() {
        install(stop, &mut step, &[package], program).await?;
    }
    let found = find(program).with_context(|| format!("{program} is still missing"))?;
    step.done(&found.display().to_string());
    Ok(found)
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        // Another apt may be running, as on a machine that has just booted.
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
