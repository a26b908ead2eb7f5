//! `edgerunner drain | resume`: tells a running sidecar.

use anyhow::{Context as _, Result};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{client, config::Config, snapshot::Snapshot};

#[derive(Args)]
pub struct Choice {
    /// This pool alone; all of them if left out.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
}

/// What the API answers to both.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Draining {
    /// All pools.
    pub draining: bool,
    /// Those that drain by themselves.
    pub pools: Vec<String>,
}

impl Draining {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let pools = snapshot.pools.iter().filter(|pool| pool.draining);
        Self { draining: snapshot.draining, pools: pools.map(|pool| pool.name.clone()).collect() }
    }

    pub(crate) fn describe(&self) -> String {
        match (self.draining, &self.pools[..]) {
            (true, _) => "All pools drain: nothing is launched until `edgerunner resume`.".into(),
            (false, []) => "No pool drains.".into(),
            (false, pools) => format!(
                "Draining: {}. Nothing is launched there until `edgerunner resume`.",
                pools.join(", ")
            ),
        }
    }
}

pub fn drain(config: &Config, choice: &Choice) -> Result<()> {
    tell(config, "/api/v1/drain", choice)
}

pub fn resume(config: &Config, choice: &Choice) -> Result<()> {
    tell(config, "/api/v1/resume", choice)
}

fn tell(config: &Config, path: &str, choice: &Choice) -> Result<()> {
    let answer = client::post(config, path, &json!({ "pool": choice.pool }))?;
    let draining: Draining =
        serde_json::from_value(answer).context("the sidecar that answers is of another version")?;
    println!("{}", draining.describe());
    Ok(())
}
