//! The pools.

use axum::{Json, extract::State};

use super::{Api, Problem};
use crate::control::snapshot::PoolView;

/// Pools, in the order of the configuration
#[utoipa::path(get, path = "/api/v1/pools", responses((status = OK, body = [PoolView])))]
pub(super) async fn pools(State(api): State<Api>) -> Result<Json<Vec<PoolView>>, Problem> {
    Ok(Json(api.snapshot().await?.pools))
}
