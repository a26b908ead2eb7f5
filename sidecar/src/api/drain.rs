use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    Api, Problem,
    problem::{AnyBody, AnyChange},
};
use crate::{control::command::Command, control::snapshot::Draining};

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    /// `null`: all of them.
    pool: Option<String>,
}

type Chosen = Result<Json<Choice>, JsonRejection>;

/// Launches nothing more
///
/// Idle runners go, busy ones finish. Lasts until it is resumed, over restarts too.
#[utoipa::path(
    post,
    path = "/api/v1/drain",
    request_body = Choice,
    responses(
        (status = OK, description = "What drains now", body = Draining),
        AnyChange,
        AnyBody,
    ),
    security(("api_token" = []))
)]
pub(super) async fn drain(
    State(api): State<Api>,
    chosen: Chosen,
) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, true).await
}

/// Launches again what is missing
#[utoipa::path(
    post,
    path = "/api/v1/resume",
    request_body = Choice,
    responses(
        (status = OK, description = "What drains still", body = Draining),
        AnyChange,
        AnyBody,
    ),
    security(("api_token" = []))
)]
pub(super) async fn resume(
    State(api): State<Api>,
    chosen: Chosen,
) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, false).await
}

impl Api {
    async fn drain(&self, chosen: Chosen, draining: bool) -> Result<Json<Draining>, Problem> {
        let Json(Choice { pool }) = chosen?;
        self.ask(|reply| Command::Drain { pool, draining, reply }).await??;
        Ok(Json(Draining::of(&self.snapshot().await?)))
    }
}
