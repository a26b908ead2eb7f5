//! Authentication: who sent a request, which endpoints they may use, and which rate limit applies.

use std::sync::Arc;

use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

use super::error::{ApiError, DOCUMENTATION};
use crate::app::App;
use crate::installation::InstallationStatus;
use crate::payload::APP_ID;
use crate::rate_limit::RateLimitBucket;
use crate::state::State;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Identity {
    Anonymous,
    /// A personal access token.
    Token,
    /// A token of the installation with this id.
    Installation(u64),
    /// The GitHub App, with a JSON web token.
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
        let scheme = scheme.to_ascii_lowercase();
        if ["bearer", "token"].contains(&&*scheme) {
            if app.read(|state| is_personal(state, token)) {
                return Ok(Self::Token);
            }
            if let Some(id) = app.read(|state| installation(state, token)) {
                return match app.read(|state| suspended(state, id)) {
                    true => Err(ApiError::suspended()),
                    false => Ok(Self::Installation(id)),
                };
            }
        }
        match &*scheme {
            "bearer" if token.split('.').count() == 3 => check_jwt(token).map(|()| Self::App),
            _ => Err(ApiError::bad_credentials()),
        }
    }
}

fn is_personal(state: &State, token: &str) -> bool {
    state.settings.tokens.iter().any(|own| own == token)
}

fn suspended(state: &State, installation: u64) -> bool {
    state
        .installation_owner(installation)
        .is_some_and(|owner| state.installation(&owner).status == InstallationStatus::Suspended)
}

/// The installation that a valid installation token belongs to.
fn installation(state: &State, token: &str) -> Option<u64> {
    let token =
        state.installation_tokens.get(token).filter(|it| it.expires_at > Timestamp::now())?;
    Some(token.installation)
}

/// The rate limit that applies to a request.
pub(super) fn bucket(state: &State, headers: &HeaderMap) -> RateLimitBucket {
    if let Some(index) = token_index(state, headers) {
        return RateLimitBucket::Token(index);
    }
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    match bearer.and_then(|text| text.split_once(' ')) {
        Some((_, text)) => match installation(state, text) {
            Some(id) => RateLimitBucket::Installation(id),
            None if check_jwt(text).is_ok() => RateLimitBucket::App,
            None => RateLimitBucket::Address,
        },
        None => RateLimitBucket::Address,
    }
}

/// Index in the settings of the personal access token that a request has.
pub(super) fn token_index(state: &State, headers: &HeaderMap) -> Option<usize> {
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

/// Checks only the claims: the sandbox does not have the App's public key.
fn check_jwt(token: &str) -> Result<(), ApiError> {
    let unauthorized =
        |message: &str| Err(ApiError::new(StatusCode::UNAUTHORIZED, message, DOCUMENTATION));
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok())
        .and_then(|payload| serde_json::from_slice::<Claims>(&payload).ok());
    let Some(claims) = claims else {
        return unauthorized("A JSON web token could not be decoded");
    };
    let issued_by_app = match &claims.iss {
        Issuer::Number(id) => *id == APP_ID,
        Issuer::Text(id) => *id == APP_ID.to_string(),
    };
    let now = Timestamp::now().as_second();
    if !issued_by_app {
        return Err(ApiError::new(StatusCode::NOT_FOUND, "Integration not found", DOCUMENTATION));
    }
    if claims.iat > now {
        return unauthorized(
            "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued",
        );
    }
    if claims.exp <= now {
        return unauthorized(
            "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires",
        );
    }
    if claims.exp > now + 600 {
        return unauthorized("'Expiration time' claim ('exp') is too far in the future");
    }
    Ok(())
}

pub(super) async fn require_token(request: Request, next: Next) -> Response {
    match request.extensions().get::<Identity>() {
        Some(Identity::Token | Identity::Installation(_)) => next.run(request).await,
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
