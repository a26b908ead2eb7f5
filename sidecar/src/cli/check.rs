//! `edgerunner check`: reports that the configuration is valid, and warnings. Errors are reported
//! before.

use std::path::Path;

use anyhow::Result;

use super::output::print;
use crate::config::Config;

/// `file`: where the configuration was read from.
pub(super) fn report_valid(config: &Config, file: Option<&Path>) -> Result<()> {
    print(&describe(config, file))
}

/// What there is to say about a valid configuration.
pub(super) fn describe(config: &Config, file: Option<&Path>) -> String {
    let pools = config.pools.iter();
    let pools: Vec<String> =
        pools.map(|pool| format!("{} ({})", pool.name, pool.labels.join(", "))).collect();
    let mut text = format!("The configuration is valid. Pools: {}\n", pools.join("; "));
    if let Some(file) = file {
        text.push_str(&format!("Read from {}.\n", file.display()));
    }
    for warning in config.warnings() {
        text.push_str(&format!("warning: {warning}.\n"));
    }
    text
}
