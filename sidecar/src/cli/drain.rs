//! `edgerunner drain | resume`: tells a running sidecar.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    client,
    output::{parse, print},
};
use crate::{config::Config, control::snapshot::Draining};

#[derive(Args)]
pub(super) struct Choice {
    /// This pool alone; all of them if left out.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
}

pub(super) fn drain(config: &Config, choice: &Choice) -> Result<()> {
    tell(config, "/api/v1/drain", choice)
}

pub(super) fn resume(config: &Config, choice: &Choice) -> Result<()> {
    tell(config, "/api/v1/resume", choice)
}

fn tell(config: &Config, path: &str, choice: &Choice) -> Result<()> {
    let answer = client::post(config, path, &json!({ "pool": choice.pool }))?;
    print(&format!("{}\n", describe(&parse(answer)?)))
}

pub(super) fn describe(Draining { draining, pools }: &Draining) -> String {
    match (draining, &pools[..]) {
        (true, _) => "All pools drain: nothing is launched until `edgerunner resume`.".into(),
        (false, []) => "No pool drains.".into(),
        (false, pools) => format!(
            "Draining: {}. Nothing is launched there until `edgerunner resume`.",
            pools.join(", ")
        ),
    }
}
