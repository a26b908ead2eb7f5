//! Runners: their history, their logs, and how to remove one.

use std::collections::HashMap;

use axum::{
    Extension, Json,
    extract::{
        Path, Query, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::StatusCode,
};
use serde::Deserialize;

use super::{
    Api, HISTORY_MAX, Problem,
    audit::Change,
    caller::Caller,
    problem::{ChangeResponses, ErrorBody},
    views::RunnerHistoryView,
};
use crate::{
    control::{
        command::{Command, CommandError},
        snapshot::RunnerView,
    },
    provider,
    store::{RunnerHistory, RunnerRecord},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunnersQuery {
    #[serde(default)]
    live: bool,
}

/// The 200 runners launched last, newest first, including those that are gone
#[utoipa::path(
    get,
    path = "/api/v1/runners",
    params((
        "live" = Option<bool>, Query,
        description = "Only runners that are not gone: all of them, without their logs"
    )),
    responses(
        (status = OK, body = [RunnerHistoryView]),
        (status = BAD_REQUEST, description = "The query is malformed", body = ErrorBody),
    )
)]
pub(super) async fn runners(
    State(api): State<Api>,
    query: Result<Query<RunnersQuery>, QueryRejection>,
) -> Result<Json<Vec<RunnerHistoryView>>, Problem> {
    let Query(RunnersQuery { live }) = query?;
    let runners: Vec<RunnerHistory> = match live {
        true => {
            let present = api.store.present_runners().await?.into_iter().rev();
            present.map(|runner| RunnerHistory { runner, log: None }).collect()
        }
        false => api.store.recent_runners(HISTORY_MAX).await?,
    };
    let mut views: Vec<RunnerHistoryView> =
        runners.into_iter().map(RunnerHistoryView::from).collect();
    if views.iter().any(|view| view.gone_ms.is_none()) {
        // What is not stored. While nobody plans it is not known.
        let snapshot = api.snapshot().await;
        let mut known: HashMap<String, RunnerView> = snapshot
            .map(|snapshot| snapshot.runners.into_iter().map(|it| (it.name.clone(), it)).collect())
            .unwrap_or_default();
        for view in &mut views {
            if let Some(now) = known.remove(&view.name) {
                view.unreachable_ms = now.unreachable_ms;
                view.why = view.why.take().or(now.why);
            }
        }
    }
    Ok(Json(views))
}

/// The last 100 lines of a runner's log
///
/// If the runner is gone, its log is available only if it failed.
#[utoipa::path(
    get,
    path = "/api/v1/runners/{name}/logs",
    params(("name" = String, Path, description = "The runner's name")),
    responses(
        (status = OK, body = String, content_type = "text/plain"),
        (status = BAD_REQUEST, description = "The name is not UTF-8", body = ErrorBody),
        (status = NOT_FOUND, description = "Unknown runner, or it has no log", body = ErrorBody),
        (status = CONFLICT, description = "Docker refuses to read the log", body = ErrorBody),
    )
)]
pub(super) async fn log(
    State(api): State<Api>,
    name: Result<Path<String>, PathRejection>,
) -> Result<String, Problem> {
    let Path(name) = name?;
    // Only runners of ours: other containers on the machine have logs too.
    let found = api.store.runner(name).await?.ok_or(CommandError::NoSuchRunner)?;
    if found.runner.gone_at.is_none() {
        let place = api.places.named(&found.runner.provider);
        match api.places.runner_log(place, &found.runner.name).await {
            Ok(log) => return Ok(log),
            // Not created yet, or already removed.
            Err(error) if error.kind == provider::ErrorKind::Gone => {}
            Err(error) => return Err(error.into()),
        }
    }
    let RunnerRecord { failed, gone_at, .. } = found.runner;
    found.log.ok_or_else(|| {
        let message = match (failed, gone_at) {
            (true, _) => {
                "the runner failed, but its log is not available: its container was gone, or was \
                 never created; `edgerunner runners --all` shows why it failed"
            }
            (false, None) => "no log yet: the runner's container does not exist",
            (false, Some(_)) => {
                "no log: the runner is gone and did not fail; only the logs of failed runners are \
                 kept"
            }
        };
        Problem::new(StatusCode::NOT_FOUND, message)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

/// Remove a runner, its registration and its container
///
/// The removal starts at once and completes shortly after. If the pool then has too few
/// runners, another one is launched; drain the pool first to prevent that.
#[utoipa::path(
    delete,
    path = "/api/v1/runners/{name}",
    params(
        ("name" = String, Path, description = "The runner's name"),
        ("force" = Option<bool>, Query, description = "Even if it is running a job (the job will fail), being launched, or waiting for GitHub"),
    ),
    responses(
        (status = ACCEPTED, description = "It is being removed", body = RunnerView),
        ChangeResponses,
        (status = CONFLICT, description = "It is running a job, being launched, or already being removed", body = ErrorBody),
    ),
    security(("api_token" = []))
)]
pub(super) async fn remove(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    name: Result<Path<String>, PathRejection>,
    removal: Result<Query<RemoveQuery>, QueryRejection>,
) -> Result<(StatusCode, Json<RunnerView>), Problem> {
    let (Path(runner), Query(RemoveQuery { force })) = (name?, removal?);
    let change = Change { action: "remove", target: runner.clone() };
    let asked = api.clone();
    let removal = async move {
        Ok(asked.request(|reply| Command::RemoveRunner { runner, force, reply }).await??)
    };
    let view = api.audited(caller, change, removal).await?;
    Ok((StatusCode::ACCEPTED, Json(view)))
}
