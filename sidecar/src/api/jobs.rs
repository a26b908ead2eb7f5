//! The history of jobs.

use axum::{Json, extract::State};

use super::{Api, HISTORY_MAX, Problem, views::JobView};

/// The 200 jobs that changed last, newest first
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = OK, body = [JobView])))]
pub(super) async fn jobs(State(api): State<Api>) -> Result<Json<Vec<JobView>>, Problem> {
    let jobs = api.store.recent_jobs(HISTORY_MAX).await?;
    Ok(Json(jobs.into_iter().map(JobView::from).collect()))
}
