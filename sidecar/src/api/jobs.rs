use axum::{Json, extract::State};

use super::{Api, HISTORY, Problem};
use crate::store::JobRecord;

/// The 200 jobs that changed last, newest first
#[utoipa::path(get, path = "/api/v1/jobs", responses((status = OK, body = [JobRecord])))]
pub(super) async fn jobs(State(api): State<Api>) -> Result<Json<Vec<JobRecord>>, Problem> {
    Ok(Json(api.store.recent_jobs(HISTORY).await?))
}
