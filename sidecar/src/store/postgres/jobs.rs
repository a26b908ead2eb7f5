//! Jobs: the table `jobs`. A job's state only moves forward.

use std::collections::HashSet;

use tokio_postgres::{Row, types::Type};

use super::{
    reader::{Parameters, Reader},
    row::{
        get_key, get_number, get_optional, get_state, number, optional_text, state as rank, text,
        time,
    },
    session::{Batch, Statements},
};
use crate::store::{
    error::Error,
    job_queries::{COLUMNS, FOUND_MAX, QUEUE_TIMES_MAX, RUNNER_COLUMNS, SEARCHED_MAX},
    records::{Delivery, JobDetails, JobFilter, JobHistory, JobRecord, JobUpdate, QueueTime},
};
use edgerunner_scheduler::{
    model::{Job, JobKey, JobState, RunOrigin, UnixMs, Visibility},
    plan::Waiting,
};

/// A later delivery may say less, for example a completed job often has no labels: what is already
/// known stays. The repository may have been renamed or transferred since. No two may be about the
/// same job.
pub(super) const DELIVER: &str = "
INSERT INTO jobs (id, run_attempt, host, state, run_id, repository, organization, enterprise, name,
    workflow_name, head_branch, html_url, labels, conclusion, runner_name, delivery, created_ms,
    queued_ms, started_ms, completed_ms, changed_ms, visibility, from_fork)
SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::bigint[],
    $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[], $12::text[],
    $13::text[], $14::text[], $15::text[], $16::text[], $17::bigint[], $18::bigint[],
    $19::bigint[], $20::bigint[], $21::bigint[], $22::text[], $23::boolean[])
ON CONFLICT (id, run_attempt, host) DO UPDATE SET
    state = excluded.state,
    repository = excluded.repository,
    organization = excluded.organization,
    enterprise = excluded.enterprise,
    html_url = coalesce(nullif(excluded.html_url, ''), jobs.html_url),
    conclusion = excluded.conclusion,
    runner_name = coalesce(nullif(excluded.runner_name, ''), jobs.runner_name),
    started_ms = coalesce(jobs.started_ms, excluded.started_ms),
    completed_ms = coalesce(jobs.completed_ms, excluded.completed_ms),
    changed_ms = excluded.changed_ms,
    visibility = coalesce(nullif(excluded.visibility, ''), jobs.visibility),
    from_fork = coalesce(jobs.from_fork, excluded.from_fork),
    waiting = NULL,
    waiting_message = NULL
WHERE excluded.state > jobs.state
RETURNING id, run_attempt, host";

pub(super) const ADVANCE: &str = "
UPDATE jobs SET
    state = $4,
    conclusion = $5,
    runner_name = coalesce(nullif($6, ''), runner_name),
    started_ms = coalesce(started_ms, $7),
    completed_ms = coalesce(completed_ms, $8),
    changed_ms = $9,
    waiting = NULL,
    waiting_message = NULL
WHERE id = $1 AND run_attempt = $2 AND host = $3 AND state < $4";

pub(super) const SAVE_WAITING: &str = "
UPDATE jobs SET waiting = new.waiting, waiting_message = new.waiting_message
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::text[])
    AS new (id, run_attempt, host, waiting, waiting_message)
WHERE jobs.id = new.id AND jobs.run_attempt = new.run_attempt AND jobs.host = new.host
    AND jobs.state = 0";

pub(super) const SAVE_ORIGINS: &str = "
UPDATE jobs SET visibility = coalesce(nullif(new.visibility, ''), jobs.visibility),
    from_fork = new.from_fork
FROM unnest($1::bigint[], $2::bigint[], $3::text[], $4::text[], $5::boolean[])
    AS new (id, run_attempt, host, visibility, from_fork)
WHERE jobs.id = new.id AND jobs.run_attempt = new.run_attempt AND jobs.host = new.host";

fn job(row: &Row) -> Result<Job, tokio_postgres::Error> {
    Ok(Job {
        key: get_key(row, "id")?,
        repository: row.try_get("repository")?,
        organization: row.try_get("organization")?,
        enterprise: row.try_get("enterprise")?,
        visibility: Visibility::from_name(row.try_get("visibility")?),
        run_id: get_number(row, "run_id")?,
        from_fork: row.try_get("from_fork")?,
        // Only `deliver` writes it.
        labels: serde_json::from_str(row.try_get("labels")?).unwrap_or_default(),
        queued_at: get_number(row, "queued_ms")?,
        delivery: row.try_get("delivery")?,
    })
}

pub(super) fn record(row: &Row) -> Result<JobRecord, tokio_postgres::Error> {
    Ok(JobRecord {
        job: job(row)?,
        state: get_state(row, "state")?,
        details: JobDetails {
            name: row.try_get("name")?,
            workflow_name: row.try_get("workflow_name")?,
            head_branch: row.try_get("head_branch")?,
            html_url: row.try_get("html_url")?,
            created_at: get_optional(row, "created_ms")?,
        },
        conclusion: row.try_get("conclusion")?,
        runner_name: row.try_get("runner_name")?,
        started_at: get_optional(row, "started_ms")?,
        completed_at: get_optional(row, "completed_ms")?,
        waiting: row.try_get("waiting")?,
        waiting_message: row.try_get("waiting_message")?,
    })
}

fn history(row: &Row) -> Result<JobHistory, tokio_postgres::Error> {
    Ok(JobHistory {
        record: record(row)?,
        pool: row.try_get("pool")?,
        node: row.try_get("node")?,
        launched_at: get_optional(row, "launched_ms")?,
        container_at: get_optional(row, "container_ms")?,
    })
}

/// The columns of these deliveries' jobs, for `DELIVER`.
pub(super) fn deliver(batch: &mut Batch<'_>, statements: &Statements, deliveries: &[&Delivery]) {
    let numbers = |of: &dyn Fn(&Delivery) -> u64| -> Vec<i64> {
        deliveries.iter().map(|delivery| number(of(delivery))).collect()
    };
    let times = |of: &dyn Fn(&Delivery) -> Option<UnixMs>| -> Vec<Option<i64>> {
        deliveries.iter().map(|delivery| of(delivery).map(time)).collect()
    };
    let texts = |of: &dyn for<'d> Fn(&'d Delivery) -> &'d str| -> Vec<String> {
        deliveries.iter().map(|delivery| text(of(delivery)).into_owned()).collect()
    };
    // Strings are always JSON.
    let labels = |it: &&Delivery| serde_json::to_string(&it.job.labels).unwrap_or_default();
    let labels: Vec<String> = deliveries.iter().map(labels).collect();
    let states: Vec<i16> = deliveries.iter().map(|delivery| rank(delivery.state)).collect();
    let from_fork: Vec<Option<bool>> = deliveries.iter().map(|it| it.job.from_fork).collect();
    batch.send(
        &statements.deliver_jobs,
        vec![
            Box::new(numbers(&|it| it.job.key.id)),
            Box::new(numbers(&|it| it.job.key.run_attempt.into())),
            Box::new(texts(&|it| it.job.key.host.as_str())),
            Box::new(states),
            Box::new(numbers(&|it| it.job.run_id)),
            Box::new(texts(&|it| &it.job.repository)),
            Box::new(texts(&|it| &it.job.organization)),
            Box::new(texts(&|it| &it.job.enterprise)),
            Box::new(texts(&|it| &it.details.name)),
            Box::new(texts(&|it| &it.details.workflow_name)),
            Box::new(texts(&|it| &it.details.head_branch)),
            Box::new(texts(&|it| &it.details.html_url)),
            Box::new(labels),
            Box::new(texts(&|it| &it.conclusion)),
            Box::new(texts(&|it| &it.runner_name)),
            Box::new(texts(&|it| &it.job.delivery)),
            Box::new(times(&|it| it.details.created_at)),
            Box::new(times(&|it| Some(it.job.queued_at))),
            Box::new(times(&Delivery::started_at)),
            Box::new(times(&|it| (it.state == JobState::Completed).then_some(it.received_at))),
            Box::new(times(&|it| Some(it.received_at))),
            Box::new(texts(&|it| it.job.visibility.as_str())),
            Box::new(from_fork),
        ],
    );
}

/// The keys of the jobs that are new or have moved forward.
pub(super) fn advanced(rows: &[Row]) -> Result<HashSet<JobKey>, tokio_postgres::Error> {
    rows.iter().map(|row| get_key(row, "id")).collect()
}

pub(super) fn advance(batch: &mut Batch<'_>, statements: &Statements, update: &JobUpdate) {
    let completed = update.state == JobState::Completed;
    let completed_at = completed.then_some(update.found_at);
    let started_at = (!completed || !update.runner_name.is_empty()).then_some(update.found_at);
    batch.send(
        &statements.advance_job,
        vec![
            Box::new(number(update.key.id)),
            Box::new(number(update.key.run_attempt)),
            Box::new(update.key.host.as_str()),
            Box::new(rank(update.state)),
            Box::new(text(&update.conclusion).into_owned()),
            Box::new(text(&update.runner_name).into_owned()),
            Box::new(started_at.map(time)),
            Box::new(completed_at.map(time)),
            Box::new(time(update.found_at)),
        ],
    );
}

pub(super) fn save_waiting(
    batch: &mut Batch<'_>,
    statements: &Statements,
    reasons: &[(JobKey, Waiting)],
) {
    let ids: Vec<i64> = reasons.iter().map(|(key, _)| number(key.id)).collect();
    let attempts: Vec<i64> = reasons.iter().map(|(key, _)| number(key.run_attempt)).collect();
    let hosts: Vec<&str> = reasons.iter().map(|(key, _)| key.host.as_str()).collect();
    let names: Vec<&str> = reasons.iter().map(|(_, waiting)| waiting.as_str()).collect();
    let message = |waiting: &Waiting| text(&waiting.to_string()).into_owned();
    let messages: Vec<String> = reasons.iter().map(|(_, waiting)| message(waiting)).collect();
    batch.send(
        &statements.save_waiting,
        vec![
            Box::new(ids),
            Box::new(attempts),
            Box::new(hosts),
            Box::new(names),
            Box::new(messages),
        ],
    );
}

pub(super) fn save_origins(
    batch: &mut Batch<'_>,
    statements: &Statements,
    origins: &[(JobKey, RunOrigin)],
) {
    let ids: Vec<i64> = origins.iter().map(|(key, _)| number(key.id)).collect();
    let attempts: Vec<i64> = origins.iter().map(|(key, _)| number(key.run_attempt)).collect();
    let hosts: Vec<&str> = origins.iter().map(|(key, _)| key.host.as_str()).collect();
    let visibilities: Vec<&str> = origins.iter().map(|(_, it)| it.visibility.as_str()).collect();
    let from_fork: Vec<bool> = origins.iter().map(|(_, it)| it.from_fork).collect();
    batch.send(
        &statements.save_origins,
        vec![
            Box::new(ids),
            Box::new(attempts),
            Box::new(hosts),
            Box::new(visibilities),
            Box::new(from_fork),
        ],
    );
}

/// The query for `jobs`, whose parameters are a key and a limit.
fn job_histories(jobs: &str) -> String {
    format!("SELECT {COLUMNS}, {RUNNER_COLUMNS} FROM {jobs}")
}

impl Reader {
    pub(in crate::store) async fn job(&self, key: JobKey) -> Result<Option<JobRecord>, Error> {
        let query =
            format!("SELECT {COLUMNS} FROM jobs WHERE id = $1 AND run_attempt = $2 AND host = $3");
        let (id, attempt) = (number(key.id), number(key.run_attempt));
        let host = key.host.as_str();
        let parameters: Parameters<'_> =
            &[(&id, Type::INT8), (&attempt, Type::INT8), (&host, Type::TEXT)];
        Ok(self.read(&query, parameters, record).await?.pop())
    }

    pub(in crate::store) async fn open_jobs(&self) -> Result<Vec<JobRecord>, Error> {
        let query = format!("SELECT {COLUMNS} FROM jobs WHERE state < 2 ORDER BY queued_ms, id");
        self.read(&query, &[], record).await
    }

    pub(in crate::store) async fn latest_jobs(
        &self,
        since: UnixMs,
    ) -> Result<Vec<(Job, UnixMs)>, Error> {
        // What is sorted is large only if a lot changed.
        let query = format!(
            "SELECT DISTINCT ON (host, lower(repository)) {COLUMNS}, changed_ms FROM jobs
             WHERE changed_ms >= $1 ORDER BY host, lower(repository), changed_ms DESC"
        );
        self.scan(&query, &[(&time(since), Type::INT8)], |row| {
            Ok((job(row)?, get_number(row, "changed_ms")?))
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
                "jobs WHERE state < 2 AND state = $1 AND waiting IS DISTINCT FROM '{}'
                 ORDER BY queued_ms, id LIMIT $2",
                Waiting::NOT_SELF_HOSTED
            ),
            JobState::InProgress => {
                "jobs WHERE state < 2 AND state = $1 ORDER BY queued_ms, id LIMIT $2"
            }
            JobState::Completed => "jobs WHERE state = $1 ORDER BY changed_ms DESC, id LIMIT $2",
        };
        let parameters: Parameters<'_> =
            &[(&rank(state), Type::INT2), (&i64::from(limit), Type::INT8)];
        self.read(&job_histories(jobs), parameters, history).await
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
                let name = Waiting::NOT_SELF_HOSTED;
                &format!("waiting IS NOT DISTINCT FROM '{name}', queued_ms, id")
            }
            _ => "changed_ms DESC, id DESC",
        };
        let query = format!(
            "SELECT {COLUMNS}, {RUNNER_COLUMNS} FROM jobs
             WHERE {in_state} {searched}
                 AND ($1::text IS NULL OR lower(repository) = lower($1))
                 AND ($2::text IS NULL OR EXISTS
                     (SELECT FROM runners WHERE runners.name = runner_name AND pool = $2))
                 AND ($3::text IS NULL OR EXISTS
                     (SELECT FROM jsonb_array_elements_text(labels::jsonb) AS label (value)
                      WHERE lower(label.value) = lower($3)))
             ORDER BY {order} LIMIT $4"
        );
        let repository = optional_text(repository.as_deref());
        let pool = optional_text(pool.as_deref());
        let label = optional_text(label.as_deref());
        let parameters: Parameters<'_> = &[
            (&repository, Type::TEXT),
            (&pool, Type::TEXT),
            (&label, Type::TEXT),
            (&i64::from(limit), Type::INT8),
        ];
        self.read(&query, parameters, history).await
    }

    pub(in crate::store) async fn job_attempts(&self, id: u64) -> Result<Vec<JobHistory>, Error> {
        let jobs = "jobs WHERE id = $1 ORDER BY run_attempt DESC LIMIT $2";
        let parameters: Parameters<'_> =
            &[(&number(id), Type::INT8), (&i64::from(FOUND_MAX), Type::INT8)];
        self.read(&job_histories(jobs), parameters, history).await
    }

    pub(in crate::store) async fn jobs_of_run(&self, run: u64) -> Result<Vec<JobHistory>, Error> {
        let jobs = format!(
            "(SELECT * FROM jobs ORDER BY changed_ms DESC LIMIT {SEARCHED_MAX}) AS latest
             WHERE run_id = $1 ORDER BY run_attempt DESC, id LIMIT $2"
        );
        let parameters: Parameters<'_> =
            &[(&number(run), Type::INT8), (&i64::from(FOUND_MAX), Type::INT8)];
        self.scan(&job_histories(&jobs), parameters, history).await
    }

    pub(in crate::store) async fn queue_times(
        &self,
        since: UnixMs,
    ) -> Result<Vec<QueueTime>, Error> {
        let query = "
            SELECT started_ms, greatest(0, started_ms - queued_ms) AS waited_ms FROM jobs
            WHERE changed_ms >= $1 AND started_ms >= $1
                AND EXISTS (SELECT FROM runners WHERE runners.name = runner_name)
            ORDER BY changed_ms DESC LIMIT $2";
        let parameters: Parameters<'_> =
            &[(&time(since), Type::INT8), (&i64::from(QUEUE_TIMES_MAX), Type::INT8)];
        self.scan(query, parameters, |row| {
            Ok(QueueTime {
                started_at: get_number(row, "started_ms")?,
                waited_ms: get_number(row, "waited_ms")?,
            })
        })
        .await
    }
}
