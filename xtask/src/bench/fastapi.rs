//! The receiver this is measured against: FastAPI under gunicorn.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::ports::local;
use crate::programs::Secrets;
use crate::python::{self, Packages};
use crate::stop::Stop;

use super::machine;

pub(super) const NAME: &str = "gunicorn";

pub(super) async fn install(stop: &Stop) -> Result<Packages> {
    python::packages(stop, "fastapi", &source().join("requirements.txt")).await
}

/// Uvicorn workers under gunicorn, the set-up such services usually run in.
pub(super) fn command(packages: &Packages, port: u16, secrets: &Secrets) -> Command {
    let mut command = Command::new(packages.python);
    command
        .args(["-m", "gunicorn", "--worker-class=uvicorn_worker.UvicornWorker"])
        .args(["--workers", &machine::cores().to_string()])
        .args(["--bind", &local(port).to_string(), "--log-level=warning", "app:app"])
        .current_dir(source())
        .env("PYTHONPATH", &packages.directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("GITHUB_WEBHOOK_SECRET", secrets.webhook());
    command
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/fastapi")
}
