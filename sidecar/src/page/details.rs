//! One job or runner in full, found by its ID or name.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use super::Page;
use crate::{
    api::views::{JobHistoryView, RunnerHistoryView},
    store,
};

/// An ID that is part of GitHub's URLs.
#[derive(Deserialize)]
pub(super) struct JobQuery {
    job: Option<u64>,
    run: Option<u64>,
}

/// The attempts of a job, or the jobs of a run; empty if neither is known.
pub(super) async fn jobs(
    State(page): State<Page>,
    Query(query): Query<JobQuery>,
) -> Result<Json<Vec<JobHistoryView>>, Failure> {
    let jobs = match query {
        JobQuery { job: Some(job), .. } => page.store.job_attempts(job).await?,
        JobQuery { run: Some(run), .. } => page.store.jobs_of_run(run).await?,
        JobQuery { job: None, run: None } => Vec::new(),
    };
    Ok(Json(jobs.into_iter().map(JobHistoryView::from).collect()))
}

/// `null` if there is no runner of that name.
pub(super) async fn runner(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Json<Option<RunnerHistoryView>>, Failure> {
    let found = page.store.runner(name).await?;
    Ok(Json(found.map(RunnerHistoryView::from)))
}

/// A failed read of the store, answered with 503.
pub(super) struct Failure(store::Error);

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}
