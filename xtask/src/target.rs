//! Targets of the Rust toolchain.

use anyhow::{Result, bail};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::command;
use crate::progress::Step;
use crate::stop::Stop;

/// Whether the standard library for this target is installed; `None` without rustup.
pub(crate) async fn is_installed(target: &str) -> Option<bool> {
    let mut list = Command::new("rustup");
    list.args(["target", "list", "--installed"]).current_dir(workspace::root());
    let installed = command::output(list).await?;
    Some(installed.lines().any(|line| line.trim() == target))
}

/// Installs the standard library for this target.
pub(crate) async fn add(stop: &Stop, target: &str) -> Result<()> {
    match is_installed(target).await {
        Some(true) => Ok(()),
        Some(false) => {
            let mut step = Step::start(format!("installing the Rust target {target}"));
            let mut add = Command::new("rustup");
            add.args(["target", "add", target]).current_dir(workspace::root());
            command::run(stop, &mut step, add).await?;
            step.done("with rustup");
            Ok(())
        }
        None if standard_library_is_there(target).await => Ok(()),
        None => bail!(
            "this Rust toolchain has no {target} and no rustup to add it with; \
             install rustup, or your distribution's package of Rust's standard library for it"
        ),
    }
}

/// Without rustup, the target may come from a distribution's package.
async fn standard_library_is_there(target: &str) -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", target]);
    let Some(directory) = command::output(rustc).await else {
        return false;
    };
    std::fs::read_dir(directory.trim()).is_ok_and(|mut files| files.next().is_some())
}
