//! Access tokens of runners and of their jobs.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use jiff::Timestamp;

use super::error::Failure;
use crate::app::App;

/// The id of the runner whose token, or whose job's token, the request has. The runner may be gone.
pub(super) struct AuthenticatedRunner(pub u64);

impl FromRequestParts<Arc<App>> for AuthenticatedRunner {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Failure> {
        let token = parts.headers.get(header::AUTHORIZATION).and_then(|value| {
            let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token)
        });
        let runner = token.and_then(|token| {
            app.read(|state| {
                let known = state.runner_tokens.get(token)?;
                (known.expires_at > Timestamp::now()).then_some(known.runner)
            })
        });
        runner.map(Self).ok_or_else(|| {
            Failure::of_broker(StatusCode::UNAUTHORIZED, None, "a valid access token is required")
        })
    }
}
