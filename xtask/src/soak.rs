//! Runs the random walk of the planner and the fault suite for minutes; `cargo xtask test` runs
//! their short forms.

use anyhow::Result;

use crate::build;
use crate::cargo::{Profile, cargo};
use crate::command;
use crate::debs;
use crate::docker;
use crate::image;
use crate::packages;
use crate::stop::Stop;
use crate::swarm;

/// Several sidecars get 500 deliveries a second, and limits of time are checked.
const PROFILE: Profile = Profile::Release;

/// Seeds of the random walk; the tests walk a tenth of them.
const WALK_SEEDS: u32 = 2_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seed for the times and the order of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only fault scenarios whose name contains this text
    name: Option<String>,
}

pub(crate) async fn run(stop: &Stop, args: Args) -> Result<()> {
    if args.name.is_none() {
        let mut walk = cargo(["test", PROFILE.flag(), "--workspace", "--lib", "plan::tests::walk"]);
        walk.env("EDGERUNNER_WALK_SEEDS", WALK_SEEDS.to_string());
        command::show(stop, walk).await?;
    }
    let programs = build::programs(stop, PROFILE).await?;
    let engine = docker::engine(stop).await?;
    let result = async {
        image::build(stop, &engine, PROFILE).await?;
        packages::build_images_with_libraries(stop, &engine, &programs).await?;
        let mut faults = cargo(["test", PROFILE.flag(), "--workspace", "--test=faults", "--"]);
        faults.args(args.name);
        programs.pass_to(&mut faults);
        faults
            .env("EDGERUNNER_SOAK", args.seed.to_string())
            .env(swarm::PROGRAMS, debs::engine(stop).await?);
        command::show(stop, faults).await
    }
    .await;
    engine.stop().await;
    result
}
