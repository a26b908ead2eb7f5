//! What the sidecar holds in memory.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::http;
use crate::ports::local;
use crate::progress::Step;
use crate::sandbox::Sandbox;
use crate::stack::Stack;

use super::burst::MAX;

const JOBS: usize = 10_000;
/// So many webhooks are on their way at once.
const BATCH: usize = 200;
/// The filter's count of what the sidecar has taken, in Envoy: to ask the sidecar would
/// add to what is measured.
const ACCEPTED: &str = "wasmcustom.edgerunner.deliveries.hook.default.outcome.accepted";
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
const TIMEOUT: Duration = Duration::from_secs(300);

/// With all runners busy and jobs waiting for them. They are left at that.
pub(super) async fn measure(stack: &Stack) -> Result<String> {
    let mut step = Step::start(format!("{JOBS} jobs queued behind {MAX} runners"));
    let sidecar = stack.process("sidecar").context("no sidecar")?;
    let before = sidecar.memory_kib()?;
    tokio::time::timeout(TIMEOUT, fill(stack, &mut step))
        .await
        .context("the jobs were not all taken in")??;
    let after = sidecar.memory_kib()?;
    // Not before: an answer of this size needs memory of its own.
    let status = status(stack).await?;
    let waiting = status["waiting"].as_array().map_or(&[][..], Vec::as_slice);
    let waiting = waiting.iter().filter(|job| job["reason"] == "pool_max").count();
    ensure!(waiting == JOBS, "{waiting} jobs wait for the pool instead of {JOBS}");
    let shown = sidecar.memory_kib()?;
    step.done("");
    Ok(format!(
        "memory of the sidecar: {} MiB at its start, {} MiB with {JOBS} jobs queued and {MAX} \
         runners busy, {} MiB after all of them were shown",
        before / 1024,
        after / 1024,
        shown / 1024,
    ))
}

async fn fill(stack: &Stack, step: &mut Step) -> Result<()> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    // Longer than this takes.
    let work = json!({ "labels": ["self-hosted"], "seconds": 3_600.0, "count": MAX });
    sandbox.queue_all(&work).await?;
    while busy(&status(stack).await?) < MAX {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    let base = accepted(stack).await?;
    for queued in (BATCH..=JOBS).step_by(BATCH) {
        sandbox.queue_all(&json!({ "labels": ["self-hosted"], "count": BATCH })).await?;
        while accepted(stack).await? < base + queued {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        step.detail(&format!("{queued} queued"));
    }
    Ok(())
}

async fn status(stack: &Stack) -> Result<Value> {
    http::get_json(local(stack.ports().http), "/api/v1/status").await
}

fn busy(status: &Value) -> usize {
    let runners = status["runners"].as_array().map_or(&[][..], Vec::as_slice);
    runners.iter().filter(|runner| runner["phase"] == "busy").count()
}

async fn accepted(stack: &Stack) -> Result<usize> {
    let admin = local(stack.ports().envoy_admin);
    let (_, stats) = http::get(admin, &format!("/stats?filter={ACCEPTED}")).await?;
    let stats = String::from_utf8_lossy(&stats);
    let count = stats.lines().find_map(|line| line.strip_prefix(ACCEPTED)?.strip_prefix(": "));
    count.with_context(|| format!("no {ACCEPTED} in {stats:?}"))?.parse().context(ACCEPTED)
}
