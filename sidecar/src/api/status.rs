use axum::{Json, extract::State};

use super::{Api, Problem};
use crate::snapshot::Snapshot;

pub(super) async fn status(State(api): State<Api>) -> Result<Json<Snapshot>, Problem> {
    api.snapshot().await.map(Json)
}
