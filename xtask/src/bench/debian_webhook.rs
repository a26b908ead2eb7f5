//! Another receiver this is measured against: `webhook`, a program in Go that Debian
//! has, with a rule for GitHub's signatures. It is made to run a command for each
//! delivery; with one that does not exist it verifies and answers alone.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use tokio::process::Command;

use crate::apt;
use crate::command;
use crate::ports::local;
use crate::programs::Secrets;
use crate::progress::Step;
use crate::stop::Stop;

pub(super) const RUNNING: &str = "webhook";
pub(super) const VERIFYING: &str = "webhook-verifying";

pub(super) async fn install(stop: &Stop) -> Result<()> {
    let mut step = Step::start("webhook");
    let version = match version().await {
        Some(version) => version,
        None => {
            apt::install(stop, &mut step, &["webhook"], "webhook").await?;
            version().await.context("the package webhook is installed, yet does not run")?
        }
    };
    step.done(version.trim());
    Ok(())
}

async fn version() -> Option<String> {
    let mut command = Command::new("webhook");
    command.arg("-version");
    command::answer(command).await
}

/// `name` is one of those above.
pub(super) fn command(
    name: &str,
    directory: &Path,
    port: u16,
    secrets: &Secrets,
) -> Result<Command> {
    let hooks = json!([{
        // The last part of the path.
        "id": "github",
        "execute-command": if name == RUNNING { "/bin/true" } else { "" },
        "http-methods": ["POST"],
        "response-message": "accepted",
        "success-http-response-code": 202,
        "trigger-rule-mismatch-http-response-code": 401,
        "trigger-rule": { "match": {
            "type": "payload-hmac-sha256",
            "secret": secrets.webhook(),
            "parameter": { "source": "header", "name": "X-Hub-Signature-256" },
        } },
    }]);
    let path = directory.join(format!("{name}.json"));
    std::fs::write(&path, hooks.to_string())
        .with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new("webhook");
    command
        .arg("-hooks")
        .arg(path)
        .args(["-ip", &local(port).ip().to_string(), "-port", &port.to_string()])
        .args(["-urlprefix", "webhooks"]);
    Ok(command)
}
