use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::Id;
use super::page::{Page, Part};
use crate::app::App;
use crate::scope::Scope;
use crate::settings::RunnerGroup;
use crate::state::State;

#[derive(Debug, Serialize)]
pub(super) struct GroupView {
    id: u64,
    name: String,
    visibility: &'static str,
    default: bool,
    runners_url: String,
    inherited: bool,
    allows_public_repositories: bool,
    restricted_to_workflows: bool,
    selected_workflows: Vec<String>,
    workflow_restrictions_read_only: bool,
}

impl GroupView {
    fn new(group: &RunnerGroup, scope: &Scope, state: &State) -> Self {
        let path = format!("{}/actions/runner_groups/{}/runners", scope.api_path(), group.id);
        Self {
            id: group.id,
            name: group.name.clone(),
            visibility: "all",
            default: group.id == 1,
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
struct GroupList {
    total_count: usize,
    runner_groups: Vec<GroupView>,
}

pub(super) async fn list(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    page: Page,
) -> Result<Response, ApiError> {
    has_groups(&scope)?;
    let all = app.read(|state| {
        let groups = &state.settings.runner_groups;
        groups.iter().map(|group| GroupView::new(group, &scope, state)).collect()
    });
    let Part { total, items, links } = page.of(all);
    let list = GroupList { total_count: total, runner_groups: items };
    Ok((links, Json(list)).into_response())
}

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Json<GroupView>, ApiError> {
    has_groups(&scope)?;
    app.read(|state| {
        let group = state.settings.runner_groups.iter().find(|group| group.id == id)?;
        Some(Json(GroupView::new(group, &scope, state)))
    })
    .ok_or_else(ApiError::not_found)
}

/// Repositories have none of their own.
fn has_groups(scope: &Scope) -> Result<(), ApiError> {
    match scope {
        Scope::Repository(_) => Err(ApiError::not_found()),
        Scope::Organization(_) | Scope::Enterprise(_) => Ok(()),
    }
}
