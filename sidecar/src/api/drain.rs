//! Draining: stops and resumes launches, of one pool or of all.

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api, Problem,
    audit::Change,
    caller::Caller,
    problem::{BodyResponses, ChangeResponses, ErrorBody},
};
use crate::control::{command::Command, snapshot::Draining};

#[derive(Deserialize, ToSchema)]
#[schema(as = Choice)]
#[serde(deny_unknown_fields)]
pub(super) struct DrainRequest {
    /// `null`: all pools.
    pool: Option<String>,
}

type Body = Result<Json<DrainRequest>, JsonRejection>;

/// Stop launching runners
///
/// Idle runners are removed, busy ones finish their job. Lasts until resumed, also across
/// restarts.
#[utoipa::path(
    post,
    path = "/api/v1/drain",
    request_body = DrainRequest,
    responses(
        (status = OK, description = "What is being drained now", body = Draining),
        ChangeResponses,
        BodyResponses,
    ),
    security(("api_token" = []))
)]
pub(super) async fn drain(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Draining>, Problem> {
    api.drain(caller, body, true).await
}

/// Launch runners again
#[utoipa::path(
    post,
    path = "/api/v1/resume",
    request_body = DrainRequest,
    responses(
        (status = OK, description = "What is still being drained", body = Draining),
        (
            status = CONFLICT,
            description = "A pool is named, but all pools are drained",
            body = ErrorBody
        ),
        ChangeResponses,
        BodyResponses,
    ),
    security(("api_token" = []))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Draining>, Problem> {
    api.drain(caller, body, false).await
}

impl Api {
    async fn drain(
        &self,
        caller: Caller,
        body: Body,
        draining: bool,
    ) -> Result<Json<Draining>, Problem> {
        let Json(DrainRequest { pool }) = body?;
        let change = Change {
            action: if draining { "drain" } else { "resume" },
            target: pool.clone().unwrap_or_default(),
        };
        let api = self.clone();
        let drain = async move {
            Ok(api.request(|reply| Command::Drain { pool, draining, reply }).await??)
        };
        self.audited(caller, change, drain).await?;
        Ok(Json(Draining::new(&self.snapshot().await?)))
    }
}
