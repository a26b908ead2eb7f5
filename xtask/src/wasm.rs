//! The filter as Envoy loads it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use tokio::process::Command;

use crate::build::cargo;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

pub(crate) const TARGET: &str = "wasm32-wasip1";

pub(crate) async fn run(stop: &Stop) -> Result<()> {
    let module = build(stop).await?;
    println!("{}", module.display());
    Ok(())
}

pub(crate) async fn build(stop: &Stop) -> Result<PathBuf> {
    target(stop).await?;
    let mut step = Step::start("building the Envoy filter");
    let arguments =
        ["build", "--package=edgerunner-filter", "--lib", "--profile=wasm", "--target", TARGET];
    command::run(stop, &mut step, cargo(arguments)).await?;
    let module = workspace::target().join(TARGET).join("wasm/edgerunner_filter.wasm");
    let size = std::fs::metadata(&module)
        .with_context(|| format!("the build left no {}", module.display()))?
        .len();
    step.done(&format!("{}, {size} bytes", workspace::shown(&module)));
    Ok(module)
}

/// Sees that the standard library for wasm is installed.
pub(crate) async fn target(stop: &Stop) -> Result<()> {
    let mut list = Command::new("rustup");
    list.args(["target", "list", "--installed"]).current_dir(workspace::root());
    match command::answer(list).await {
        Some(installed) if installed.lines().any(|line| line.trim() == TARGET) => Ok(()),
        Some(_) => {
            let mut step = Step::start(format!("installing the Rust target {TARGET}"));
            let mut add = Command::new("rustup");
            add.args(["target", "add", TARGET]).current_dir(workspace::root());
            command::run(stop, &mut step, add).await?;
            step.done("with rustup");
            Ok(())
        }
        None if standard_library_is_there().await => Ok(()),
        None => bail!(
            "this Rust toolchain has no {TARGET} and no rustup to add it with; \
             install rustup, or your distribution's package of Rust's standard library for wasm32-wasi"
        ),
    }
}

/// Toolchains that came without rustup may bring the target as a package.
async fn standard_library_is_there() -> bool {
    let mut rustc = Command::new("rustc");
    rustc.args(["--print", "target-libdir", "--target", TARGET]);
    let Some(directory) = command::answer(rustc).await else {
        return false;
    };
    std::fs::read_dir(directory.trim()).is_ok_and(|mut files| files.next().is_some())
}
