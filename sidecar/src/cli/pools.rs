//! `edgerunner pools`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, parse},
};
use crate::control::snapshot::PoolView;

pub(super) fn show(client: &Client, output: Output) -> Result<()> {
    output.show(|| client.get("/api/v1/pools"), table)
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
        "LEAVING",
        "MAX",
        "DRAINING",
    ];
    let mut table = Table::new(names, &[]).cut(&[(0, 22), (1, 16)]).optional(&[1, 6, 3, 4, 8]);
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
            pool.leaving.to_string(),
            pool.max.to_string(),
            draining(pool).to_owned(),
        ]);
    }
    table
}

fn draining(pool: &PoolView) -> &'static str {
    match (pool.all_draining, pool.draining) {
        (true, _) => "all pools",
        (false, true) => "yes",
        (false, false) => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        control::{clock, snapshot::Snapshot},
    };
    use edgerunner_scheduler::plan::{self, Event, State};

    #[test]
    fn the_column_shows_whether_a_pool_or_all_pools_drain() {
        let mut state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let mut shown = |pool, drains| {
            plan::plan(&mut state, Event::Drain { pool, draining: drains }, clock::now());
            draining(&Snapshot::new(&state, clock::now()).pools[0])
        };
        assert_eq!(shown(Some(0), true), "yes");
        assert_eq!(shown(None, true), "all pools");
        assert_eq!(shown(None, false), "");
    }
}
