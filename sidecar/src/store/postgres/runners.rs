//! Runners and their logs: the tables `runners` and `runner_logs`.

use tokio_postgres::{Row, types::Type};

use super::{
    reader::Reader,
    row::{get_host, get_number, get_optional, number, optional_text, text, time},
    session::{Batch, Statements},
};
use crate::store::{
    error::Error,
    records::{Peak, RunnerHistory, RunnerRecord},
};
use edgerunner_scheduler::model::JobKey;

const COLUMNS: &str = "name, pool, provider, node, host, target, phase, created_ms, started_ms, \
    online_ms, credential, registration_id, job_id, job_run_attempt, why, end_reason, failed, gone_ms, \
    memory_peak_bytes, cpu_peak_millis";
const LOG: &str = "(SELECT log FROM runner_logs WHERE runner = name) AS log";

pub(super) const SAVE: &str = "
INSERT INTO runners (name, pool, provider, node, host, target, phase, created_ms, started_ms,
    online_ms, credential, registration_id, job_id, job_run_attempt, why, end_reason, failed, gone_ms,
    memory_peak_bytes, cpu_peak_millis)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
ON CONFLICT (name) DO UPDATE SET
    provider = excluded.provider,
    node = coalesce(excluded.node, runners.node),
    host = excluded.host,
    phase = excluded.phase,
    started_ms = coalesce(runners.started_ms, excluded.started_ms),
    online_ms = coalesce(runners.online_ms, excluded.online_ms),
    credential = coalesce(excluded.credential, runners.credential),
    registration_id = coalesce(excluded.registration_id, runners.registration_id),
    job_id = coalesce(excluded.job_id, runners.job_id),
    job_run_attempt = coalesce(excluded.job_run_attempt, runners.job_run_attempt),
    why = coalesce(excluded.why, runners.why),
    end_reason = coalesce(excluded.end_reason, runners.end_reason),
    failed = excluded.failed OR runners.failed,
    gone_ms = excluded.gone_ms,
    memory_peak_bytes = greatest(excluded.memory_peak_bytes, runners.memory_peak_bytes),
    cpu_peak_millis = greatest(excluded.cpu_peak_millis, runners.cpu_peak_millis)";
pub(super) const SAVE_LOG: &str = "
INSERT INTO runner_logs (runner, log) SELECT name, $2 FROM runners WHERE name = $1
ON CONFLICT (runner) DO UPDATE SET log = excluded.log";

fn record(row: &Row) -> Result<RunnerRecord, tokio_postgres::Error> {
    let host = get_host(row)?;
    let job_id = get_optional(row, "job_id")?;
    let run_attempt: Option<i64> = row.try_get("job_run_attempt")?;
    let run_attempt = run_attempt.and_then(|attempt| u32::try_from(attempt).ok());
    Ok(RunnerRecord {
        name: row.try_get("name")?,
        pool: row.try_get("pool")?,
        provider: row.try_get("provider")?,
        node: row.try_get("node")?,
        host,
        target: row.try_get("target")?,
        phase: row.try_get("phase")?,
        created_at: get_number(row, "created_ms")?,
        started_at: get_optional(row, "started_ms")?,
        online_at: get_optional(row, "online_ms")?,
        credential: row.try_get("credential")?,
        registration_id: get_optional(row, "registration_id")?,
        job: job_id.zip(run_attempt).map(|(id, run_attempt)| JobKey { id, run_attempt, host }),
        why: row.try_get("why")?,
        end: row.try_get("end_reason")?,
        failed: row.try_get("failed")?,
        gone_at: get_optional(row, "gone_ms")?,
        peak: Peak {
            memory_bytes: get_optional(row, "memory_peak_bytes")?,
            cpu_millis: get_optional(row, "cpu_peak_millis")?,
        },
    })
}

fn history(row: &Row) -> Result<RunnerHistory, tokio_postgres::Error> {
    Ok(RunnerHistory { runner: record(row)?, log: row.try_get("log")? })
}

pub(super) fn save<'a>(batch: &mut Batch<'a>, statements: &Statements, runner: &'a RunnerRecord) {
    batch.send(
        &statements.save_runner,
        vec![
            Box::new(text(&runner.name)),
            Box::new(text(&runner.pool)),
            Box::new(text(&runner.provider)),
            Box::new(optional_text(runner.node.as_deref())),
            Box::new(text(runner.host.as_str())),
            Box::new(text(&runner.target)),
            Box::new(text(&runner.phase)),
            Box::new(time(runner.created_at)),
            Box::new(runner.started_at.map(time)),
            Box::new(runner.online_at.map(time)),
            Box::new(optional_text(runner.credential.as_deref())),
            Box::new(runner.registration_id.map(number)),
            Box::new(runner.job.map(|job| number(job.id))),
            Box::new(runner.job.map(|job| number(job.run_attempt))),
            Box::new(optional_text(runner.why.as_deref())),
            Box::new(optional_text(runner.end.as_deref())),
            Box::new(runner.failed),
            Box::new(runner.gone_at.map(time)),
            Box::new(runner.peak.memory_bytes.map(number)),
            Box::new(runner.peak.cpu_millis.map(number)),
        ],
    );
}

pub(super) fn save_log<'a>(
    batch: &mut Batch<'a>,
    statements: &Statements,
    runner: &'a str,
    log: &'a str,
) {
    batch.send(&statements.save_runner_log, vec![Box::new(text(runner)), Box::new(text(log))]);
}

impl Reader {
    pub(in crate::store) async fn runner(
        &self,
        name: String,
    ) -> Result<Option<RunnerHistory>, Error> {
        let query = format!("SELECT {COLUMNS}, {LOG} FROM runners WHERE name = $1");
        let found = self.read(&query, &[(&text(&name), Type::TEXT)], history).await;
        Ok(found?.pop())
    }

    pub(in crate::store) async fn present_runners(&self) -> Result<Vec<RunnerRecord>, Error> {
        let query =
            format!("SELECT {COLUMNS} FROM runners WHERE gone_ms IS NULL ORDER BY created_ms");
        self.read(&query, &[], record).await
    }

    pub(in crate::store) async fn recent_runners(
        &self,
        limit: u32,
    ) -> Result<Vec<RunnerHistory>, Error> {
        let query =
            format!("SELECT {COLUMNS}, {LOG} FROM runners ORDER BY created_ms DESC LIMIT $1");
        self.read(&query, &[(&i64::from(limit), Type::INT8)], history).await
    }

    pub(in crate::store) async fn failed_runners(
        &self,
        limit: u32,
    ) -> Result<Vec<RunnerRecord>, Error> {
        let query =
            format!("SELECT {COLUMNS} FROM runners WHERE failed ORDER BY created_ms DESC LIMIT $1");
        self.read(&query, &[(&i64::from(limit), Type::INT8)], record).await
    }
}
