//! Deliveries of a repository's, an organization's or an App's webhook.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;

use super::error::{ApiError, DOCUMENTATION};
use super::extract::{Id, WebhookId};
use super::page::Page;
use crate::app::App;
use crate::delivery::DeliveryRecord;
use crate::payload::WholeSeconds;
use crate::scope::Scope;
use crate::settings::WebhookKind;
use crate::state::State;

/// The webhook that a request's path names.
enum WebhookRef {
    Scoped { scope: Scope, id: u64 },
    App,
}

impl WebhookRef {
    fn of(scope: Scope, WebhookId(id): WebhookId) -> Self {
        Self::Scoped { scope, id }
    }

    /// Whether the sandbox has a webhook of this kind. The ids of organizations' webhooks are not
    /// checked.
    fn exists(&self, state: &State) -> bool {
        match (self, state.settings.webhook_kind) {
            (Self::App, kind) => kind == WebhookKind::Integration,
            (Self::Scoped { scope, id }, WebhookKind::Repository) => match scope {
                Scope::Repository(repository) => state.webhook_id(repository) == *id,
                _ => false,
            },
            (Self::Scoped { scope, .. }, WebhookKind::Organization) => {
                matches!(scope, Scope::Organization(_))
            }
            (Self::Scoped { .. }, WebhookKind::Integration) => false,
        }
    }

    fn has_sent(&self, delivery: &DeliveryRecord) -> bool {
        match self {
            Self::App => true,
            Self::Scoped { scope, id } => {
                delivery.source.hook_id == *id && scope.covers(&delivery.repository)
            }
        }
    }
}

#[derive(Debug, Serialize)]
struct DeliveryView {
    id: u64,
    guid: String,
    delivered_at: WholeSeconds,
    redelivery: bool,
    duration: f64,
    status: String,
    status_code: u16,
    event: String,
    action: Option<String>,
    installation_id: Option<u64>,
    repository_id: Option<u64>,
    throttled_at: Option<WholeSeconds>,
}

impl From<&DeliveryRecord> for DeliveryView {
    fn from(delivery: &DeliveryRecord) -> Self {
        Self {
            id: delivery.id,
            guid: delivery.guid.clone(),
            delivered_at: WholeSeconds(delivery.delivered_at),
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
pub(super) struct DeliveryDetail {
    #[serde(flatten)]
    item: DeliveryView,
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
    webhook: WebhookId,
    page: Page,
) -> Result<Response, ApiError> {
    list_deliveries(&app, &WebhookRef::of(scope, webhook), &page)
}

pub(super) async fn list_of_app(app: Shared<Arc<App>>, page: Page) -> Result<Response, ApiError> {
    list_deliveries(&app, &WebhookRef::App, &page)
}

pub(super) async fn get(
    app: Shared<Arc<App>>,
    scope: Scope,
    webhook: WebhookId,
    id: Id,
) -> Result<Json<DeliveryDetail>, ApiError> {
    get_delivery(&app, &WebhookRef::of(scope, webhook), id)
}

pub(super) async fn get_of_app(
    app: Shared<Arc<App>>,
    id: Id,
) -> Result<Json<DeliveryDetail>, ApiError> {
    get_delivery(&app, &WebhookRef::App, id)
}

pub(super) async fn redeliver(
    app: Shared<Arc<App>>,
    scope: Scope,
    webhook: WebhookId,
    id: Id,
) -> Result<Response, ApiError> {
    redeliver_event(&app, &WebhookRef::of(scope, webhook), id)
}

pub(super) async fn redeliver_of_app(app: Shared<Arc<App>>, id: Id) -> Result<Response, ApiError> {
    redeliver_event(&app, &WebhookRef::App, id)
}

/// Newest first. Unlike other lists, this one is paged by a cursor.
fn list_deliveries(
    app: &Arc<App>,
    webhook: &WebhookRef,
    page: &Page,
) -> Result<Response, ApiError> {
    let before = match page.parameter("cursor") {
        None => u64::MAX,
        Some(cursor) => {
            cursor.strip_prefix("v1_").and_then(|id| id.parse().ok()).ok_or_else(|| {
                ApiError::new(StatusCode::BAD_REQUEST, "Invalid cursor", DOCUMENTATION)
            })?
        }
    };
    let wanted = match page.parameter("status") {
        Some("success") => Some(true),
        Some("failure") => Some(false),
        _ => None,
    };
    let mut items: Vec<DeliveryView> = app
        .read(|state| {
            webhook.exists(state).then(|| {
                let mut deliveries: Vec<&DeliveryRecord> = state
                    .deliveries
                    .iter()
                    .filter(|delivery| delivery.id < before && webhook.has_sent(delivery))
                    .filter(|delivery| wanted.is_none_or(|wanted| delivery.succeeded() == wanted))
                    .collect();
                deliveries.sort_by_key(|delivery| std::cmp::Reverse(delivery.id));
                deliveries.into_iter().take(page.per_page() + 1).map(DeliveryView::from).collect()
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

fn get_delivery(
    app: &Arc<App>,
    webhook: &WebhookRef,
    Id(id): Id,
) -> Result<Json<DeliveryDetail>, ApiError> {
    app.read(|state| {
        let delivery = find(state, webhook, id)?;
        Some(Json(DeliveryDetail {
            item: DeliveryView::from(delivery),
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

fn redeliver_event(app: &Arc<App>, webhook: &WebhookRef, Id(id): Id) -> Result<Response, ApiError> {
    app.update(|state| {
        let event = find(state, webhook, id)?.source.clone();
        state.redeliver(event);
        Some((StatusCode::ACCEPTED, Json(serde_json::Map::new())).into_response())
    })
    .ok_or_else(ApiError::not_found)
}

fn find<'a>(state: &'a State, webhook: &WebhookRef, id: u64) -> Option<&'a DeliveryRecord> {
    webhook.exists(state).then_some(())?;
    state.deliveries.iter().find(|delivery| delivery.id == id && webhook.has_sent(delivery))
}
