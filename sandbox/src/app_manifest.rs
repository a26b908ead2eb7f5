//! Registration of a GitHub App from a manifest: the page that a browser posts the manifest to.
//! GitHub asks the visitor to confirm it; the sandbox redirects at once.

use std::sync::Arc;

use axum::extract::{Form, Query, State as Shared};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;

/// The part of a manifest that the sandbox uses.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Manifest {
    /// GitHub requires it.
    #[serde(rename = "url")]
    _url: String,
    redirect_url: String,
    pub hook_attributes: Option<HookAttributes>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HookAttributes {
    pub url: String,
    #[serde(default = "active")]
    pub active: bool,
}

fn active() -> bool {
    true
}

#[derive(Deserialize)]
struct Submitted {
    manifest: String,
}

#[derive(Deserialize)]
struct Parameters {
    #[serde(default)]
    state: String,
}

pub(crate) fn router() -> Router<Arc<App>> {
    let page = get(explain).post(submit);
    Router::new()
        .route("/settings/apps/new", page.clone())
        .route("/organizations/{organization}/settings/apps/new", page)
}

async fn explain() -> Html<&'static str> {
    Html("<!DOCTYPE html>\n<title>Register a GitHub App</title><p>Post a manifest here.\n")
}

/// Redirects as GitHub does once the visitor has confirmed.
async fn submit(
    Shared(app): Shared<Arc<App>>,
    Query(parameters): Query<Parameters>,
    Form(submitted): Form<Submitted>,
) -> Response {
    let manifest: Manifest = match serde_json::from_str(&submitted.manifest) {
        Ok(manifest) => manifest,
        Err(error) => {
            let message = json!({ "message": format!("Invalid manifest: {error}") });
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(message)).into_response();
        }
    };
    let code = uuid::Uuid::new_v4().simple().to_string();
    let state = utf8_percent_encode(&parameters.state, NON_ALPHANUMERIC);
    let location = format!("{}?code={code}&state={state}", manifest.redirect_url);
    app.update(|state| state.app_manifests.insert(code, manifest));
    (StatusCode::FOUND, [(header::LOCATION, location)]).into_response()
}
