//! The state of everything at this moment.

use axum::{Json, extract::State};

use super::{Api, Problem};
use crate::control::snapshot::Snapshot;

/// Everything that is going on now
#[utoipa::path(get, path = "/api/v1/status", responses((status = OK, body = Snapshot)))]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<Snapshot>, Problem> {
    api.snapshot().await.map(Json)
}
