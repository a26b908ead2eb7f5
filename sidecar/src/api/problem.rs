//! Problems: error responses, and how OpenAPI describes them.

use axum::{
    Json,
    extract::rejection::{JsonRejection, PathRejection, QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::{control::command::CommandError, provider, store};

#[derive(ToSchema)]
#[schema(as = Problem)]
#[derive(Serialize)]
pub(super) struct ErrorBody {
    /// What is wrong, and how to fix it.
    error: String,
}

pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn stopping() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting down")
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<CommandError> for Problem {
    fn from(error: CommandError) -> Self {
        let status = match error {
            CommandError::NoSuchPool { .. } | CommandError::NoSuchRunner => StatusCode::NOT_FOUND,
            CommandError::Busy
            | CommandError::Launching
            | CommandError::Leaving { .. }
            | CommandError::AllDraining => StatusCode::CONFLICT,
            CommandError::NotStored(_) | CommandError::NoPlanner | CommandError::NotAsked(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<provider::Error> for Problem {
    fn from(error: provider::Error) -> Self {
        let status = match error.kind {
            provider::ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            provider::ErrorKind::Gone => StatusCode::NOT_FOUND,
            provider::ErrorKind::Image | provider::ErrorKind::Refused => StatusCode::CONFLICT,
        };
        Self::new(status, error.message)
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let challenge = unauthorized.then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        (self.status, challenge, Json(ErrorBody { error: self.message })).into_response()
    }
}

/// Responses that every operation may give.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub(super) enum CommonResponses {
    /// The request comes from a page of another site; or it makes a change and
    /// `server.api_token` is not set.
    #[response(status = FORBIDDEN)]
    Forbidden(#[to_schema] ErrorBody),
    /// The `Host` is not a name of this server.
    #[response(status = MISDIRECTED_REQUEST)]
    Misdirected(#[to_schema] ErrorBody),
    /// The sidecar is shutting down, or its store failed, or Docker does not answer; or of several
    /// sidecars none plans at the moment.
    #[response(status = SERVICE_UNAVAILABLE)]
    Unavailable(#[to_schema] ErrorBody),
}

/// Additional responses of every change.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub(super) enum ChangeResponses {
    /// The request is malformed.
    #[response(status = BAD_REQUEST)]
    BadRequest(#[to_schema] ErrorBody),
    /// `server.api_token` is missing or wrong.
    #[response(status = UNAUTHORIZED)]
    Unauthorized(#[to_schema] ErrorBody),
    /// Unknown pool, runner or node.
    #[response(status = NOT_FOUND)]
    NotFound(#[to_schema] ErrorBody),
}

/// Additional responses of every change with a body.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "only described")]
pub(super) enum BodyResponses {
    /// The body is larger than 2 MiB.
    #[response(status = PAYLOAD_TOO_LARGE)]
    TooLarge(#[to_schema] ErrorBody),
    /// The body is not JSON.
    #[response(status = UNSUPPORTED_MEDIA_TYPE)]
    NotJson(#[to_schema] ErrorBody),
    /// The body has other fields.
    #[response(status = UNPROCESSABLE_ENTITY)]
    OtherFields(#[to_schema] ErrorBody),
}
