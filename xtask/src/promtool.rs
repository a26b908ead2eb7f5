//! What tries metrics and alert rules: Prometheus's own tool.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::progress::Step;
use crate::stop::Stop;
use crate::workspace;

pub(crate) async fn get(stop: &Stop) -> Result<PathBuf> {
    apt::program(stop, "promtool", "prometheus").await
}

/// The rules, and what they make of invented time series.
pub(crate) async fn test_rules(stop: &Stop, promtool: &Path) -> Result<()> {
    let mut step = Step::start("alert rules");
    for arguments in [
        ["check", "rules", "--lint-fatal", "alerts.yaml"].as_slice(),
        &["test", "rules", "alerts.test.yaml"],
    ] {
        let mut command = Command::new(promtool);
        command.args(arguments).current_dir(workspace::root().join("packaging/prometheus"));
        command::run(stop, &mut step, command).await?;
    }
    step.done("packaging/prometheus");
    Ok(())
}
