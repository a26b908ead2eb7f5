//! The receiver this is measured against: FastAPI under gunicorn.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tokio::process::Command;

use crate::ports::local;
use crate::programs::Secrets;
use crate::progress::Step;
use crate::python;
use crate::stop::Stop;
use crate::workspace;

use super::machine;

pub(super) const NAME: &str = "gunicorn";

pub(super) struct Packages {
    python: &'static str,
    directory: PathBuf,
}

pub(super) async fn install(stop: &Stop) -> Result<Packages> {
    let mut step = Step::start("FastAPI and gunicorn");
    let directory = workspace::target().join("fastapi");
    let requirements = source().join("requirements.txt");
    let python = python::with_pip(stop, &mut step).await?;
    if !python::installed(&directory, &requirements) {
        python::install(stop, &mut step, &directory, &requirements, false).await?;
    }
    step.done(&workspace::shown(&directory));
    Ok(Packages { python, directory })
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
