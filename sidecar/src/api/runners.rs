use axum::{Json, extract::State};

use super::{Api, HISTORY, Problem};
use crate::store::RunnerRecord;

pub(super) async fn runners(State(api): State<Api>) -> Result<Json<Vec<RunnerRecord>>, Problem> {
    Ok(Json(api.store.recent_runners(HISTORY).await?))
}
