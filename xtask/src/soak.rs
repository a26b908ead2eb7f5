//! Runs the fault suite for minutes; `cargo xtask test` runs its short form.

use anyhow::Result;

use crate::build;
use crate::command;
use crate::docker;
use crate::image;
use crate::stop::Stop;
use crate::test::{PROFILE, end_to_end_tests};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seed for the times and the order of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    let programs = build::programs(stop, PROFILE).await?;
    let engine = docker::engine(stop).await?;
    let result = async {
        image::build(stop, &engine, PROFILE).await?;
        let mut command = end_to_end_tests(&programs, &["--test=faults"]);
        command.env("EDGERUNNER_SOAK", args.seed.to_string());
        command::show(stop, command).await
    }
    .await;
    engine.stop().await;
    result
}
