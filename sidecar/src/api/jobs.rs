//! Jobs: lists of them, and one job with all its attempts.

use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::Deserialize;

use super::{
    Api, HISTORY_MAX, Problem, check_limit,
    problem::ErrorBody,
    views::{JobHistoryView, JobStateView},
};
use crate::{
    control::{command::Command, snapshot::QueuedJob},
    store::{HISTORY_KEPT_DAYS, JobFilter, JobHistory},
};
use edgerunner_scheduler::model::{JobKey, JobState};

/// Queued jobs among which those of one pool are searched.
const QUEUED_MAX: u32 = 10_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JobsQuery {
    state: Option<JobStateView>,
    repository: Option<String>,
    pool: Option<String>,
    label: Option<String>,
    #[serde(default = "limit_default")]
    limit: u32,
}

fn limit_default() -> u32 {
    HISTORY_MAX
}

/// The jobs that changed last, newest first
///
/// With `state=queued`, the jobs that wait longest come first, and last those that other runners
/// are expected to run. `repository`, `pool` and `label` search the 100,000 jobs that changed last.
#[utoipa::path(
    get,
    path = "/api/v1/jobs",
    params(
        ("state" = inline(Option<JobStateView>), Query, description = "Only jobs in this state"),
        ("repository" = Option<String>, Query, description = "Only jobs of this OWNER/NAME"),
        (
            "pool" = Option<String>, Query,
            description = "Only jobs that a runner of this pool took, and queued jobs that wait for it"
        ),
        ("label" = Option<String>, Query, description = "Only jobs with this label in `runs-on`"),
        (
            "limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "At most this many jobs; 200 if left out"
        ),
    ),
    responses(
        (status = OK, body = [JobHistoryView]),
        (status = BAD_REQUEST, description = "The query is malformed", body = ErrorBody),
    )
)]
pub(super) async fn jobs(
    State(api): State<Api>,
    query: Result<Query<JobsQuery>, QueryRejection>,
) -> Result<Json<Vec<JobHistoryView>>, Problem> {
    let Query(JobsQuery { state, repository, pool, label, limit }) = query?;
    check_limit(limit)?;
    let filter = JobFilter { state: state.map(JobState::from), repository, pool, label };
    let mut jobs = match &filter.pool {
        None => {
            let found = api.store.jobs(filter, limit).await?;
            api.with_pools(found).await?
        }
        Some(pool) => api.jobs_of_pool(pool, &filter, limit).await?,
    };
    jobs.truncate(limit as usize);
    Ok(Json(jobs))
}

/// All attempts of a job, newest first
#[utoipa::path(
    get,
    path = "/api/v1/jobs/{id}",
    params(("id" = u64, Path, description = "GitHub's ID of the job")),
    responses(
        (status = OK, body = [JobHistoryView]),
        (status = BAD_REQUEST, description = "The ID is not a number", body = ErrorBody),
        (status = NOT_FOUND, description = "Unknown job", body = ErrorBody),
    )
)]
pub(super) async fn job(
    State(api): State<Api>,
    id: Result<Path<u64>, PathRejection>,
) -> Result<Json<Vec<JobHistoryView>>, Problem> {
    let Path(id) = id?;
    let found = api.store.job_attempts(id).await?;
    if found.is_empty() {
        let message = format!(
            "no job {id}: no webhook has announced it, or it ended more than \
             {HISTORY_KEPT_DAYS} days ago; `edgerunner jobs` lists the IDs"
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, message));
    }
    Ok(Json(api.with_pools(found).await?))
}

impl Api {
    /// The planner alone knows which pool a queued job waits for.
    async fn jobs_of_pool(
        &self,
        pool: &str,
        filter: &JobFilter,
        limit: u32,
    ) -> Result<Vec<JobHistoryView>, Problem> {
        let mut jobs = Vec::new();
        if filter.state.is_none_or(|state| state == JobState::Queued) {
            let queued = JobFilter { state: Some(JobState::Queued), pool: None, ..filter.clone() };
            let queued = self.store.jobs(queued, QUEUED_MAX).await?;
            jobs = self.with_pools(queued).await?;
            jobs.retain(|job| job.pool.as_deref() == Some(pool));
        }
        if filter.state != Some(JobState::Queued) {
            let taken = self.store.jobs(filter.clone(), limit).await?;
            jobs.extend(taken.into_iter().map(JobHistoryView::from));
        }
        if filter.state.is_none() {
            let changed = |JobHistoryView { job, .. }: &JobHistoryView| {
                job.completed_ms.or(job.started_ms).unwrap_or(job.queued_ms)
            };
            jobs.sort_by_key(|job| std::cmp::Reverse((changed(job), job.job.id)));
        }
        Ok(jobs)
    }

    /// Queued jobs with their pool, and with the reason of this moment in place of the stored one.
    async fn with_pools(&self, jobs: Vec<JobHistory>) -> Result<Vec<JobHistoryView>, Problem> {
        let is_queued = |job: &JobHistory| job.record.state == JobState::Queued;
        let keys: Vec<JobKey> =
            jobs.iter().filter(|job| is_queued(job)).map(|job| job.record.job.key).collect();
        let mut queued = match keys.is_empty() {
            true => Vec::new(),
            false => self.request(|reply| Command::GetQueued { jobs: keys, reply }).await??,
        }
        .into_iter();
        let view = |job: JobHistory| {
            let known = if is_queued(&job) { queued.next() } else { None };
            let mut view = JobHistoryView::from(job);
            if let Some(QueuedJob { pool, waiting }) = known {
                view.pool = pool;
                if let Some((reason, message)) = waiting {
                    view.job.waiting = Some(reason);
                    view.job.waiting_message = Some(message);
                }
            }
            view
        };
        Ok(jobs.into_iter().map(view).collect())
    }
}
