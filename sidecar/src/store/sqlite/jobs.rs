//! Jobs: the table `jobs`. A job's state only moves forward.

use rusqlite::{Connection, OptionalExtension as _, Row, named_params};

use super::reader::Reader;
use crate::store::{
    error::Error,
    job_queries::{COLUMNS, FOUND_MAX, QUEUE_TIMES_MAX, RUNNER_COLUMNS, SEARCHED_MAX},
    records::{Delivery, JobDetails, JobFilter, JobHistory, JobRecord, JobUpdate, QueueTime},
};
use edgerunner_scheduler::{
    model::{Host, Job, JobKey, JobState, RunOrigin, UnixMs, Visibility},
    plan::Waiting,
};

pub(super) fn state(row: &Row<'_>) -> rusqlite::Result<JobState> {
    Ok(JobState::from_rank(row.get("state")?).unwrap_or(JobState::Completed))
}

pub(super) fn host(row: &Row<'_>) -> rusqlite::Result<Host> {
    Ok(Host::new(row.get_ref("host")?.as_str()?))
}

fn labels(row: &Row<'_>) -> rusqlite::Result<Vec<String>> {
    let json: String = row.get("labels")?;
    // Only `deliver` writes it; SQLite detects a damaged page first.
    Ok(serde_json::from_str(&json).unwrap_or_default())
}

fn job(row: &Row<'_>) -> rusqlite::Result<Job> {
    Ok(Job {
        key: JobKey { id: row.get("id")?, run_attempt: row.get("run_attempt")?, host: host(row)? },
        repository: row.get("repository")?,
        organization: row.get("organization")?,
        enterprise: row.get("enterprise")?,
        visibility: Visibility::from_name(row.get_ref("visibility")?.as_str()?),
        run_id: row.get("run_id")?,
        from_fork: row.get("from_fork")?,
        labels: labels(row)?,
        queued_at: row.get("queued_ms")?,
        delivery: row.get("delivery")?,
    })
}

fn record(row: &Row<'_>) -> rusqlite::Result<JobRecord> {
    Ok(JobRecord {
        job: job(row)?,
        state: state(row)?,
        details: JobDetails {
            name: row.get("name")?,
            workflow_name: row.get("workflow_name")?,
            head_branch: row.get("head_branch")?,
            html_url: row.get("html_url")?,
            created_at: row.get("created_ms")?,
        },
        conclusion: row.get("conclusion")?,
        runner_name: row.get("runner_name")?,
        started_at: row.get("started_ms")?,
        completed_at: row.get("completed_ms")?,
        waiting: row.get("waiting")?,
        waiting_message: row.get("waiting_message")?,
    })
}

fn history(row: &Row<'_>) -> rusqlite::Result<JobHistory> {
    Ok(JobHistory {
        record: record(row)?,
        pool: row.get("pool")?,
        node: row.get("node")?,
        launched_at: row.get("launched_ms")?,
        container_at: row.get("container_ms")?,
    })
}

/// Returns whether the job is new or has moved forward. A later delivery may say less, for
/// example a completed job often has no labels: what is already known stays. The repository may
/// have been renamed or transferred since.
pub(super) fn deliver(connection: &Connection, delivery: &Delivery) -> rusqlite::Result<bool> {
    let Delivery { job, details, state, received_at, .. } = delivery;
    let changed = connection
        .prepare_cached(
            "INSERT INTO jobs (id, run_attempt, host, state, run_id, repository, organization,
                 enterprise, name, workflow_name, head_branch, html_url, labels, conclusion,
                 runner_name, delivery, created_ms, queued_ms, started_ms, completed_ms,
                 changed_ms, visibility, from_fork)
             VALUES (:id, :run_attempt, :host, :state, :run_id, :repository, :organization, :enterprise,
                 :name, :workflow_name, :head_branch, :html_url, :labels, :conclusion,
                 :runner_name, :delivery, :created_ms, :queued_ms, :started_ms, :completed_ms,
                 :changed_ms, :visibility, :from_fork)
             ON CONFLICT (id, run_attempt, host) DO UPDATE SET
                 state = excluded.state,
                 -- It may have been renamed or transferred.
                 repository = excluded.repository,
                 organization = excluded.organization,
                 enterprise = excluded.enterprise,
                 html_url = iif(excluded.html_url = '', html_url, excluded.html_url),
                 conclusion = excluded.conclusion,
                 runner_name = iif(excluded.runner_name = '', runner_name, excluded.runner_name),
                 started_ms = coalesce(started_ms, excluded.started_ms),
                 completed_ms = coalesce(completed_ms, excluded.completed_ms),
                 changed_ms = excluded.changed_ms,
                 visibility = iif(excluded.visibility = '', visibility, excluded.visibility),
                 from_fork = coalesce(from_fork, excluded.from_fork),
                 waiting = NULL,
                 waiting_message = NULL
             WHERE excluded.state > state",
        )?
        .execute(named_params! {
            ":id": job.key.id,
            ":run_attempt": job.key.run_attempt,
            ":host": job.key.host.as_str(),
            ":state": *state as i64,
            ":run_id": job.run_id,
            ":repository": job.repository,
            ":organization": job.organization,
            ":enterprise": job.enterprise,
            ":name": details.name,
            ":workflow_name": details.workflow_name,
            ":head_branch": details.head_branch,
            ":html_url": details.html_url,
            // Strings are always JSON.
            ":labels": serde_json::to_string(&job.labels).unwrap_or_default(),
            ":conclusion": delivery.conclusion,
            ":runner_name": delivery.runner_name,
            ":delivery": job.delivery,
            ":created_ms": details.created_at,
            ":queued_ms": job.queued_at,
            ":started_ms": delivery.started_at(),
            ":completed_ms": (*state == JobState::Completed).then_some(received_at),
            ":changed_ms": received_at,
            ":visibility": job.visibility.as_str(),
            ":from_fork": job.from_fork,
        })?;
    Ok(changed > 0)
}

pub(super) fn advance(connection: &Connection, update: &JobUpdate) -> rusqlite::Result<()> {
    let completed = update.state == JobState::Completed;
    let completed_at = completed.then_some(update.found_at);
    let started_at = (!completed || !update.runner_name.is_empty()).then_some(update.found_at);
    connection
        .prepare_cached(
            "UPDATE jobs SET
                 state = :state,
                 conclusion = :conclusion,
                 runner_name = iif(:runner_name = '', runner_name, :runner_name),
                 started_ms = coalesce(started_ms, :started_ms),
                 completed_ms = coalesce(completed_ms, :completed_ms),
                 changed_ms = :found_ms,
                 waiting = NULL,
                 waiting_message = NULL
             WHERE id = :id AND run_attempt = :run_attempt AND host = :host AND state < :state",
        )?
        .execute(named_params! {
            ":id": update.key.id,
            ":run_attempt": update.key.run_attempt,
            ":host": update.key.host.as_str(),
            ":state": update.state as i64,
            ":conclusion": update.conclusion,
            ":runner_name": update.runner_name,
            ":found_ms": update.found_at,
            ":started_ms": started_at,
            ":completed_ms": completed_at,
        })?;
    Ok(())
}

pub(super) fn save_waiting(
    connection: &Connection,
    reasons: &[(JobKey, Waiting)],
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE jobs SET waiting = ?4, waiting_message = ?5
         WHERE id = ?1 AND run_attempt = ?2 AND host = ?3 AND state = 0",
    )?;
    for (job, waiting) in reasons {
        let JobKey { id, run_attempt, host } = job;
        let (reason, message) = (waiting.as_str(), waiting.to_string());
        statement.execute((id, run_attempt, host.as_str(), reason, message))?;
    }
    Ok(())
}

pub(super) fn save_origins(
    connection: &Connection,
    origins: &[(JobKey, RunOrigin)],
) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached(
        "UPDATE jobs SET visibility = iif(?4 = '', visibility, ?4), from_fork = ?5
         WHERE id = ?1 AND run_attempt = ?2 AND host = ?3",
    )?;
    for (job, RunOrigin { visibility, from_fork }) in origins {
        let JobKey { id, run_attempt, host } = job;
        statement.execute((id, run_attempt, host.as_str(), visibility.as_str(), from_fork))?;
    }
    Ok(())
}

/// The query for `jobs`, whose parameters are `key` and `limit`.
fn job_histories(
    jobs: &str,
    key: i64,
    limit: u32,
) -> impl FnOnce(&Connection) -> rusqlite::Result<Vec<JobHistory>> + Send + use<> {
    let query = format!("SELECT {COLUMNS}, {RUNNER_COLUMNS} FROM {jobs}");
    move |connection| {
        let mut statement = connection.prepare_cached(&query)?;
        statement.query_map((key, limit), history)?.collect()
    }
}

impl Reader {
    pub(in crate::store) async fn job(&self, key: JobKey) -> Result<Option<JobRecord>, Error> {
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE id = ?1 AND run_attempt = ?2 AND host = ?3"
            ))?;
            statement.query_row((key.id, key.run_attempt, key.host.as_str()), record).optional()
        })
        .await
    }

    pub(in crate::store) async fn open_jobs(&self) -> Result<Vec<JobRecord>, Error> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM jobs WHERE state < ?1 ORDER BY queued_ms, id"
            ))?;
            statement.query_map([JobState::Completed as i64], record)?.collect()
        })
        .await
    }

    pub(in crate::store) async fn latest_jobs(
        &self,
        since: UnixMs,
    ) -> Result<Vec<(Job, UnixMs)>, Error> {
        self.scan(move |connection| {
            // SQLite takes the rowid from the row that has the maximum. What is sorted is small.
            let mut statement = connection.prepare_cached(&format!(
                "SELECT {COLUMNS}, latest FROM (
                     SELECT rowid AS newest, max(changed_ms) AS latest FROM jobs
                     WHERE changed_ms >= ?1 GROUP BY host, lower(repository)
                 ) JOIN jobs ON jobs.rowid = newest"
            ))?;
            let latest = statement.query_map([since], |row| Ok((job(row)?, row.get("latest")?)))?;
            latest.collect()
        })
        .await
    }

    pub(in crate::store) async fn jobs_in(
        &self,
        state: JobState,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        // `state < 2` is what the index of open jobs has.
        let jobs = match state {
            JobState::Queued => &format!(
                "jobs WHERE state < 2 AND state = ?1 AND waiting IS NOT '{}'
                 ORDER BY queued_ms, id LIMIT ?2",
                Waiting::NOT_SELF_HOSTED
            ),
            JobState::InProgress => {
                "jobs WHERE state < 2 AND state = ?1 ORDER BY queued_ms, id LIMIT ?2"
            }
            JobState::Completed => "jobs WHERE state = ?1 ORDER BY changed_ms DESC, id LIMIT ?2",
        };
        self.read(job_histories(jobs, state as i64, limit)).await
    }

    pub(in crate::store) async fn jobs(
        &self,
        filter: JobFilter,
        limit: u32,
    ) -> Result<Vec<JobHistory>, Error> {
        let (in_state, searched) = (filter.in_state(), filter.searched());
        let JobFilter { state, repository, pool, label } = filter;
        let order = match state {
            Some(JobState::Queued) => {
                &format!("waiting IS '{}', queued_ms, id", Waiting::NOT_SELF_HOSTED)
            }
            _ => "changed_ms DESC, id DESC",
        };
        let query = format!(
            "SELECT {COLUMNS}, {RUNNER_COLUMNS} FROM jobs
             WHERE {in_state} {searched}
                 AND (:repository IS NULL OR lower(repository) = lower(:repository))
                 AND (:pool IS NULL OR EXISTS
                     (SELECT 1 FROM runners WHERE name = runner_name AND pool = :pool))
                 AND (:label IS NULL OR EXISTS
                     (SELECT 1 FROM json_each(labels) AS label
                      WHERE lower(label.value) = lower(:label)))
             ORDER BY {order} LIMIT :limit"
        );
        self.read(move |connection| {
            let mut statement = connection.prepare_cached(&query)?;
            let parameters = named_params! {
                ":repository": repository, ":pool": pool, ":label": label, ":limit": limit
            };
            statement.query_map(parameters, history)?.collect()
        })
        .await
    }

    pub(in crate::store) async fn job_attempts(&self, id: u64) -> Result<Vec<JobHistory>, Error> {
        let Ok(id) = i64::try_from(id) else {
            return Ok(Vec::new());
        };
        let jobs = "jobs WHERE id = ?1 ORDER BY run_attempt DESC LIMIT ?2";
        self.read(job_histories(jobs, id, FOUND_MAX)).await
    }

    pub(in crate::store) async fn jobs_of_run(&self, run: u64) -> Result<Vec<JobHistory>, Error> {
        let Ok(run) = i64::try_from(run) else {
            return Ok(Vec::new());
        };
        let jobs = format!(
            "(SELECT * FROM jobs ORDER BY changed_ms DESC LIMIT {SEARCHED_MAX})
             WHERE run_id = ?1 ORDER BY run_attempt DESC, id LIMIT ?2"
        );
        self.scan(job_histories(&jobs, run, FOUND_MAX)).await
    }

    pub(in crate::store) async fn queue_times(
        &self,
        since: UnixMs,
    ) -> Result<Vec<QueueTime>, Error> {
        self.scan(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT started_ms, max(0, started_ms - queued_ms) FROM jobs
                 WHERE changed_ms >= ?1 AND started_ms >= ?1
                     AND EXISTS (SELECT 1 FROM runners WHERE name = runner_name)
                 ORDER BY changed_ms DESC LIMIT ?2",
            )?;
            let times = statement.query_map((since, QUEUE_TIMES_MAX), |row| {
                Ok(QueueTime { started_at: row.get(0)?, waited_ms: row.get(1)? })
            })?;
            times.collect()
        })
        .await
    }
}
