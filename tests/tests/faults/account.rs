//! The account of jobs that a scenario must satisfy.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{Conclusion, DeliveryRecord, JobStatus, Sandbox};
use edgerunner_tests::{Stack, eventually, eventually_within};
use tokio::time::{Instant, sleep};

use crate::figures::Figures;

/// Time for all jobs of a scenario to end after the last fault. Most of it is back-off.
const END_LIMIT: Duration = Duration::from_secs(300);
/// Time for deliveries in flight to arrive or fail.
const UNDELIVERED_AFTER: Duration = Duration::from_secs(12);
const REDELIVERY_INTERVAL: Duration = Duration::from_millis(500);

/// Accounts for the jobs of one scenario.
pub(crate) struct Account {
    begun: Instant,
    max: usize,
    pub(crate) faults: usize,
    /// Whether busy runners are killed, which fails their jobs.
    kills_work: bool,
}

impl Account {
    /// `max`: containers at the same time.
    pub(crate) fn open(max: usize) -> Self {
        Self { begun: Instant::now(), max, faults: 0, kills_work: false }
    }

    pub(crate) fn killing_work(self) -> Self {
        Self { kills_work: true, ..self }
    }

    /// Every job that was answered with 202 is running, completed, or queued with a reason.
    pub(crate) async fn check(&self, stack: &Stack) -> Result<()> {
        eventually("every queued job has a reason", async || {
            let accepted = accepted(&stack.sandbox);
            let status = stack.sidecar.status().await?;
            let waiting = status["waiting"].as_array().context("no waiting jobs")?;
            let reasons: HashSet<u64> = waiting
                .iter()
                .filter(|it| !it["reason"].as_str().unwrap_or_default().is_empty())
                .filter_map(|it| it["job_id"].as_u64())
                .collect();
            for job in stack.sandbox.jobs() {
                let queued = job.status == JobStatus::Queued && accepted.contains(&job.id);
                ensure!(!queued || reasons.contains(&job.id), "job {} has none", job.id);
            }
            Ok(Some(()))
        })
        .await
    }

    /// Waits until all jobs are completed, and checks the totals.
    pub(crate) async fn close(self, stack: &Stack) -> Result<Figures> {
        self.check(stack).await?;
        let closing = Instant::now();
        let mut redelivered_at = None;
        eventually_within(END_LIMIT, "every job is over, and known to be", async || {
            if redelivered_at.is_none_or(|at: Instant| at.elapsed() >= REDELIVERY_INTERVAL) {
                redeliver(&stack.sandbox);
                redelivered_at = Some(Instant::now());
            }
            if closing.elapsed() >= UNDELIVERED_AFTER {
                cancel_undelivered(&stack.sandbox)?;
            }
            let jobs = stack.sandbox.jobs();
            let left = jobs.iter().filter(|it| it.status != JobStatus::Completed).count();
            ensure!(left == 0, "{left} of {} jobs are not completed", jobs.len());
            let failed = failed(&stack.sandbox).len();
            ensure!(failed == 0, "{failed} deliveries have failed");
            let status = stack.sidecar.status().await?;
            ensure!(status["waiting"] == serde_json::json!([]), "{}", status["waiting"]);
            Ok(Some(()))
        })
        .await?;
        stack.settled().await?;
        eventually("no runner is left", async || {
            let status = stack.sidecar.status().await?;
            ensure!(status["runners_live"] == 0, "{}", status["runners"]);
            Ok(Some(()))
        })
        .await?;
        stack.containers.nothing_else_is_left().await?;

        let jobs = stack.sandbox.jobs();
        let accepted = accepted(&stack.sandbox);
        let mut runners = HashSet::new();
        for job in &jobs {
            let Some(runner) = &job.runner else {
                let cancelled = job.conclusion == Some(Conclusion::Cancelled);
                ensure!(!accepted.contains(&job.id) || cancelled, "job {} never ran", job.id);
                continue;
            };
            ensure!(runners.insert(&runner.runner_name), "{} had two jobs", runner.runner_name);
            ensure!(
                job.conclusion == Some(Conclusion::Success) || self.kills_work,
                "job {} on {}: {:?}",
                job.id,
                runner.runner_name,
                job.conclusion
            );
        }
        let peak = stack.containers.peak();
        let names = stack.containers.names_at_peak();
        ensure!(peak <= self.max, "more than {} containers ran at once: {names:?}", self.max);
        Ok(Figures {
            jobs: jobs.len(),
            accepted: accepted.len(),
            ran: runners.len(),
            launches: stack.containers.started(),
            faults: self.faults,
            live: (peak, self.max),
            took: self.begun.elapsed(),
        })
    }
}

/// Redelivers failed deliveries until it is dropped; nothing else would do so in time.
pub(crate) async fn redelivering(sandbox: &Sandbox) -> std::convert::Infallible {
    loop {
        sleep(REDELIVERY_INTERVAL).await;
        redeliver(sandbox);
    }
}

fn redeliver(sandbox: &Sandbox) {
    for delivery in failed(sandbox) {
        sandbox.redeliver(&delivery);
    }
}

/// Jobs of which no delivery ever arrives may wait forever.
fn cancel_undelivered(sandbox: &Sandbox) -> Result<()> {
    let delivered: HashSet<u64> = sandbox.deliveries().iter().filter_map(|it| it.job_id).collect();
    for job in sandbox.jobs() {
        if job.status == JobStatus::Queued && !delivered.contains(&job.id) {
            sandbox.cancel_job(job.id)?;
        }
    }
    Ok(())
}

/// One delivery for each event of which none succeeded.
fn failed(sandbox: &Sandbox) -> Vec<DeliveryRecord> {
    let deliveries = sandbox.deliveries();
    let mut seen: HashSet<String> =
        deliveries.iter().filter(|it| it.succeeded()).map(|it| it.guid.clone()).collect();
    deliveries.into_iter().filter(|it| seen.insert(it.guid.clone())).collect()
}

/// Jobs whose `queued` was answered with 202.
fn accepted(sandbox: &Sandbox) -> BTreeSet<u64> {
    let mut deliveries = sandbox.deliveries();
    deliveries.retain(|it| it.status_code == 202 && it.action.as_deref() == Some("queued"));
    deliveries.into_iter().filter_map(|it| it.job_id).collect()
}
