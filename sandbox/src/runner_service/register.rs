//! Registration with a token, as the stand-in runner does it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use crate::app::App;
use crate::protocol::{ErrorResponse, RegistrationRequest, RegistrationResponse};
use crate::registration::TokenPurpose;
use crate::runner_groups::{DEFAULT_GROUP_ID, RUNNER_GROUPS};
use crate::scope::Scope;
use crate::state::registrations::{NewRunner, RegisterError};

fn error_response(status: StatusCode, error: impl ToString) -> Response {
    let error = error.to_string();
    (status, Json(ErrorResponse { error })).into_response()
}

pub(super) async fn register(
    Shared(app): Shared<Arc<App>>,
    headers: HeaderMap,
    Json(registration): Json<RegistrationRequest>,
) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("RemoteAuth "))
        .unwrap_or_default()
        .to_owned();
    app.update(|state| {
        let now = Timestamp::now();
        let known = state.registration_tokens.iter().find(|known| {
            known.token == token
                && known.purpose == TokenPurpose::Register
                && known.expires_at > now
        });
        let Some(scope) = known.map(|known| known.scope.clone()) else {
            return error_response(StatusCode::NOT_FOUND, "unknown registration token");
        };
        let page = registration.url.parse::<http::Uri>().ok();
        if page.and_then(|page| Scope::from_page(page.path())) != Some(scope.clone()) {
            return error_response(
                StatusCode::NOT_FOUND,
                format!("the registration token is not valid for {}", registration.url),
            );
        }
        let group_id = match &registration.group {
            None => DEFAULT_GROUP_ID,
            Some(name) => match RUNNER_GROUPS.iter().find(|group| group.name == name) {
                Some(group) => group.id,
                None => {
                    return error_response(
                        StatusCode::NOT_FOUND,
                        format!("Could not find any self-hosted runner group named \"{name}\"."),
                    );
                }
            },
        };
        // The public images register with `--replace`.
        let replaced = state.runners.values().find(|runner| {
            runner.scope == scope && runner.name.eq_ignore_ascii_case(&registration.name)
        });
        if let Some(id) = replaced.map(|runner| runner.id) {
            // A busy one stays, and keeps the name.
            let _ = state.unregister(id);
        }
        let mut labels: Vec<String> = match registration.no_default_labels {
            true => Vec::new(),
            false => ["self-hosted", "linux", "x64"].map(str::to_owned).into(),
        };
        labels.extend(registration.labels);
        let registered = state.register(NewRunner {
            scope,
            name: registration.name,
            group_id,
            labels,
            ephemeral: registration.ephemeral,
            work_folder: registration.work_folder.unwrap_or_else(|| "_work".to_owned()),
        });
        match registered {
            Ok((_, encoded_jit_config)) => {
                (StatusCode::CREATED, Json(RegistrationResponse { encoded_jit_config }))
                    .into_response()
            }
            Err(error @ RegisterError::NameTaken(_)) => error_response(StatusCode::CONFLICT, error),
            Err(error @ RegisterError::UnknownGroup(_)) => {
                error_response(StatusCode::NOT_FOUND, error)
            }
            Err(error @ RegisterError::Encoding(_)) => {
                error_response(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    })
}
