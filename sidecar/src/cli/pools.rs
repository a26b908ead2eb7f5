//! `edgerunner pools`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::get,
    output::{Output, Table, parse},
};
use crate::{config::Config, control::snapshot::PoolView};

pub(super) fn show(config: &Config, output: Output) -> Result<()> {
    output.show(|| get(config, "/api/v1/pools"), table)
}

fn table(pools: &Value) -> Result<String> {
    let pools: Vec<PoolView> = parse(pools.clone())?;
    Ok(to_table(&pools).fitted())
}

pub(super) fn to_table(pools: &[PoolView]) -> Table {
    let names = [
        "POOL",
        "LABELS",
        "QUEUED",
        "LAUNCHING",
        "STARTING",
        "IDLE",
        "MIN IDLE",
        "BUSY",
        "MAX",
        "DRAINING",
    ];
    let mut table = Table::new(names, &[]);
    for pool in pools {
        table.push([
            pool.name.clone(),
            pool.labels.join(" "),
            pool.queued.to_string(),
            pool.provisioning.to_string(),
            pool.starting.to_string(),
            pool.idle.to_string(),
            pool.min_idle.to_string(),
            pool.busy.to_string(),
            pool.max.to_string(),
            (if pool.draining { "yes" } else { "" }).to_owned(),
        ]);
    }
    table
}
