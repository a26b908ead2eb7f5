//! The webhook of a repository or an organization. The sandbox has one at a time, which
//! every repository or organization has.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::error::{ApiError, DOCUMENTATION};
use super::extract::HookId;
use crate::app::App;
use crate::job::JobRequest;
use crate::payload;
use crate::scope::{RepositoryName, Scope};
use crate::settings::HookKind;
use crate::state::State;

#[derive(Serialize)]
pub(super) struct View {
    #[serde(flatten)]
    hook: payload::Hook,
    url: String,
    ping_url: String,
    deliveries_url: String,
    last_response: LastResponse,
}

/// Of a hook that nothing was sent by.
#[derive(Serialize)]
struct LastResponse {
    code: Option<u16>,
    status: &'static str,
    message: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct NewHook {
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
) -> Result<Json<Vec<View>>, ApiError> {
    let (kind, repository) = place(&scope)?;
    Ok(Json(app.read(|state| view(state, kind, &repository, &scope).into_iter().collect())))
}

pub(super) async fn create(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    body: Bytes,
) -> Result<(StatusCode, Json<View>), ApiError> {
    let (kind, repository) = place(&scope)?;
    let new: NewHook = serde_json::from_slice(&body).map_err(|_| {
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
        if state.settings.hook == kind && state.settings.webhook_url.as_ref() == Some(&url) {
            return Err(invalid("base", "Hook already exists on this repository"));
        }
        state.settings.hook = kind;
        state.settings.webhook_url = Some(url);
        state.settings.webhook_secret = config.secret.unwrap_or_default();
        state.ping(&repository).map_err(|_| ApiError::not_found())?;
        let view = view(state, kind, &repository, &scope).ok_or_else(ApiError::not_found)?;
        Ok((StatusCode::CREATED, Json(view)))
    })
}

pub(super) async fn ping(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    HookId(id): HookId,
) -> Result<StatusCode, ApiError> {
    let (kind, repository) = place(&scope)?;
    app.update(|state| {
        let known = view(state, kind, &repository, &scope).filter(|view| view.hook.id == id);
        known.ok_or_else(ApiError::not_found)?;
        state.ping(&repository).map_err(|_| ApiError::not_found())?;
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The kind of its hooks, and a repository whose webhooks they send.
fn place(scope: &Scope) -> Result<(HookKind, RepositoryName), ApiError> {
    match scope {
        Scope::Repository(repository) => Ok((HookKind::Repository, repository.clone())),
        Scope::Organization(owner) => {
            let name = JobRequest::default().repository.name;
            Ok((HookKind::Organization, RepositoryName { owner: owner.clone(), name }))
        }
        Scope::Enterprise(_) => Err(ApiError::not_found()),
    }
}

fn view(state: &State, kind: HookKind, repository: &RepositoryName, scope: &Scope) -> Option<View> {
    if state.settings.hook != kind || state.settings.webhook_url.is_none() {
        return None;
    }
    let hook = state.hook(repository);
    let path = match scope {
        Scope::Repository(repository) => format!("repos/{repository}/hooks/{}", hook.id),
        Scope::Organization(owner) | Scope::Enterprise(owner) => {
            format!("orgs/{owner}/hooks/{}", hook.id)
        }
    };
    Some(View {
        url: state.urls.to(&path),
        ping_url: state.urls.to(&format!("{path}/pings")),
        deliveries_url: state.urls.to(&format!("{path}/deliveries")),
        last_response: LastResponse { code: None, status: "unused", message: None },
        hook,
    })
}

fn invalid(field: &str, message: &str) -> ApiError {
    let errors: Vec<Value> = vec![json!({
        "resource": "Hook", "code": "custom", "field": field, "message": message,
    })];
    let error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Validation Failed", DOCUMENTATION);
    error.because(errors)
}
