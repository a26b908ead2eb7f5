//! Debian's `webhook`, a receiver in Go that verifies GitHub's signatures and runs a
//! command for each delivery. With an empty command it only verifies and responds.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, Result};
use edgerunner_testkit::deployment::Secrets;
use serde_json::json;
use tokio::process::Command;

pub(crate) const RUNNING: &str = "webhook";
pub(crate) const VERIFYING: &str = "webhook-verifying";

/// `name` is [`RUNNING`] or [`VERIFYING`].
pub(crate) fn command(
    name: &str,
    directory: &Path,
    address: SocketAddr,
    secrets: &Secrets,
) -> Result<Command> {
    let hooks = json!([{
        // The last segment of the path.
        "id": "github",
        "execute-command": if name == RUNNING { "/bin/true" } else { "" },
        "http-methods": ["POST"],
        "response-message": "accepted",
        "success-http-response-code": 202,
        "trigger-rule-mismatch-http-response-code": 401,
        "trigger-rule": { "match": {
            "type": "payload-hmac-sha256",
            "secret": secrets.webhook,
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
        .args(["-ip", &address.ip().to_string(), "-port", &address.port().to_string()])
        .args(["-urlprefix", "webhooks"]);
    Ok(command)
}
