//! Debian and Ubuntu packages, for what cannot be fetched otherwise.

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::stop::Stop;

/// Installs `packages` where that can be done without asking: as root, with
/// apt. Elsewhere says what to run.
pub(crate) async fn install(
    stop: &Stop,
    step: &mut Step,
    packages: &[&str],
    missing: &str,
) -> Result<()> {
    let names = packages.join(" ");
    if command::answer(apt_get(&["--version"])).await.is_none() {
        bail!("{missing} is missing; install it with your system's package manager");
    }
    if !rustix::process::geteuid().is_root() {
        bail!("{missing} is missing; run `sudo apt-get install -y {names}` and try again");
    }
    step.say(&format!("{missing} is missing: installing {names} with apt-get"));
    command::run(stop, step, apt_get(&["update"])).await?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(packages);
    command::run(stop, step, apt_get(&arguments)).await
}

fn apt_get(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command
        // Another apt may be at work, as on a machine that just booted.
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command
}
