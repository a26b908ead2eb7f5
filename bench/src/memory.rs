//! The sidecar's memory with many queued jobs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_testkit::Deployment;
use serde_json::{Value, json};

use crate::burst::MAX;

const JOBS: usize = 10_000;
/// Webhooks at the same time.
const BATCH: usize = 200;
/// The filter's metric of accepted deliveries, in Envoy: requests to the sidecar would
/// add to its memory.
const ACCEPTED: &str = "wasmcustom.edgerunner.deliveries.hook.default.outcome.accepted";
const POLL_INTERVAL: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(300);

/// Measures with all runners busy and jobs waiting, and leaves them so.
pub(crate) async fn measure(deployment: &Deployment) -> Result<String> {
    let sidecar = deployment.sidecar()?.process()?;
    let before = sidecar.memory_kib()?;
    tokio::time::timeout(TIMEOUT, fill(deployment))
        .await
        .context("not all jobs were accepted in time")??;
    let after = sidecar.memory_kib()?;
    // Only now: a response of this size needs memory as well.
    let status = status(deployment).await?;
    let waiting = status["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    let waiting = waiting.iter().filter(|job| job["reason"] == "pool_max").count();
    ensure!(waiting == JOBS, "{waiting} jobs are waiting for the pool instead of {JOBS}");
    let shown = sidecar.memory_kib()?;
    Ok(format!(
        "memory of the sidecar: {} MiB after its start, {} MiB with {JOBS} queued jobs and {MAX} \
         busy runners, {} MiB after it listed all jobs",
        before / 1024,
        after / 1024,
        shown / 1024,
    ))
}

async fn fill(deployment: &Deployment) -> Result<()> {
    let sandbox = deployment.sandbox();
    // They must not end before the measurement does.
    let work = json!({ "labels": ["self-hosted"], "seconds": 3_600.0, "count": MAX });
    sandbox.queue(&work).await?;
    while busy(&status(deployment).await?) < MAX {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let base = accepted(deployment).await?;
    for queued in (BATCH..=JOBS).step_by(BATCH) {
        sandbox.queue(&json!({ "labels": ["self-hosted"], "count": BATCH })).await?;
        while accepted(deployment).await? < base + queued {
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
    Ok(())
}

async fn status(deployment: &Deployment) -> Result<Value> {
    deployment.sidecar()?.status().await
}

fn busy(status: &Value) -> usize {
    let runners = status["runners"].as_array().map_or(&[][..], Vec::as_slice);
    runners.iter().filter(|runner| runner["phase"] == "busy").count()
}

async fn accepted(deployment: &Deployment) -> Result<usize> {
    Ok(usize::try_from(deployment.envoy()?.stat(ACCEPTED).await?)?)
}
