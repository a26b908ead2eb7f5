use axum::{Json, extract::State};

use super::{Api, HISTORY, Problem};
use crate::store::JobRecord;

pub(super) async fn jobs(State(api): State<Api>) -> Result<Json<Vec<JobRecord>>, Problem> {
    Ok(Json(api.store.recent_jobs(HISTORY).await?))
}
