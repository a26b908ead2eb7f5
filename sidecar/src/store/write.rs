//! The writer thread and what it writes.

use std::{sync::Arc, time::Instant};

use rusqlite::{Connection, Row, named_params};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use super::{Delivery, Error, json_list};
use crate::telemetry::metrics;
use edgerunner_scheduler::{
    model::{JobKey, JobState, UnixMs},
    plan::Waiting,
};

/// Writes in one transaction: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;

const DAY_MS: u64 = 86_400_000;
/// GitHub redelivers for 3 days.
const DELIVERIES_KEPT_MS: u64 = 7 * DAY_MS;
const HISTORY_KEPT_MS: u64 = 30 * DAY_MS;

pub(super) type Reply<T> = oneshot::Sender<Result<T, Error>>;

pub(super) enum Write {
    Deliveries(Arc<[Delivery]>, Reply<Vec<Stored>>),
    Runner(Box<RunnerRecord>, Reply<()>),
    RunnerLog { runner: String, log: String, reply: Reply<()> },
    Job(JobNews, Reply<()>),
    Waiting(Vec<(JobKey, Waiting)>, Reply<()>),
    Draining { pool: Option<String>, draining: bool, reply: Reply<()> },
    Hook(WebhookRecord, Reply<()>),
    Prune(UnixMs, Reply<()>),
}

/// What was found out about a job without a delivery.
#[derive(Clone, Debug)]
pub(crate) struct JobNews {
    pub key: JobKey,
    pub state: JobState,
    pub runner_name: String,
    pub conclusion: String,
    pub at: UnixMs,
}

/// A webhook that events came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookRecord {
    /// Its path in the REST API, without the slash before it.
    pub hook: String,
    /// The GitHub App whose own hook it is; 0 for other hooks.
    pub app_id: u64,
    pub seen_at: UnixMs,
    /// What it delivered before has arrived or was given up.
    pub settled_until: UnixMs,
}

/// What storing a delivery came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// The job is new or has moved forward.
    Advanced,
    /// The delivery is new, but its job was already as far or further.
    Stale,
    /// The delivery was stored before.
    Duplicate,
}

impl Stored {
    /// Name in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Advanced => "advanced",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct JobRecord {
    #[serde(flatten)]
    pub key: JobKey,
    pub state: JobState,
    pub run_id: u64,
    pub repository: String,
    pub organization: String,
    pub enterprise: String,
    pub name: String,
    pub workflow_name: String,
    pub head_branch: String,
    pub html_url: String,
    pub labels: Vec<String>,
    pub conclusion: String,
    pub runner_name: String,
    /// The delivery that told of the job first.
    pub delivery: String,
    /// When GitHub queued it, by its clock.
    #[serde(rename = "created_ms")]
    pub created_at: Option<UnixMs>,
    /// When it was stored.
    #[serde(rename = "queued_ms")]
    pub queued_at: UnixMs,
    #[serde(rename = "started_ms")]
    pub started_at: Option<UnixMs>,
    #[serde(rename = "completed_ms")]
    pub completed_at: Option<UnixMs>,
    /// Why it is queued still: the reason's stable name.
    pub waiting: Option<String>,
    /// The same in words.
    pub waiting_message: Option<String>,
}

impl JobRecord {
    pub(super) const COLUMNS: &str = "id, run_attempt, state, run_id, repository, organization, \
        enterprise, name, workflow_name, head_branch, html_url, labels, conclusion, runner_name, \
        delivery, created_ms, queued_ms, started_ms, completed_ms, waiting, waiting_message";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let rank: i64 = row.get("state")?;
        Ok(Self {
            key: JobKey { id: row.get("id")?, run_attempt: row.get("run_attempt")? },
            state: JobState::from_rank(rank).unwrap_or(JobState::Completed),
            run_id: row.get("run_id")?,
            repository: row.get("repository")?,
            organization: row.get("organization")?,
            enterprise: row.get("enterprise")?,
            name: row.get("name")?,
            workflow_name: row.get("workflow_name")?,
            head_branch: row.get("head_branch")?,
            html_url: row.get("html_url")?,
            labels: json_list(row, "labels")?,
            conclusion: row.get("conclusion")?,
            runner_name: row.get("runner_name")?,
            delivery: row.get("delivery")?,
            created_at: row.get("created_ms")?,
            queued_at: row.get("queued_ms")?,
            started_at: row.get("started_ms")?,
            completed_at: row.get("completed_ms")?,
            waiting: row.get("waiting")?,
            waiting_message: row.get("waiting_message")?,
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunnerRecord {
    pub name: String,
    pub pool: String,
    pub target: String,
    pub phase: String,
    #[serde(rename = "created_ms")]
    pub created_at: UnixMs,
    /// When its container ran.
    #[serde(rename = "started_ms")]
    pub started_at: Option<UnixMs>,
    pub registration_id: Option<u64>,
    pub job: Option<JobKey>,
    /// Why it left.
    pub why: Option<String>,
    /// It left for a reason that somebody should look into.
    pub failed: bool,
    /// Its last log lines, if it failed.
    pub log: Option<String>,
    #[serde(rename = "gone_ms")]
    pub gone_at: Option<UnixMs>,
}

impl RunnerRecord {
    /// All but `log`, which is long.
    pub(super) const COLUMNS: &str = "name, pool, target, phase, created_ms, started_ms, \
        registration_id, job_id, job_run_attempt, why, failed, gone_ms";

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let job_id: Option<u64> = row.get("job_id")?;
        let run_attempt: Option<u32> = row.get("job_run_attempt")?;
        Ok(Self {
            name: row.get("name")?,
            pool: row.get("pool")?,
            target: row.get("target")?,
            phase: row.get("phase")?,
            created_at: row.get("created_ms")?,
            started_at: row.get("started_ms")?,
            registration_id: row.get("registration_id")?,
            job: job_id.zip(run_attempt).map(|(id, run_attempt)| JobKey { id, run_attempt }),
            why: row.get("why")?,
            failed: row.get("failed")?,
            log: row.get("log")?,
            gone_at: row.get("gone_ms")?,
        })
    }
}

/// Runs until every sender is gone and the last write is committed.
pub(super) fn write_groups(mut connection: Connection, mut writes: mpsc::Receiver<Write>) {
    let mut group = Vec::new();
    while writes.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        write_group(&mut connection, std::mem::take(&mut group));
    }
}

/// Callers are told after the commit. A failure fails them all alike: a full disk is the
/// usual cause.
fn write_group(connection: &mut Connection, group: Vec<Write>) {
    let begun = Instant::now();
    let mut committed = commit(connection, &group).map_err(Arc::new);
    metrics::commit(begun.elapsed().as_secs_f64());
    for write in group {
        let stored = match &mut committed {
            Ok(stored) => Ok(stored),
            Err(error) => Err(Error::Write(Arc::clone(error))),
        };
        // A caller that has gone away needs no answer.
        match write {
            Write::Deliveries(deliveries, reply) => {
                let stored = stored.map(|stored| stored.take(deliveries.len()).collect());
                drop(reply.send(stored));
            }
            Write::Runner(_, reply)
            | Write::RunnerLog { reply, .. }
            | Write::Job(_, reply)
            | Write::Waiting(_, reply)
            | Write::Draining { reply, .. }
            | Write::Hook(_, reply)
            | Write::Prune(_, reply) => drop(reply.send(stored.map(|_| ()))),
        }
    }
}

/// One transaction for all. Returns what each delivery came to, in order.
fn commit(
    connection: &mut Connection,
    group: &[Write],
) -> rusqlite::Result<std::vec::IntoIter<Stored>> {
    let transaction =
        connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut stored = Vec::new();
    for write in group {
        match write {
            Write::Deliveries(deliveries, _) => {
                for delivery in &**deliveries {
                    stored.push(deliver(&transaction, delivery)?);
                }
            }
            Write::Runner(runner, _) => save_runner(&transaction, runner)?,
            Write::RunnerLog { runner, log, .. } => {
                transaction
                    .prepare_cached("UPDATE runners SET log = ?2 WHERE name = ?1")?
                    .execute([runner, log])?;
            }
            Write::Job(news, _) => advance_job(&transaction, news)?,
            Write::Waiting(reasons, _) => save_waiting(&transaction, reasons)?,
            Write::Draining { pool, draining, .. } => {
                save_draining(&transaction, pool.as_deref(), *draining)?;
            }
            Write::Hook(hook, _) => save_hook(&transaction, hook)?,
            Write::Prune(now, _) => prune(&transaction, *now)?,
        }
    }
    transaction.commit()?;
    Ok(stored.into_iter())
}

fn deliver(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<Stored> {
    let Delivery { job, received_at, .. } = delivery;
    let new = connection
        .prepare_cached(
            "INSERT INTO deliveries (id, received_ms, hook, hook_id, hook_target_type,
                 hook_target_id, state, job_id, run_attempt)
             VALUES (:id, :received_ms, :hook, :hook_id, :hook_target_type, :hook_target_id,
                 :state, :job_id, :run_attempt)
             ON CONFLICT DO NOTHING",
        )?
        .execute(named_params! {
            ":id": job.delivery,
            ":received_ms": received_at,
            ":hook": delivery.hook,
            ":hook_id": delivery.hook_id,
            ":hook_target_type": delivery.hook_target_type,
            ":hook_target_id": delivery.hook_target_id,
            ":state": job.state as i64,
            ":job_id": job.key.id,
            ":run_attempt": job.key.run_attempt,
        })?;
    if new == 0 {
        return Ok(Stored::Duplicate);
    }
    // The state only rises. What GitHub tells later may be less: the labels of
    // a completed job are often empty, so what is already known stays.
    let advanced = connection
        .prepare_cached(
            "INSERT INTO jobs (id, run_attempt, state, run_id, repository, organization,
                 enterprise, name, workflow_name, head_branch, html_url, labels, conclusion,
                 runner_name, delivery, created_ms, queued_ms, started_ms, completed_ms,
                 changed_ms)
             VALUES (:id, :run_attempt, :state, :run_id, :repository, :organization, :enterprise,
                 :name, :workflow_name, :head_branch, :html_url, :labels, :conclusion,
                 :runner_name, :delivery, :created_ms, :queued_ms, :started_ms, :completed_ms,
                 :changed_ms)
             ON CONFLICT (id, run_attempt) DO UPDATE SET
                 state = excluded.state,
                 conclusion = excluded.conclusion,
                 runner_name = iif(excluded.runner_name = '', runner_name, excluded.runner_name),
                 started_ms = coalesce(started_ms, excluded.started_ms),
                 completed_ms = coalesce(completed_ms, excluded.completed_ms),
                 changed_ms = excluded.changed_ms,
                 waiting = NULL,
                 waiting_message = NULL
             WHERE excluded.state > state",
        )?
        .execute(named_params! {
            ":id": job.key.id,
            ":run_attempt": job.key.run_attempt,
            ":state": job.state as i64,
            ":run_id": job.run_id,
            ":repository": job.repository,
            ":organization": job.organization,
            ":enterprise": job.enterprise,
            ":name": job.name,
            ":workflow_name": job.workflow_name,
            ":head_branch": job.head_branch,
            ":html_url": job.html_url,
            ":labels": serde_json::json!(job.labels).to_string(),
            ":conclusion": job.conclusion,
            ":runner_name": job.runner_name,
            ":delivery": job.delivery,
            ":created_ms": job.created_at,
            ":queued_ms": job.queued_at,
            ":started_ms": job.started_at,
            ":completed_ms": job.completed_at,
            ":changed_ms": received_at,
        })?;
    Ok(if advanced == 0 { Stored::Stale } else { Stored::Advanced })
}

fn advance_job(connection: &Connection, news: &JobNews) -> rusqlite::Result<()> {
    let completed_at = (news.state == JobState::Completed).then_some(news.at);
    connection
        .prepare_cached(
            "UPDATE jobs SET
                 state = :state,
                 conclusion = :conclusion,
                 runner_name = iif(:runner_name = '', runner_name, :runner_name),
                 started_ms = coalesce(started_ms, :at),
                 completed_ms = coalesce(completed_ms, :completed_ms),
                 changed_ms = :at,
                 waiting = NULL,
                 waiting_message = NULL
             WHERE id = :id AND run_attempt = :run_attempt AND state < :state",
        )?
        .execute(named_params! {
            ":id": news.key.id,
            ":run_attempt": news.key.run_attempt,
            ":state": news.state as i64,
            ":conclusion": news.conclusion,
            ":runner_name": news.runner_name,
            ":at": news.at,
            ":completed_ms": completed_at,
        })?;
    Ok(())
}

fn save_waiting(connection: &Connection, reasons: &[(JobKey, Waiting)]) -> rusqlite::Result<()> {
    // A job that has moved forward waits no more.
    let mut statement = connection.prepare_cached(
        "UPDATE jobs SET waiting = ?3, waiting_message = ?4
         WHERE id = ?1 AND run_attempt = ?2 AND state = 0",
    )?;
    for (job, waiting) in reasons {
        statement.execute((job.id, job.run_attempt, waiting.as_str(), waiting.to_string()))?;
    }
    Ok(())
}

fn save_runner(connection: &Connection, runner: &RunnerRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO runners (name, pool, target, phase, created_ms, started_ms,
                 registration_id, job_id, job_run_attempt, why, failed, log, gone_ms)
             VALUES (:name, :pool, :target, :phase, :created_ms, :started_ms,
                 :registration_id, :job_id, :job_run_attempt, :why, :failed, :log, :gone_ms)
             ON CONFLICT (name) DO UPDATE SET
                 phase = excluded.phase,
                 started_ms = coalesce(started_ms, excluded.started_ms),
                 registration_id = coalesce(excluded.registration_id, registration_id),
                 job_id = coalesce(excluded.job_id, job_id),
                 job_run_attempt = coalesce(excluded.job_run_attempt, job_run_attempt),
                 why = coalesce(excluded.why, why),
                 failed = max(excluded.failed, failed),
                 log = coalesce(excluded.log, log),
                 gone_ms = excluded.gone_ms",
        )?
        .execute(named_params! {
            ":name": runner.name,
            ":pool": runner.pool,
            ":target": runner.target,
            ":phase": runner.phase,
            ":created_ms": runner.created_at,
            ":started_ms": runner.started_at,
            ":registration_id": runner.registration_id,
            ":job_id": runner.job.map(|job| job.id),
            ":job_run_attempt": runner.job.map(|job| job.run_attempt),
            ":why": runner.why,
            ":failed": runner.failed,
            ":log": runner.log,
            ":gone_ms": runner.gone_at,
        })?;
    Ok(())
}

fn save_draining(
    connection: &Connection,
    pool: Option<&str>,
    draining: bool,
) -> rusqlite::Result<()> {
    match pool {
        None if !draining => connection.execute("DELETE FROM draining", [])?,
        _ if draining => connection.execute(
            "INSERT INTO draining (pool) VALUES (?1) ON CONFLICT DO NOTHING",
            [pool.unwrap_or_default()],
        )?,
        _ => connection.execute("DELETE FROM draining WHERE pool = ?1", [pool])?,
    };
    Ok(())
}

fn save_hook(connection: &Connection, hook: &WebhookRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO hooks (hook, app_id, seen_ms, settled_ms)
             VALUES (:hook, :app_id, :seen_ms, :settled_ms)
             ON CONFLICT (hook, app_id) DO UPDATE SET
                 seen_ms = max(seen_ms, excluded.seen_ms),
                 settled_ms = max(settled_ms, excluded.settled_ms)",
        )?
        .execute(named_params! {
            ":hook": hook.hook,
            ":app_id": hook.app_id,
            ":seen_ms": hook.seen_at,
            ":settled_ms": hook.settled_until,
        })?;
    Ok(())
}

fn prune(connection: &Connection, now: UnixMs) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM deliveries WHERE received_ms < ?1",
        [now.saturating_sub(DELIVERIES_KEPT_MS)],
    )?;
    let before = now.saturating_sub(HISTORY_KEPT_MS);
    connection.execute("DELETE FROM jobs WHERE state = 2 AND changed_ms < ?1", [before])?;
    connection.execute("DELETE FROM runners WHERE gone_ms < ?1", [before])?;
    connection.execute("DELETE FROM hooks WHERE seen_ms < ?1", [before])?;
    Ok(())
}
