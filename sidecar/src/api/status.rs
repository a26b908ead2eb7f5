//! The state of everything at this moment, and what somebody should know of it.

use axum::{Json, extract::State};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::control::{
    attention::{self, Finding},
    clock,
    snapshot::Snapshot,
};

/// Everything that is going on now.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusView {
    /// What is broken, which jobs never run unless somebody acts, and why others wait: each cause
    /// once, the most urgent first. At most 11 in each group.
    pub attention: Vec<Finding>,
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

/// Everything that is going on now, and what needs attention
#[utoipa::path(get, path = "/api/v1/status", responses((status = OK, body = StatusView)))]
pub(super) async fn status(State(api): State<Api>) -> Result<Json<StatusView>, Problem> {
    let snapshot = api.snapshot().await?;
    // While the store is away, everything else is still known.
    let failed = api.store.failed_runners(attention::FAILED_MAX).await.unwrap_or_default();
    let attention = attention::findings(&snapshot, &failed, clock::now().wall);
    Ok(Json(StatusView { attention, snapshot }))
}
