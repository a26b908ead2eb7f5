use anyhow::Result;

use super::output::print;
use crate::config::Config;

pub(super) fn approve(config: &Config) -> Result<()> {
    let pools = config.pools.iter();
    let pools: Vec<String> =
        pools.map(|pool| format!("{} ({})", pool.name, pool.labels.join(", "))).collect();
    print(&format!("The configuration is right. Pools: {}\n", pools.join("; ")))
}
