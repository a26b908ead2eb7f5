//! Runner groups.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::Id;
use super::page::{Page, PageOf};
use crate::app::App;
use crate::runner_groups::{DEFAULT_GROUP_ID, RUNNER_GROUPS, RunnerGroup};
use crate::scope::Scope;
use crate::state::State;

#[derive(Debug, Serialize)]
pub(super) struct RunnerGroupView {
    id: u64,
    name: &'static str,
    visibility: &'static str,
    default: bool,
    runners_url: String,
    inherited: bool,
    allows_public_repositories: bool,
    restricted_to_workflows: bool,
    selected_workflows: Vec<String>,
    workflow_restrictions_read_only: bool,
}

impl RunnerGroupView {
    fn new(group: &RunnerGroup, scope: &Scope, state: &State) -> Self {
        let path = format!("{}/actions/runner_groups/{}/runners", scope.api_path(), group.id);
        Self {
            id: group.id,
            name: group.name,
            visibility: "all",
            default: group.id == DEFAULT_GROUP_ID,
            runners_url: state.urls.to(&path),
            inherited: false,
            allows_public_repositories: false,
            restricted_to_workflows: false,
            selected_workflows: Vec::new(),
            workflow_restrictions_read_only: false,
        }
    }
}

#[derive(Serialize)]
struct RunnerGroupList {
    total_count: usize,
    runner_groups: Vec<RunnerGroupView>,
}

pub(super) async fn list(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    page: Page,
) -> Result<Response, ApiError> {
    require_groups(&scope)?;
    let all = app.read(|state| {
        RUNNER_GROUPS.iter().map(|group| RunnerGroupView::new(group, &scope, state)).collect()
    });
    let PageOf { total, items, links } = page.of(all);
    let list = RunnerGroupList { total_count: total, runner_groups: items };
    Ok((links, Json(list)).into_response())
}

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Json<RunnerGroupView>, ApiError> {
    require_groups(&scope)?;
    app.read(|state| {
        let group = RUNNER_GROUPS.iter().find(|group| group.id == id)?;
        Some(Json(RunnerGroupView::new(group, &scope, state)))
    })
    .ok_or_else(ApiError::not_found)
}

/// Repositories have no runner groups.
fn require_groups(scope: &Scope) -> Result<(), ApiError> {
    match scope {
        Scope::Repository(_) => Err(ApiError::not_found()),
        Scope::Organization(_) | Scope::Enterprise(_) => Ok(()),
    }
}
