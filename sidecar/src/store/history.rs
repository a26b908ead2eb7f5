//! What happened lately, for people to look at. Each look reads a bounded number of rows.

use rusqlite::{OptionalExtension as _, Row};
use serde::Serialize;

use super::{Error, JobRecord, RunnerRecord, Store};
use edgerunner_scheduler::model::{JobState, UnixMs};

/// Attempts and jobs that one search finds.
const FOUND_MAX: u32 = 200;
/// A run's jobs are looked for among so many that changed last, since no index has them:
/// every webhook would have to write it.
const SEARCHED_MAX: u32 = 100_000;
/// Waits that one look reads.
const WAITS_MAX: u32 = 50_000;

/// A job and what the runner that took it did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct JobHistory {
    #[serde(flatten)]
    pub job: JobRecord,
    /// The runner's, if it is ours.
    pub pool: Option<String>,
    #[serde(rename = "launched_ms")]
    pub launched_at: Option<UnixMs>,
    /// When its container ran.
    #[serde(rename = "container_ms")]
    pub container_at: Option<UnixMs>,
}

/// A delivery, and what it told.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct DeliveryRecord {
    pub id: String,
    #[serde(rename = "received_ms")]
    pub received_at: UnixMs,
    pub hook: String,
    pub state: JobState,
    pub job_id: u64,
    pub run_attempt: u32,
    pub repository: String,
    pub job_name: String,
    /// Another one had told as much of the job before.
    pub stale: bool,
}

/// `JobRecord::COLUMNS` are unambiguous only where `runners` is not joined as a whole.
fn select_jobs(from: &str) -> String {
    format!(
        "SELECT {columns},
             (SELECT pool FROM runners WHERE name = runner_name) AS pool,
             (SELECT created_ms FROM runners WHERE name = runner_name) AS launched_ms,
             (SELECT started_ms FROM runners WHERE name = runner_name) AS container_ms
         FROM {from}",
        columns = JobRecord::COLUMNS
    )
}

fn job_history(row: &Row<'_>) -> rusqlite::Result<JobHistory> {
    Ok(JobHistory {
        job: JobRecord::from_row(row)?,
        pool: row.get("pool")?,
        launched_at: row.get("launched_ms")?,
        container_at: row.get("container_ms")?,
    })
}

impl Store {
    /// Those that wait or run, the oldest first; those that are over, the latest first.
    pub(crate) async fn jobs_in(
        &self,
        state: JobState,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        // `state < 2` is what the index of open jobs has.
        let jobs = match state {
            JobState::Queued | JobState::InProgress => {
                "jobs WHERE state < 2 AND state = ?1 ORDER BY queued_ms, id LIMIT ?2"
            }
            JobState::Completed => "jobs WHERE state = ?1 ORDER BY changed_ms DESC, id LIMIT ?2",
        };
        self.job_histories(jobs, state as u64, limit).await
    }

    /// All attempts, the latest first.
    pub(crate) async fn job_attempts(&self, id: u64) -> Result<Vec<JobHistory>, Error> {
        let jobs = "jobs WHERE id = ?1 ORDER BY run_attempt DESC LIMIT ?2";
        self.job_histories(jobs, id, FOUND_MAX).await
    }

    /// The jobs of a run, the latest first.
    pub(crate) async fn jobs_of_run(&self, run: u64) -> Result<Vec<JobHistory>, Error> {
        let jobs = format!(
            "(SELECT * FROM jobs ORDER BY changed_ms DESC LIMIT {SEARCHED_MAX})
             WHERE run_id = ?1 ORDER BY run_attempt DESC, id LIMIT ?2"
        );
        self.job_histories(&jobs, run, FOUND_MAX).await
    }

    async fn job_histories(
        &self,
        jobs: &str,
        about: u64,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        let query = select_jobs(jobs);
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            statement.query_map((about, limit), job_history)?.collect()
        })
        .await
    }

    pub(crate) async fn runner(&self, name: String) -> Result<Option<RunnerRecord>, Error> {
        self.read(move |connection| {
            let columns = RunnerRecord::COLUMNS;
            let query = format!("SELECT {columns}, log FROM runners WHERE name = ?1");
            let mut statement = connection.prepare_cached(&query)?;
            statement.query_row([name], RunnerRecord::from_row).optional()
        })
        .await
    }

    /// The runners that failed last, the latest first, without their logs.
    pub(crate) async fn failed_runners(&self, limit: u32) -> Result<Vec<RunnerRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {}, NULL AS log FROM runners WHERE failed
                 ORDER BY created_ms DESC LIMIT ?1",
                RunnerRecord::COLUMNS
            ))?;
            statement.query_map([limit], RunnerRecord::from_row)?.collect()
        })
        .await
    }

    /// The latest first.
    pub(crate) async fn recent_deliveries(&self, limit: u32) -> Result<Vec<DeliveryRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT told.id, told.received_ms, told.hook, told.state, told.job_id,
                     told.run_attempt, jobs.repository, jobs.name,
                     EXISTS (SELECT 1 FROM deliveries AS other
                         WHERE other.job_id = told.job_id
                             AND other.run_attempt = told.run_attempt
                             AND other.state >= told.state
                             AND other.received_ms < told.received_ms) AS stale
                 FROM (SELECT * FROM deliveries ORDER BY received_ms DESC LIMIT ?1) AS told
                 JOIN jobs ON jobs.id = told.job_id AND jobs.run_attempt = told.run_attempt
                 ORDER BY told.received_ms DESC, told.id",
            )?;
            let deliveries = statement.query_map([limit], |row| {
                let rank = row.get("state")?;
                Ok(DeliveryRecord {
                    id: row.get("id")?,
                    received_at: row.get("received_ms")?,
                    hook: row.get("hook")?,
                    state: JobState::from_rank(rank).unwrap_or(JobState::Completed),
                    job_id: row.get("job_id")?,
                    run_attempt: row.get("run_attempt")?,
                    repository: row.get("repository")?,
                    job_name: row.get("name")?,
                    stale: row.get("stale")?,
                })
            })?;
            deliveries.collect()
        })
        .await
    }

    /// When jobs were taken by runners of ours since then, the latest first, and for how
    /// many milliseconds each had waited.
    pub(crate) async fn waits(&self, since: UnixMs) -> Result<Vec<(UnixMs, u64)>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT started_ms, max(0, started_ms - queued_ms) FROM jobs
                 WHERE changed_ms >= ?1 AND started_ms >= ?1
                     AND EXISTS (SELECT 1 FROM runners WHERE name = runner_name)
                 ORDER BY changed_ms DESC LIMIT ?2",
            )?;
            let waits =
                statement.query_map((since, WAITS_MAX), |row| Ok((row.get(0)?, row.get(1)?)))?;
            waits.collect()
        })
        .await
    }
}
