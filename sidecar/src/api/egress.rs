//! Connections that the `egress` of pools does not permit.

use axum::{Json, extract::State};

use super::{Api, Problem};
use crate::control::snapshot::DenialView;

/// Connections that the `egress` of pools does not permit, by host, the latest first
///
/// At most 500. Those before the sidecar was started are listed as far as the logs of Envoys have
/// them.
#[utoipa::path(get, path = "/api/v1/egress", responses((status = OK, body = [DenialView])))]
pub(super) async fn denials(State(api): State<Api>) -> Result<Json<Vec<DenialView>>, Problem> {
    Ok(Json(api.snapshot().await?.egress))
}
