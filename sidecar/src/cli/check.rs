//! `edgerunner check`: reports that the configuration is valid. Errors are reported before.

use std::path::Path;

use anyhow::Result;

use super::output::print;
use crate::config::Config;

/// `file`: where the configuration was read from.
pub(super) fn report_valid(config: &Config, file: Option<&Path>) -> Result<()> {
    let pools = config.pools.iter();
    let pools: Vec<String> =
        pools.map(|pool| format!("{} ({})", pool.name, pool.labels.join(", "))).collect();
    let file = file.map(|file| format!("Read from {}.\n", file.display())).unwrap_or_default();
    print(&format!("The configuration is valid. Pools: {}\n{file}", pools.join("; ")))
}
