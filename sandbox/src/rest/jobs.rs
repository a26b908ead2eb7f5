//! Jobs of workflow runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::{ApiError, DOCUMENTATION};
use super::extract::{Id, repository};
use super::page::{Page, PageOf};
use crate::app::App;
use crate::job::{Conclusion, Job, JobStatus};
use crate::payload::WorkflowJob;
use crate::scope::{RepositoryName, Scope};
use crate::state::State;

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Json<WorkflowJob>, ApiError> {
    let repository = repository(scope)?;
    app.read(|state| {
        let job = state.jobs.get(&id).filter(|job| job.repository == repository)?;
        Some(Json(WorkflowJob::new(job, &state.urls)))
    })
    .ok_or_else(ApiError::not_found)
}

/// Runs a job again once its run is over.
pub(super) async fn rerun(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Response, ApiError> {
    let repository = repository(scope)?;
    app.update(|state| {
        let job = state.jobs.get(&id).filter(|job| job.repository == repository);
        let run_id = job.ok_or_else(ApiError::not_found)?.run_id;
        rerun_jobs(state, &repository, run_id, |job| job.id == id)
    })
}

/// Runs all failed jobs of a run again, once it is over.
pub(super) async fn rerun_failed(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(run_id): Id,
) -> Result<Response, ApiError> {
    let repository = repository(scope)?;
    let failed = |job: &Job| job.conclusion == Some(Conclusion::Failure);
    app.update(|state| rerun_jobs(state, &repository, run_id, failed))
}

fn rerun_jobs(
    state: &mut State,
    repository: &RepositoryName,
    run_id: u64,
    wanted: impl Fn(&Job) -> bool,
) -> Result<Response, ApiError> {
    let jobs = jobs_of_run(state, repository, run_id);
    if jobs.is_empty() {
        return Err(ApiError::not_found());
    }
    if jobs.iter().any(|job| job.status != JobStatus::Completed) {
        let message = "The workflow run containing this job is already running";
        return Err(ApiError::new(StatusCode::FORBIDDEN, message, DOCUMENTATION));
    }
    let latest = jobs.iter().filter(|job| is_latest(&jobs, job) && wanted(job));
    let ids: Vec<u64> = latest.map(|job| job.id).collect();
    for id in ids {
        // It is completed, so it can be run again.
        state.rerun(id).map_err(|_| ApiError::not_found())?;
    }
    Ok((StatusCode::CREATED, Json(serde_json::json!({}))).into_response())
}

#[derive(Serialize)]
struct JobList {
    total_count: usize,
    jobs: Vec<WorkflowJob>,
}

/// The jobs of a run: those of the latest attempt, or all of them with `filter=all`.
pub(super) async fn list(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(run_id): Id,
    page: Page,
) -> Result<Response, ApiError> {
    let repository = repository(scope)?;
    let every_attempt = page.parameter("filter") == Some("all");
    let all: Vec<WorkflowJob> = app.read(|state| {
        let jobs = jobs_of_run(state, &repository, run_id);
        jobs.iter()
            .filter(|job| every_attempt || is_latest(&jobs, job))
            .map(|job| WorkflowJob::new(job, &state.urls))
            .collect()
    });
    if all.is_empty() {
        return Err(ApiError::not_found());
    }
    let PageOf { total, items, links } = page.of(all);
    let list = JobList { total_count: total, jobs: items };
    Ok((links, Json(list)).into_response())
}

fn jobs_of_run<'a>(state: &'a State, repository: &RepositoryName, run_id: u64) -> Vec<&'a Job> {
    state
        .jobs
        .values()
        .filter(|job| job.run_id == run_id && job.repository == *repository)
        .collect()
}

/// Whether no later attempt of the run has this job.
pub(super) fn is_latest(jobs_of_run: &[&Job], job: &Job) -> bool {
    !jobs_of_run.iter().any(|other| other.name == job.name && other.run_attempt > job.run_attempt)
}
