//! `edgerunner check`: reports that the configuration is valid, and warnings. Errors are reported
//! before.

use anyhow::Result;

use super::output::print;
use crate::config::Config;

pub(super) fn report_valid(config: &Config) -> Result<()> {
    let pools = config.pools.iter();
    let pools: Vec<String> =
        pools.map(|pool| format!("{} ({})", pool.name, pool.labels.join(", "))).collect();
    let mut text = format!("The configuration is valid. Pools: {}\n", pools.join("; "));
    for warning in config.warnings() {
        text.push_str(&format!("warning: {warning}.\n"));
    }
    print(&text)
}
