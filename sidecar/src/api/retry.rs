//! Retrying: tries launches again that wait after a failure.

use axum::{Extension, Json, extract::State};

use super::{Api, Problem, audit::Change, caller::Caller, problem::ChangeResponses};
use crate::control::command::{Command, Retried};

/// Try launches that wait after a failure again now
///
/// One launch is tried for each failure. If it works, the others follow; if not, the wait goes on
/// as if nobody had asked. Rate limits of GitHub are kept.
#[utoipa::path(
    post,
    path = "/api/v1/retry",
    responses((status = OK, body = Retried), ChangeResponses),
    security(("api_token" = []))
)]
pub(super) async fn retry(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Retried>, Problem> {
    let change = Change { action: "retry", target: String::new() };
    let asked = api.clone();
    let retry = async move { Ok(asked.request(|reply| Command::Retry { reply }).await??) };
    Ok(Json(api.audited(caller, change, retry).await?))
}
