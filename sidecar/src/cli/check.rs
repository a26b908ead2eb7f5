//! `edgerunner check`: reports that the configuration is valid. Errors are reported before.

use anyhow::Result;

use super::output::print;
use crate::config::Config;

pub(super) fn report_valid(config: &Config) -> Result<()> {
    let pools = config.pools.iter();
    let pools: Vec<String> =
        pools.map(|pool| format!("{} ({})", pool.name, pool.labels.join(", "))).collect();
    print(&format!("The configuration is valid. Pools: {}\n", pools.join("; ")))
}
