//! The token endpoint: an access token for a signed client assertion.

use std::sync::Arc;

use axum::extract::State as Shared;
use axum::extract::rejection::FormRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Form, Json};

use super::authorization_url;
use crate::app::App;
use crate::assertion;
use crate::protocol::{ASSERTION_TYPE, TokenError, TokenRequest, TokenResponse};
use crate::state::registrations::RUNNER_TOKEN_LIFETIME;

type Rejection = (StatusCode, Json<TokenError>);

pub(super) async fn issue(
    Shared(app): Shared<Arc<App>>,
    headers: HeaderMap,
    form: Result<Form<TokenRequest>, FormRejection>,
) -> Result<Json<TokenResponse>, Rejection> {
    let Form(request) = form.map_err(|error| rejection("invalid_request", &error.to_string()))?;
    if request.grant_type != "client_credentials" {
        return Err(rejection("unsupported_grant_type", "grant_type must be client_credentials"));
    }
    if request.client_assertion_type != ASSERTION_TYPE {
        let message = format!("client_assertion_type must be {ASSERTION_TYPE}");
        return Err(rejection("invalid_request", &message));
    }
    let token = &request.client_assertion;
    let client = assertion::client_of(token)
        .ok_or_else(|| rejection("invalid_request", "the client assertion cannot be read"))?;
    let process = headers.get(header::USER_AGENT).and_then(|it| it.to_str().ok());
    let process = process.unwrap_or_default();
    app.update(|state| {
        if !state.may_use(&client, process) {
            let message = "another process has used this configuration";
            return Err(rejection("invalid_client", message));
        }
        let known = state.runners.values().find(|it| it.credentials.client_id == client);
        // Runners search for this error, and take their registration to be deleted.
        let runner = known.ok_or_else(|| rejection("invalid_client", "Registration not found"))?;
        let audience = authorization_url(&state.urls);
        assertion::verify(token, runner.credentials.key, &client, &audience)
            .map_err(|error| rejection("invalid_request", &error.to_string()))?;
        let (id, ephemeral) = (runner.id, runner.ephemeral);
        if ephemeral {
            state.configuration_users.entry(client).or_insert_with(|| process.to_owned());
        }
        let access_token = state.issue_runner_token(id);
        Ok(Json(TokenResponse {
            access_token,
            token_type: "Bearer".to_owned(),
            expires_in: RUNNER_TOKEN_LIFETIME.as_secs(),
        }))
    })
}

fn rejection(error: &str, description: &str) -> Rejection {
    let body = TokenError { error: error.to_owned(), error_description: description.to_owned() };
    (StatusCode::BAD_REQUEST, Json(body))
}
