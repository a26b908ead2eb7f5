//! Carries out one task on a node of a Docker Swarm: runs one runner from its start to its
//! removal, or tidies up.
//!
//! It knows neither GitHub nor the sidecar. Its task comes from a file, and what it reports
//! goes to standard output, from where Docker Swarm passes it on.

mod run;
mod runner;
#[cfg(test)]
mod tests;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::{
    config::{EngineAddress, Log},
    provider::{
        Error, ErrorKind, NodeTask, Report,
        docker::{Docker, Swept},
    },
    telemetry::logging,
};

/// Nothing was started: only then may Docker Swarm start the task again.
const NOTHING_STARTED: u8 = 70;
/// A sweep spares runners that were launched less than this before its list of runners.
const LIST_MARGIN_MS: u64 = 60_000;

/// How a launcher ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Also if a failure leaves open whether something was started.
    CarriedOut,
    NothingStarted,
}

struct Launcher<'a> {
    docker: Docker,
    /// Cancelled by SIGTERM or SIGINT.
    stop: &'a CancellationToken,
    report: &'a dyn Fn(&Report),
}

/// `order` is the file with the task; `docker_host` the address of the node's Engine.
pub(crate) fn launch(order: &Path, docker_host: Option<&str>) -> ExitCode {
    logging::init(&Log::default(), None);
    // One thread, which mostly waits: each runner has a launcher.
    let outcome = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(launch_until_signal(order, docker_host)),
        Err(cause) => fail(refusal(format!("the runtime did not start: {cause}"))),
    };
    match outcome {
        Outcome::CarriedOut => ExitCode::SUCCESS,
        Outcome::NothingStarted => ExitCode::from(NOTHING_STARTED),
    }
}

async fn launch_until_signal(order: &Path, docker_host: Option<&str>) -> Outcome {
    let begin = || Ok::<_, Error>((stop_on_signals()?, engine(docker_host)?, read(order)?));
    match begin() {
        Ok((stop, engine, task)) => {
            let docker = Docker::connect(&engine, task.instance());
            carry_out(task, docker, &stop, &print).await
        }
        Err(error) => fail(error),
    }
}

async fn carry_out(
    task: NodeTask,
    docker: Docker,
    stop: &CancellationToken,
    report: &dyn Fn(&Report),
) -> Outcome {
    let launcher = Launcher { docker, stop, report };
    match task {
        NodeTask::Run(order) => return Box::pin(launcher.run(order)).await,
        NodeTask::Attend { labels, stop_grace } => {
            launcher.attend(&labels.runner, stop_grace).await;
        }
        NodeTask::Remove { labels, stop_grace } => {
            report(&match launcher.try_remove(&labels.runner, stop_grace).await {
                Ok(()) => Report::ended(None, String::new()),
                Err(error) => failure(error),
            });
        }
        NodeTask::Log { runner, lines, .. } => {
            report(&match launcher.docker.log(&runner, lines).await {
                Ok(log) => Report::Log { log },
                Err(error) => failure(error),
            });
        }
        NodeTask::Sweep { alive, taken_at_unix_ms, .. } => {
            let launched_before = taken_at_unix_ms.saturating_sub(LIST_MARGIN_MS);
            let Swept { removed, failed } =
                launcher.docker.sweep_unknown(alive, launched_before).await;
            let failed = failed.into_iter().map(|error| error.message).collect();
            report(&Report::Swept { removed, failed });
        }
    }
    Outcome::CarriedOut
}

fn stop_on_signals() -> Result<CancellationToken, Error> {
    let handler = |kind| signal(kind).map_err(|cause| refusal(format!("no signals: {cause}")));
    let (mut terminate, mut interrupt) =
        (handler(SignalKind::terminate())?, handler(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => info!("SIGTERM"),
            _ = interrupt.recv() => info!("SIGINT"),
        }
        stopped.cancel();
    });
    Ok(stop)
}

/// The Engine of the launcher's own node.
fn engine(docker_host: Option<&str>) -> Result<EngineAddress, Error> {
    match docker_host {
        None | Some("") => Ok(EngineAddress::default()),
        Some(host) => match host.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            Some(path) => Ok(EngineAddress::Unix(path.into())),
            None => Err(refusal(
                "DOCKER_HOST: a launcher uses the Docker Engine of its own node: write \
                 unix:///PATH/docker.sock",
            )),
        },
    }
}

/// The error repeats nothing of the file, which contains secrets.
fn read(file: &Path) -> Result<NodeTask, Error> {
    let shown = file.display();
    let text = fs::read(file).map_err(|cause| {
        refusal(format!("--order: cannot read {shown}: {cause}; name the file that `serve` wrote"))
    })?;
    serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_slice(&text)).map_err(
        |error| {
            let place = error.path().to_string();
            refusal(format!(
                "--order: {shown} is not a task of this version of edgerunner, at {place}: use the \
                 sidecar's own version as swarm.launcher_image"
            ))
        },
    )
}

fn refusal(message: impl Into<String>) -> Error {
    Error { kind: ErrorKind::Refused, message: message.into() }
}

fn failure(Error { kind, message }: Error) -> Report {
    Report::Failed { kind, message }
}

/// For what goes wrong before a task begins.
fn fail(error: Error) -> Outcome {
    error!(error = error.message, "nothing was started");
    print(&failure(error));
    Outcome::NothingStarted
}

/// One line, sent at once.
fn print(report: &Report) {
    let mut output = io::stdout().lock();
    let line = serde_json::to_string(report).unwrap_or_default();
    if let Err(error) = writeln!(output, "{line}").and_then(|()| output.flush()) {
        error!(%error, "a report is lost");
    }
}
