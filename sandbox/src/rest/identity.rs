//! Who sent a request, and which endpoints that opens.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde::Deserialize;

use super::error::{ApiError, DOCUMENTATION};
use crate::app::App;
use crate::payload::APP_ID;
use crate::state::{Payer, State};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Identity {
    Anonymous,
    /// A personal access token or an installation's.
    Token,
    /// A GitHub App, by a JSON web token.
    App,
}

impl Identity {
    pub(super) fn of(app: &Arc<App>, headers: &HeaderMap) -> Result<Self, ApiError> {
        let Some(authorization) = headers.get(header::AUTHORIZATION) else {
            return Ok(Self::Anonymous);
        };
        let (scheme, token) = authorization
            .to_str()
            .ok()
            .and_then(|text| text.split_once(' '))
            .ok_or_else(ApiError::bad_credentials)?;
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" | "token" if app.read(|state| accepts(state, token)) => Ok(Self::Token),
            "bearer" if token.split('.').count() == 3 => check_web_token(token).map(|()| Self::App),
            _ => Err(ApiError::bad_credentials()),
        }
    }
}

fn accepts(state: &State, token: &str) -> bool {
    state.settings.tokens.iter().any(|own| own == token) || installation(state, token).is_some()
}

/// That a token is good for.
fn installation(state: &State, token: &str) -> Option<u64> {
    let token = state.installation_tokens.get(token).filter(|it| it.expires_at > Utc::now())?;
    Some(token.installation)
}

/// Whose budget a request counts against.
pub(super) fn payer(state: &State, headers: &HeaderMap) -> Payer {
    if let Some(own) = token(state, headers) {
        return Payer::Token(own);
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match bearer.and_then(|text| text.split_once(' ')) {
        Some((_, text)) => match installation(state, text) {
            Some(id) => Payer::Installation(id),
            None if check_web_token(text).is_ok() => Payer::App,
            None => Payer::Address,
        },
        None => Payer::Address,
    }
}

/// The personal access token a request came with, by its place in the settings.
pub(super) fn token(state: &State, headers: &HeaderMap) -> Option<usize> {
    let (_, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    state.settings.tokens.iter().position(|own| own == token)
}

#[derive(Deserialize)]
struct Claims {
    iss: Issuer,
    iat: i64,
    exp: i64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Issuer {
    Number(u64),
    Text(String),
}

/// The claims only: the sandbox does not hold the App's public key.
fn check_web_token(token: &str) -> Result<(), ApiError> {
    let refuse =
        |message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, message, DOCUMENTATION));
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok());
    let Some(claims) = claims else {
        return refuse("A JSON web token could not be decoded");
    };
    let issued_by_us = match &claims.iss {
        Issuer::Number(id) => *id == APP_ID,
        Issuer::Text(id) => *id == APP_ID.to_string(),
    };
    let now = Utc::now().timestamp();
    if !issued_by_us {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "Integration not found", DOCUMENTATION));
    }
    if claims.iat > now {
        return refuse(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    if claims.exp <= now {
        return refuse(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        );
    }
    if claims.exp > now + 600 {
        return refuse("'Expiration time' claim ('exp') is too far in the future");
    }
    Ok(())
}

pub(super) async fn require_token(request: Request, next: Next) -> Response {
    match request.extensions().get::<Identity>() {
        Some(Identity::Token) => next.run(request).await,
        Some(Identity::App) => ApiError::new(
            StatusCode::FORBIDDEN,
            "Resource not accessible by integration",
            DOCUMENTATION,
        )
        .into_response(),
        Some(Identity::Anonymous) | None => {
            ApiError::new(StatusCode::UNAUTHORIZED, "Requires authentication", DOCUMENTATION)
                .into_response()
        }
    }
}

pub(super) async fn require_app(request: Request, next: Next) -> Response {
    match request.extensions().get::<Identity>() {
        Some(Identity::App) => next.run(request).await,
        _ => ApiError::new(
            StatusCode::UNAUTHORIZED,
            "A JSON web token could not be decoded",
            DOCUMENTATION,
        )
        .into_response(),
    }
}
