//! All that the page shows at one moment, bounded however much there is.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::Value;

use super::{merge_patch::without_nulls, queue_times::Waits};
use crate::{
    control::snapshot::{BudgetView, FailureView, PoolView, RunnerView, Snapshot, WaitingView},
    missed::LOOK_UP,
    store::{DeliveryRecord, Error, JobHistory, RunnerRecord, Store},
};
use edgerunner_scheduler::model::{JobState, UnixMs};

/// Rows of each kind; how many there are is told beside them.
const WAITING_MAX: u32 = 100;
const RUNNING_MAX: u32 = 80;
const DONE_MAX: u32 = 40;
const RUNNERS_MAX: usize = 100;
const FAILED_MAX: u32 = 20;
const DELIVERIES_MAX: u32 = 25;
const REASONS_MAX: usize = 10;

#[derive(Serialize)]
pub(super) struct Dashboard {
    recovered: bool,
    draining: bool,
    waiting: usize,
    runners_live: usize,
    runners_max: Option<usize>,
    pools: BTreeMap<String, PoolView>,
    /// By id and attempt.
    jobs: BTreeMap<String, JobRow>,
    runners: BTreeMap<String, RunnerRow>,
    failed: BTreeMap<String, FailedRow>,
    deliveries: BTreeMap<String, DeliveryRow>,
    budgets: Vec<BudgetView>,
    failures: Vec<FailureView>,
    reasons: Vec<Reason>,
    /// By the time at which a step of five minutes begins.
    queue_times: BTreeMap<UnixMs, Waits>,
}

#[derive(Serialize)]
struct JobRow {
    id: u64,
    attempt: u32,
    state: JobState,
    repository: String,
    name: String,
    conclusion: Option<String>,
    runner: Option<String>,
    /// Found by a look at GitHub, not told by a webhook.
    looked_up: Option<bool>,
    created_ms: Option<UnixMs>,
    queued_ms: UnixMs,
    launched_ms: Option<UnixMs>,
    container_ms: Option<UnixMs>,
    started_ms: Option<UnixMs>,
    completed_ms: Option<UnixMs>,
    why: Option<String>,
}

#[derive(Serialize)]
struct RunnerRow {
    pool: String,
    target: String,
    phase: String,
    created_ms: UnixMs,
    since_ms: UnixMs,
    job: Option<u64>,
    why: Option<String>,
}

#[derive(Serialize)]
struct FailedRow {
    pool: String,
    target: String,
    created_ms: UnixMs,
    gone_ms: Option<UnixMs>,
    job: Option<u64>,
    why: Option<String>,
}

#[derive(Serialize)]
struct DeliveryRow {
    received_ms: UnixMs,
    state: JobState,
    job: u64,
    attempt: u32,
    repository: String,
    name: String,
    hook: Option<String>,
    stale: bool,
}

/// Why jobs wait, those with the same reason together.
#[derive(Serialize)]
struct Reason {
    reason: String,
    message: String,
    jobs: usize,
    oldest_ms: UnixMs,
}

impl Dashboard {
    pub(super) async fn look(
        snapshot: Snapshot,
        store: &Store,
        queue_times: BTreeMap<UnixMs, Waits>,
    ) -> Result<Value, Error> {
        let states = [
            (JobState::Queued, WAITING_MAX),
            (JobState::InProgress, RUNNING_MAX),
            (JobState::Completed, DONE_MAX),
        ];
        let mut jobs = Vec::new();
        for (state, limit) in states {
            jobs.extend(store.jobs_in(state, limit).await?);
        }
        let failed = store.failed_runners(FAILED_MAX).await?;
        let deliveries = store.recent_deliveries(DELIVERIES_MAX).await?;
        let board = Self::of(snapshot, jobs, failed, deliveries, queue_times);
        // Its keys are texts or numbers, so that it is always JSON.
        let mut board = serde_json::to_value(board).unwrap_or_default();
        without_nulls(&mut board);
        Ok(board)
    }

    fn of(
        snapshot: Snapshot,
        jobs: Vec<JobHistory>,
        failed: Vec<RunnerRecord>,
        deliveries: Vec<DeliveryRecord>,
        queue_times: BTreeMap<UnixMs, Waits>,
    ) -> Self {
        let now_waiting: HashMap<(u64, u32), &WaitingView> = snapshot
            .waiting
            .iter()
            .map(|waiting| ((waiting.job_id, waiting.run_attempt), waiting))
            .collect();
        let jobs = jobs.into_iter().map(|job| JobRow::of(job, &now_waiting));
        let runners = snapshot.runners.into_iter().take(RUNNERS_MAX);
        Self {
            recovered: snapshot.recovered,
            draining: snapshot.draining,
            waiting: snapshot.waiting.len(),
            runners_live: snapshot.runners_live,
            runners_max: snapshot.runners_max,
            jobs: jobs.map(|job| (format!("{}.{}", job.id, job.attempt), job)).collect(),
            reasons: reasons(&snapshot.waiting),
            pools: snapshot.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            runners: runners.map(RunnerRow::named).collect(),
            failed: failed.into_iter().map(FailedRow::named).collect(),
            deliveries: deliveries.into_iter().map(DeliveryRow::named).collect(),
            budgets: snapshot.budgets,
            failures: snapshot.failures,
            queue_times,
        }
    }
}

impl JobRow {
    fn of(history: JobHistory, waiting: &HashMap<(u64, u32), &WaitingView>) -> Self {
        let JobHistory { job, launched_at, container_at, .. } = history;
        let now = waiting.get(&(job.key.id, job.key.run_attempt));
        Self {
            id: job.key.id,
            attempt: job.key.run_attempt,
            state: job.state,
            repository: job.repository,
            name: job.name,
            conclusion: told(job.conclusion),
            runner: told(job.runner_name),
            looked_up: job.delivery.starts_with(LOOK_UP).then_some(true),
            created_ms: job.created_at,
            queued_ms: job.queued_at,
            launched_ms: launched_at,
            container_ms: container_at,
            started_ms: job.started_at,
            completed_ms: job.completed_at,
            why: now.map(|waiting| waiting.message.clone()).or(job.waiting_message),
        }
    }
}

impl RunnerRow {
    fn named(runner: RunnerView) -> (String, Self) {
        let row = Self {
            pool: runner.pool,
            target: runner.target,
            phase: runner.phase,
            created_ms: runner.created_ms,
            since_ms: runner.since_ms,
            job: runner.job_id,
            why: runner.why,
        };
        (runner.name, row)
    }
}

impl FailedRow {
    fn named(runner: RunnerRecord) -> (String, Self) {
        let row = Self {
            pool: runner.pool,
            target: runner.target,
            created_ms: runner.created_at,
            gone_ms: runner.gone_at,
            job: runner.job.map(|job| job.id),
            why: runner.why,
        };
        (runner.name, row)
    }
}

impl DeliveryRow {
    fn named(delivery: DeliveryRecord) -> (String, Self) {
        let row = Self {
            received_ms: delivery.received_at,
            state: delivery.state,
            job: delivery.job_id,
            attempt: delivery.run_attempt,
            repository: delivery.repository,
            name: delivery.job_name,
            hook: told(delivery.hook),
            stale: delivery.stale,
        };
        (delivery.id, row)
    }
}

/// Those that hold up most jobs first.
fn reasons(waiting: &[WaitingView]) -> Vec<Reason> {
    let mut reasons: BTreeMap<&str, Reason> = BTreeMap::new();
    for job in waiting {
        let reason = reasons.entry(&job.message).or_insert_with(|| Reason {
            reason: job.reason.clone(),
            message: job.message.clone(),
            jobs: 0,
            oldest_ms: job.queued_ms,
        });
        reason.jobs += 1;
        reason.oldest_ms = reason.oldest_ms.min(job.queued_ms);
    }
    let mut reasons: Vec<Reason> = reasons.into_values().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.jobs));
    reasons.truncate(REASONS_MAX);
    reasons
}

fn told(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}
