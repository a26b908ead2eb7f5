//! Webhooks of repositories and organizations. The sandbox has one webhook configuration at a time,
//! which applies to every repository or every organization.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{ApiError, DOCUMENTATION};
use super::extract::WebhookId;
use crate::app::App;
use crate::job::JobRequest;
use crate::payload::Webhook;
use crate::scope::{RepositoryName, Scope};
use crate::settings::WebhookKind;
use crate::state::State;

#[derive(Deserialize)]
pub(super) struct NewWebhook {
    name: Option<String>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Config {
    url: Option<String>,
    secret: Option<String>,
}

pub(super) async fn list(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
) -> Result<Json<Vec<Webhook>>, ApiError> {
    let (kind, repository) = kind_and_repository(&scope)?;
    Ok(Json(app.read(|state| view(state, kind, &repository).into_iter().collect())))
}

pub(super) async fn create(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    body: Bytes,
) -> Result<(StatusCode, Json<Webhook>), ApiError> {
    let (kind, repository) = kind_and_repository(&scope)?;
    let new: NewWebhook = serde_json::from_slice(&body).map_err(|_| {
        ApiError::new(StatusCode::BAD_REQUEST, "Problems parsing JSON", DOCUMENTATION)
    })?;
    if new.name.is_some_and(|name| name != "web") {
        return Err(invalid("name", "The name must be 'web'"));
    }
    let config = new.config.unwrap_or(Config { url: None, secret: None });
    let Some(url) = config.url else {
        return Err(invalid("url", "url can't be blank"));
    };
    app.update(|state| {
        if state.settings.webhook_kind == kind && state.settings.webhook_url.as_ref() == Some(&url)
        {
            return Err(invalid("base", "Hook already exists on this repository"));
        }
        state.settings.webhook_kind = kind;
        state.settings.webhook_url = Some(url);
        state.settings.webhook_secret = config.secret.unwrap_or_default();
        state.ping(&repository).map_err(|_| ApiError::not_found())?;
        let view = view(state, kind, &repository).ok_or_else(ApiError::not_found)?;
        Ok((StatusCode::CREATED, Json(view)))
    })
}

pub(super) async fn ping(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    WebhookId(id): WebhookId,
) -> Result<StatusCode, ApiError> {
    let (kind, repository) = kind_and_repository(&scope)?;
    app.update(|state| {
        let webhook = view(state, kind, &repository).filter(|view| view.id == id);
        webhook.ok_or_else(ApiError::not_found)?;
        state.ping(&repository).map_err(|_| ApiError::not_found())?;
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The kind of the scope's webhooks, and a repository whose events they send.
fn kind_and_repository(scope: &Scope) -> Result<(WebhookKind, RepositoryName), ApiError> {
    match scope {
        Scope::Repository(repository) => Ok((WebhookKind::Repository, repository.clone())),
        Scope::Organization(owner) => {
            let name = JobRequest::default().repository.name;
            Ok((WebhookKind::Organization, RepositoryName { owner: owner.clone(), name }))
        }
        Scope::Enterprise(_) => Err(ApiError::not_found()),
    }
}

/// The only webhook of this kind.
fn view(state: &State, kind: WebhookKind, repository: &RepositoryName) -> Option<Webhook> {
    let exists = state.settings.webhook_kind == kind && state.settings.webhook_url.is_some();
    exists.then(|| state.webhook(repository))
}

fn invalid(field: &str, message: &str) -> ApiError {
    let errors: Vec<Value> = vec![json!({
        "resource": "Hook", "code": "custom", "field": field, "message": message,
    })];
    let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed", DOCUMENTATION);
    error.with_errors(errors)
}
