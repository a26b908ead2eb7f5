//! Jobs of workflow runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::{Id, repository};
use super::page::{Page, PageOf};
use crate::app::App;
use crate::job::Job;
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
