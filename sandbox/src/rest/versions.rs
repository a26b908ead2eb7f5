//! Until when GitHub accepts a version of the runner.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use serde::Serialize;

use super::error::ApiError;
use super::extract::Version;
use crate::app::App;
use crate::scope::Scope;

/// GitHub knows the latest versions only.
#[derive(Serialize)]
pub(super) struct Deprecation {
    runner_version: String,
    runtime_deprecates_at: String,
    registration_deprecates_at: String,
}

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    _scope: Scope,
    Version(version): Version,
) -> Result<Json<Deprecation>, ApiError> {
    let ends = app.read(|state| state.version_ends.get(&version).copied());
    let ends = ends.ok_or_else(ApiError::not_found)?.to_string();
    Ok(Json(Deprecation {
        runner_version: version,
        runtime_deprecates_at: ends.clone(),
        registration_deprecates_at: ends,
    }))
}
