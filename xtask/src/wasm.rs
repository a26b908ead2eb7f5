//! Builds the Envoy filter.

use std::path::PathBuf;

use anyhow::{Context, Result};
use edgerunner_testkit::workspace;

use crate::cargo::cargo;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;
use crate::target;

pub(crate) const TARGET: &str = "wasm32-wasip1";

pub(crate) async fn run(stop: &Stop) -> Result<()> {
    let module = build(stop).await?;
    println!("{}", module.display());
    Ok(())
}

pub(crate) async fn build(stop: &Stop) -> Result<PathBuf> {
    target::add(stop, TARGET).await?;
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
