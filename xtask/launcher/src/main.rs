//! `cargo xtask`: compiles the tasks in `xtask/`, then runs one.

use std::env::consts::EXE_SUFFIX;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

/// Incremental compilation takes longer the first time, and a third of `target/`.
const INCREMENTAL: &str = "CARGO_INCREMENTAL";

fn main() -> ExitCode {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = manifest.ancestors().nth(2).unwrap_or(manifest);
    // Cargo puts both into the same directory.
    let own = std::env::current_exe().unwrap_or_default();
    let tasks = own.with_file_name(format!("xtask{EXE_SUFFIX}"));
    let incremental = std::env::var_os(INCREMENTAL).unwrap_or_else(|| "0".into());

    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if !tasks.is_file() {
        eprintln!("Compiling cargo xtask itself first: about a minute on two cores");
    }
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The whole workspace, so that the features are those of all other commands.
    build.args(["build", "--workspace", "--bin=xtask"]).current_dir(root);
    forget_this_package(&mut build);
    match build.env(INCREMENTAL, &incremental).status() {
        Ok(status) if status.success() => {}
        Ok(_) => return ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot run cargo: {error}");
            return ExitCode::FAILURE;
        }
    }
    let mut task = Command::new(&tasks);
    task.args(std::env::args_os().skip(1)).env(INCREMENTAL, &incremental);
    forget_this_package(&mut task);
    task.env("XTASK_STARTED_MS", started.as_millis().to_string());
    let error = task.exec();
    eprintln!("error: cannot run {}: {error}", tasks.display());
    ExitCode::FAILURE
}

/// Removes the variables that describe this package to this program. Build scripts, such as ring's,
/// run again where these differ, and then all that needs their libraries is compiled again.
fn forget_this_package(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let describes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_NAME", "CARGO_BIN_NAME"];
        if name.to_str().is_some_and(|name| describes.iter().any(|it| name.starts_with(it))) {
            command.env_remove(name);
        }
    }
}
