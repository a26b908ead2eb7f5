//! Builds the Envoy filter.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::cargo::{cargo, with_progress};
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;
use crate::target;

pub(crate) const TARGET: &str = "wasm32-wasip1";

/// Every worker of Envoy compiles it at start.
const BYTES_MAX: u64 = 300_000;

pub(crate) async fn run(stop: &Stop) -> Result<()> {
    let module = build(stop).await?;
    println!("{}", module.display());
    Ok(())
}

/// Lints it as it is built, with the libraries for this machine that its build has left.
pub(crate) async fn lints(stop: &Stop) -> Result<Command> {
    target::add(stop, TARGET).await?;
    let package = ["clippy", "--package=edgerunner-filter", "--lib", "--profile=wasm"];
    Ok(cargo([&package[..], &["--target", TARGET, "--", "--deny=warnings"]].concat()))
}

pub(crate) async fn build(stop: &Stop) -> Result<PathBuf> {
    target::add(stop, TARGET).await?;
    let mut step = Step::start("building the Envoy filter");
    let arguments =
        ["build", "--package=edgerunner-filter", "--lib", "--profile=wasm", "--target", TARGET];
    let mut build = cargo(arguments);
    // The tests run `up` with a wrapper, with which Cargo would compile everything again.
    build.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("CLIPPY_ARGS");
    command::run(stop, &mut step, with_progress(build)).await?;
    let module = workspace::target().join(TARGET).join("wasm/edgerunner_filter.wasm");
    let size = std::fs::metadata(&module)
        .with_context(|| format!("the build left no {}", module.display()))?
        .len();
    ensure!(size <= BYTES_MAX, "{}: {size} bytes, more than {BYTES_MAX}", module.display());
    step.done(&format!("{}, {size} bytes", workspace::shown(&module)));
    Ok(module)
}
