//! Runners and their logs: the tables `runners` and `runner_logs`.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::{jobs, reader::Reader};
use crate::store::{
    error::Error,
    records::{Peak, RunnerHistory, RunnerRecord},
};
use edgerunner_scheduler::model::JobKey;

const COLUMNS: &str = "name, pool, provider, node, host, target, phase, created_ms, started_ms, online_ms, credential, \
    registration_id, job_id, job_run_attempt, why, end_reason, failed, gone_ms, memory_peak_bytes, cpu_peak_millis";
const LOG: &str = "(SELECT log FROM runner_logs WHERE runner = name) AS log";

fn record(row: &Row<'_>) -> rusqlite::Result<RunnerRecord> {
    let job_id: Option<u64> = row.get("job_id")?;
    let run_attempt: Option<u32> = row.get("job_run_attempt")?;
    let host = jobs::host(row)?;
    Ok(RunnerRecord {
        name: row.get("name")?,
        pool: row.get("pool")?,
        provider: row.get("provider")?,
        node: row.get("node")?,
        host,
        target: row.get("target")?,
        phase: row.get("phase")?,
        created_at: row.get("created_ms")?,
        started_at: row.get("started_ms")?,
        online_at: row.get("online_ms")?,
        credential: row.get("credential")?,
        registration_id: row.get("registration_id")?,
        job: job_id.zip(run_attempt).map(|(id, run_attempt)| JobKey { id, run_attempt, host }),
        why: row.get("why")?,
        end: row.get("end_reason")?,
        failed: row.get("failed")?,
        gone_at: row.get("gone_ms")?,
        peak: Peak {
            memory_bytes: row.get("memory_peak_bytes")?,
            cpu_millis: row.get("cpu_peak_millis")?,
        },
    })
}

fn history(row: &Row<'_>) -> rusqlite::Result<RunnerHistory> {
    Ok(RunnerHistory { runner: record(row)?, log: row.get("log")? })
}

pub(super) fn save(connection: &Connection, runner: &RunnerRecord) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO runners (name, pool, provider, node, host, target, phase, created_ms, started_ms,
                 online_ms, credential, registration_id, job_id, job_run_attempt, why, end_reason, failed, gone_ms,
                 memory_peak_bytes, cpu_peak_millis)
             VALUES (:name, :pool, :provider, :node, :host, :target, :phase, :created_ms, :started_ms,
                 :online_ms, :credential, :registration_id, :job_id, :job_run_attempt, :why, :end_reason, :failed, :gone_ms,
                 :memory_peak_bytes, :cpu_peak_millis)
             ON CONFLICT (name) DO UPDATE SET
                 provider = excluded.provider,
                 node = coalesce(excluded.node, node),
                 host = excluded.host,
                 phase = excluded.phase,
                 started_ms = coalesce(started_ms, excluded.started_ms),
                 online_ms = coalesce(online_ms, excluded.online_ms),
                 credential = coalesce(excluded.credential, credential),
                 registration_id = coalesce(excluded.registration_id, registration_id),
                 job_id = coalesce(excluded.job_id, job_id),
                 job_run_attempt = coalesce(excluded.job_run_attempt, job_run_attempt),
                 why = coalesce(excluded.why, why),
                 end_reason = coalesce(excluded.end_reason, end_reason),
                 failed = max(excluded.failed, failed),
                 gone_ms = excluded.gone_ms,
                 -- `max` of NULL is NULL.
                 memory_peak_bytes = max(coalesce(excluded.memory_peak_bytes, memory_peak_bytes),
                     coalesce(memory_peak_bytes, excluded.memory_peak_bytes)),
                 cpu_peak_millis = max(coalesce(excluded.cpu_peak_millis, cpu_peak_millis),
                     coalesce(cpu_peak_millis, excluded.cpu_peak_millis))",
        )?
        .execute(named_params! {
            ":name": runner.name,
            ":pool": runner.pool,
            ":provider": runner.provider,
            ":node": runner.node,
            ":host": runner.host.as_str(),
            ":target": runner.target,
            ":phase": runner.phase,
            ":created_ms": runner.created_at,
            ":started_ms": runner.started_at,
            ":online_ms": runner.online_at,
            ":credential": runner.credential,
            ":registration_id": runner.registration_id,
            ":job_id": runner.job.map(|job| job.id),
            ":job_run_attempt": runner.job.map(|job| job.run_attempt),
            ":why": runner.why,
            ":end_reason": runner.end,
            ":failed": runner.failed,
            ":gone_ms": runner.gone_at,
            ":memory_peak_bytes": runner.peak.memory_bytes,
            ":cpu_peak_millis": runner.peak.cpu_millis,
        })?;
    Ok(())
}

pub(super) fn save_log(connection: &Connection, runner: &str, log: &str) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO runner_logs (runner, log) SELECT name, ?2 FROM runners WHERE name = ?1
             ON CONFLICT (runner) DO UPDATE SET log = excluded.log",
        )?
        .execute([runner, log])?;
    Ok(())
}

impl Reader {
    pub(in crate::store) async fn runner(
        &self,
        name: String,
    ) -> Result<Option<RunnerHistory>, Error> {
        self.read(move |connection| {
            let query = format!("SELECT {COLUMNS}, {LOG} FROM runners WHERE name = ?1");
            connection.prepare_cached(&query)?.query_row([name], history).optional()
        })
        .await
    }

    pub(in crate::store) async fn present_runners(&self) -> Result<Vec<RunnerRecord>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM runners WHERE gone_ms IS NULL ORDER BY created_ms"
            ))?;
            statement.query_map([], record)?.collect()
        })
        .await
    }

    pub(in crate::store) async fn recent_runners(
        &self,
        limit: u32,
    ) -> Result<Vec<RunnerHistory>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, {LOG} FROM runners ORDER BY created_ms DESC LIMIT ?1"
            ))?;
            statement.query_map([limit], history)?.collect()
        })
        .await
    }

    pub(in crate::store) async fn failed_runners(
        &self,
        limit: u32,
    ) -> Result<Vec<RunnerRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM runners WHERE failed ORDER BY created_ms DESC LIMIT ?1"
            ))?;
            statement.query_map([limit], record)?.collect()
        })
        .await
    }
}
