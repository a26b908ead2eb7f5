//! `edgerunner drain` and `edgerunner resume`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use super::{
    client::Client,
    output::{parse, print},
};
use crate::control::snapshot::Draining;

#[derive(Args)]
pub(super) struct Arguments {
    /// Only this pool. If left out, all pools.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
}

pub(super) fn drain(client: &Client, arguments: &Arguments) -> Result<()> {
    request(client, "/api/v1/drain", arguments)
}

pub(super) fn resume(client: &Client, arguments: &Arguments) -> Result<()> {
    request(client, "/api/v1/resume", arguments)
}

fn request(client: &Client, path: &str, arguments: &Arguments) -> Result<()> {
    let draining = client.post(path, &json!({ "pool": arguments.pool }))?;
    print(&format!("{}\n", describe(&parse(draining)?)))
}

pub(super) fn describe(Draining { draining, pools }: &Draining) -> String {
    match (draining, &pools[..]) {
        (true, _) => {
            "All pools are draining: no runners are launched until `edgerunner resume`.".into()
        }
        (false, []) => "No pool is draining.".into(),
        (false, pools) => format!(
            "Draining: {}. No runners are launched there until `edgerunner resume`.",
            pools.join(", ")
        ),
    }
}
