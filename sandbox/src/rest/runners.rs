//! Self-hosted runners.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::Id;
use super::page::{Page, PageOf};
use crate::app::App;
use crate::payload::id_of;
use crate::registration::Runner;
use crate::scope::Scope;
use crate::state::registrations::RemoveError;

#[derive(Debug, Serialize)]
pub(super) struct RunnerView {
    id: u64,
    runner_group_id: u64,
    name: String,
    os: String,
    status: &'static str,
    busy: bool,
    ephemeral: bool,
    labels: Vec<LabelView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
}

#[derive(Debug, Serialize)]
struct LabelView {
    id: u64,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

impl From<&Runner> for RunnerView {
    fn from(runner: &Runner) -> Self {
        Self {
            id: runner.id,
            runner_group_id: runner.group_id,
            name: runner.name.clone(),
            os: runner.os.clone(),
            status: if runner.online() { "online" } else { "offline" },
            busy: runner.busy(),
            ephemeral: runner.ephemeral,
            labels: runner.labels.iter().map(|label| LabelView::new(label)).collect(),
            version: runner.version.clone(),
        }
    }
}

impl LabelView {
    fn new(name: &str) -> Self {
        Self {
            id: id_of(name),
            kind: match name {
                "self-hosted" | "linux" | "x64" => "read-only",
                _ => "custom",
            },
            name: name.to_owned(),
        }
    }
}

#[derive(Serialize)]
struct RunnerList {
    total_count: usize,
    runners: Vec<RunnerView>,
}

pub(super) async fn list(Shared(app): Shared<Arc<App>>, scope: Scope, page: Page) -> Response {
    let name = page.parameter("name");
    let all = app.read(|state| {
        state
            .runners
            .values()
            .filter(|runner| runner.scope == scope)
            .filter(|runner| name.is_none_or(|name| runner.name == name))
            .map(RunnerView::from)
            .collect()
    });
    let PageOf { total, items, links } = page.of(all);
    let list = RunnerList { total_count: total, runners: items };
    (links, Json(list)).into_response()
}

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Json<RunnerView>, ApiError> {
    app.read(|state| {
        state
            .runners
            .get(&id)
            .filter(|runner| runner.scope == scope)
            .map(|runner| Json(RunnerView::from(runner)))
    })
    .ok_or_else(ApiError::not_found)
}

pub(super) async fn remove(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    match app.update(|state| state.remove_runner(&scope, id)) {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(RemoveError::Unknown) => Err(ApiError::not_found()),
        Err(error @ RemoveError::Busy(_)) => {
            Err(ApiError::runners(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))
        }
    }
}
