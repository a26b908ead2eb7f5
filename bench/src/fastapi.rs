//! FastAPI under gunicorn, the receiver that webhooks are compared with.

use std::net::SocketAddr;

use anyhow::Result;
use edgerunner_testkit::deployment::Secrets;
use edgerunner_testkit::programs::variable;
use edgerunner_testkit::workspace;
use tokio::process::Command;

use crate::machine;

pub(crate) const NAME: &str = "gunicorn";

/// Uvicorn workers under gunicorn, as such services usually run.
pub(crate) fn command(address: SocketAddr, secrets: &Secrets) -> Result<Command> {
    let mut command = Command::new(variable("EDGERUNNER_PYTHON")?);
    command
        .args(["-m", "gunicorn", "--worker-class=uvicorn_worker.UvicornWorker"])
        .args(["--workers", &machine::cores().to_string()])
        .args(["--bind", &address.to_string(), "--log-level=warning", "app:app"])
        .current_dir(workspace::root().join("bench/fastapi"))
        .env("PYTHONPATH", variable("EDGERUNNER_FASTAPI")?)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GITHUB_WEBHOOK_SECRET", &secrets.webhook);
    Ok(command)
}
