//! Deliveries of a repository's, an organization's or an App's hook.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::error::{ApiError, DOCUMENTATION};
use super::extract::{HookId, Id};
use super::page::Page;
use crate::app::App;
use crate::delivery::Delivery;
use crate::payload::Timestamp;
use crate::scope::Scope;
use crate::settings::HookKind;
use crate::state::State;

/// One hook, as the path names it.
pub(super) enum Hook {
    Scoped { scope: Scope, id: u64 },
    App,
}

impl Hook {
    fn of(scope: Scope, HookId(id): HookId) -> Self {
        Self::Scoped { scope, id }
    }

    /// Whether the sandbox sends webhooks through this hook, as far as can be
    /// told from its kind alone.
    fn exists(&self, state: &State) -> bool {
        match (self, state.settings.hook) {
            (Self::App, kind) => kind == HookKind::Integration,
            (Self::Scoped { scope, id }, HookKind::Repository) => match scope {
                Scope::Repository(repository) => state.hook_id(repository) == *id,
                _ => false,
            },
            (Self::Scoped { scope, .. }, HookKind::Organization) => {
                matches!(scope, Scope::Organization(_))
            }
            (Self::Scoped { .. }, HookKind::Integration) => false,
        }
    }

    fn sent(&self, delivery: &Delivery) -> bool {
        match self {
            Self::App => true,
            Self::Scoped { scope, id } => {
                delivery.source.hook_id == *id && scope.covers(&delivery.repository)
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct Item {
    id: u64,
    guid: String,
    delivered_at: Timestamp,
    redelivery: bool,
    duration: f64,
    status: String,
    status_code: u16,
    event: String,
    action: Option<String>,
    installation_id: Option<u64>,
    repository_id: Option<u64>,
    throttled_at: Option<Timestamp>,
}

impl From<&Delivery> for Item {
    fn from(delivery: &Delivery) -> Self {
        Self {
            id: delivery.id,
            guid: delivery.guid.clone(),
            delivered_at: Timestamp(delivery.delivered_at),
            redelivery: delivery.redelivery,
            duration: (delivery.duration * 100.0).round() / 100.0,
            status: delivery.status.clone(),
            status_code: delivery.status_code,
            event: delivery.event.clone(),
            action: delivery.action.clone(),
            installation_id: delivery.source.installation_id,
            repository_id: Some(delivery.source.repository_id),
            throttled_at: None,
        }
    }
}

#[derive(Serialize)]
pub(super) struct Detail {
    #[serde(flatten)]
    item: Item,
    url: Option<String>,
    request: RequestView,
    response: ResponseView,
}

#[derive(Serialize)]
struct RequestView {
    headers: BTreeMap<String, String>,
    payload: Value,
}

#[derive(Serialize)]
struct ResponseView {
    headers: BTreeMap<String, String>,
    payload: Option<String>,
}

pub(super) async fn list(
    app: Shared<Arc<App>>,
    scope: Scope,
    hook: HookId,
    page: Page,
) -> Result<Response, ApiError> {
    listed(&app, &Hook::of(scope, hook), &page)
}

pub(super) async fn list_of_app(app: Shared<Arc<App>>, page: Page) -> Result<Response, ApiError> {
    listed(&app, &Hook::App, &page)
}

pub(super) async fn get(
    app: Shared<Arc<App>>,
    scope: Scope,
    hook: HookId,
    id: Id,
) -> Result<Json<Detail>, ApiError> {
    detail(&app, &Hook::of(scope, hook), id)
}

pub(super) async fn get_of_app(app: Shared<Arc<App>>, id: Id) -> Result<Json<Detail>, ApiError> {
    detail(&app, &Hook::App, id)
}

pub(super) async fn redeliver(
    app: Shared<Arc<App>>,
    scope: Scope,
    hook: HookId,
    id: Id,
) -> Result<Response, ApiError> {
    redelivered(&app, &Hook::of(scope, hook), id)
}

pub(super) async fn redeliver_of_app(app: Shared<Arc<App>>, id: Id) -> Result<Response, ApiError> {
    redelivered(&app, &Hook::App, id)
}

/// Newest first; paged by a cursor, not by number.
fn listed(app: &Arc<App>, hook: &Hook, page: &Page) -> Result<Response, ApiError> {
    let before = match page.parameter("cursor") {
        None => u64::MAX,
        Some(cursor) => {
            cursor.strip_prefix("v1_").and_then(|id| id.parse().ok()).ok_or_else(|| {
                ApiError::new(StatusCode::BAD_REQUEST, "Invalid cursor", DOCUMENTATION)
            })?
        }
    };
    let succeeded = match page.parameter("status") {
        Some("success") => Some(true),
        Some("failure") => Some(false),
        _ => None,
    };
    let mut items: Vec<Item> = app
        .read(|state| {
            hook.exists(state).then(|| {
                let mut deliveries: Vec<&Delivery> = state
                    .deliveries
                    .iter()
                    .filter(|delivery| delivery.id < before && hook.sent(delivery))
                    .filter(|delivery| {
                        succeeded.is_none_or(|wanted| delivery.succeeded() == wanted)
                    })
                    .collect();
                deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
                deliveries.into_iter().take(page.per_page() + 1).map(Item::from).collect()
            })
        })
        .ok_or_else(ApiError::not_found)?;
    let more = items.len() > page.per_page();
    items.truncate(page.per_page());
    let link = items.last().filter(|_| more).map(|last| {
        let cursor = format!("v1_{}", last.id);
        [(header::LINK, page.link("next", "cursor", &cursor))]
    });
    Ok((link, Json(items)).into_response())
}

fn detail(app: &Arc<App>, hook: &Hook, Id(id): Id) -> Result<Json<Detail>, ApiError> {
    app.read(|state| {
        let delivery = find(state, hook, id)?;
        Some(Json(Detail {
            item: Item::from(delivery),
            url: state.settings.webhook_url.clone(),
            request: RequestView {
                headers: delivery.request_headers.clone(),
                payload: serde_json::from_slice(delivery.payload()).unwrap_or_default(),
            },
            response: ResponseView {
                headers: delivery.response_headers.clone(),
                payload: delivery.response_body.clone(),
            },
        }))
    })
    .ok_or_else(ApiError::not_found)
}

fn redelivered(app: &Arc<App>, hook: &Hook, Id(id): Id) -> Result<Response, ApiError> {
    app.update(|state| {
        let event = find(state, hook, id)?.source.clone();
        state.redeliver(event);
        Some((StatusCode::ACCEPTED, Json(serde_json::Map::new())).into_response())
    })
    .ok_or_else(ApiError::not_found)
}

fn find<'a>(state: &'a State, hook: &Hook, id: u64) -> Option<&'a Delivery> {
    hook.exists(state).then_some(())?;
    state.deliveries.iter().find(|delivery| delivery.id == id && hook.sent(delivery))
}
