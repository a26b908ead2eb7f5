use axum::{
    Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::Deserialize;

use super::{
    Api, HISTORY, Problem,
    problem::{AnyChange, Body},
};
use crate::{
    control::command::{Command, CommandError},
    control::snapshot::RunnerView,
    provider::docker,
    store::RunnerRecord,
};

/// The 200 runners that were launched last, newest first, gone ones included
#[utoipa::path(get, path = "/api/v1/runners", responses((status = OK, body = [RunnerRecord])))]
pub(super) async fn runners(State(api): State<Api>) -> Result<Json<Vec<RunnerRecord>>, Problem> {
    Ok(Json(api.store.recent_runners(HISTORY).await?))
}

/// The last 100 lines of a runner's log
///
/// Those of runners that are gone are kept if they failed.
#[utoipa::path(
    get,
    path = "/api/v1/runners/{name}/logs",
    params(("name" = String, Path, description = "The runner's name")),
    responses(
        (status = OK, body = String, content_type = "text/plain"),
        (status = BAD_REQUEST, description = "The name is not UTF-8", body = Body),
        (status = NOT_FOUND, description = "No such runner, or no log of it", body = Body),
    )
)]
pub(super) async fn log(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<String, Problem> {
    let Path(name) = name?;
    // Only what is known to be ours: containers of others have logs as well.
    let record = api.store.runner(name).await?.ok_or(CommandError::NoSuchRunner)?;
    if record.gone_at.is_none() {
        match api.executor.runner_log(&record.pool, &record.name).await {
            Ok(log) => return Ok(log),
            // Not created yet, or already removed.
            Err(error) if error.cause == docker::Cause::NoSuchContainer => {}
            Err(error) => {
                return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()));
            }
        }
    }
    record.log.ok_or_else(|| {
        let message = "there is no log of it: only runners that are there or that failed have one";
        Problem::new(StatusCode::NOT_FOUND, message)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Removal {
    #[serde(default)]
    force: bool,
}

/// Removes a runner, its registration and its container
///
/// Begins at once and ends soon. Another is launched if it is missing then: drain the pool
/// first to prevent it.
#[utoipa::path(
    delete,
    path = "/api/v1/runners/{name}",
    params(
        ("name" = String, Path, description = "The runner's name"),
        ("force" = Option<bool>, Query, description = "Also if it runs a job, which fails by it"),
    ),
    responses(
        (status = ACCEPTED, description = "It is being removed", body = RunnerView),
        AnyChange,
        (status = CONFLICT, description = "It runs a job or is being launched", body = Body),
    ),
    security(("api_token" = []))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
    removal: Result<Query<Removal>, QueryRejection>,
) -> Result<(StatusCode, Json<RunnerView>), Problem> {
    let (Path(runner), Query(Removal { force })) = (name?, removal?);
    let view = api.ask(|reply| Command::RemoveRunner { runner, force, reply }).await??;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
