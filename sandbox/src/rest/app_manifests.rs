//! Exchange of the code of a manifest for the GitHub App that was made of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use serde::Serialize;

use super::apps::{AppView, view};
use super::error::ApiError;
use crate::app::App;
use crate::settings::WebhookKind;

/// Made for tests and public. The sandbox does not check what is signed with it.
const PRIVATE_KEY: &str = include_str!("../test-app.pem");

#[derive(Serialize)]
pub(super) struct NewApp {
    #[serde(flatten)]
    app: AppView,
    client_id: &'static str,
    client_secret: String,
    webhook_secret: Option<String>,
    pem: &'static str,
}

/// A code is good for one exchange. The App's webhook, if the manifest has one that is active,
/// takes the place of the sandbox's webhook.
pub(super) async fn convert(
    Shared(app): Shared<Arc<App>>,
    Path(code): Path<String>,
) -> Result<(StatusCode, Json<NewApp>), ApiError> {
    app.update(|state| {
        let manifest = state.app_manifests.remove(&code).ok_or_else(ApiError::not_found)?;
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let hook = manifest.hook_attributes.filter(|hook| hook.active);
        let webhook_secret = hook.is_some().then(random);
        if let (Some(hook), Some(secret)) = (hook, &webhook_secret) {
            state.settings.webhook_kind = WebhookKind::Integration;
            state.settings.webhook_url = Some(hook.url);
            state.settings.webhook_secret.clone_from(secret);
        }
        let new = NewApp {
            app: view(state),
            client_id: "Iv23liSandbox",
            client_secret: random(),
            webhook_secret,
            pem: PRIVATE_KEY,
        };
        Ok((StatusCode::CREATED, Json(new)))
    })
}
