//! Errors in the format of the broker and of the run service.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::protocol::{BROKER, ErrorKind, RUN_SERVICE, ServiceError};

#[derive(Debug)]
pub(super) struct Failure {
    status: StatusCode,
    source: &'static str,
    kind: Option<ErrorKind>,
    message: String,
}

impl Failure {
    pub(super) fn of_broker(
        status: StatusCode,
        kind: Option<ErrorKind>,
        message: impl Into<String>,
    ) -> Self {
        Self { status, source: BROKER, kind, message: message.into() }
    }

    pub(super) fn of_run_service(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, source: RUN_SERVICE, kind: None, message: message.into() }
    }

    pub(super) fn runner_not_found() -> Self {
        let message = "Runner not found";
        Self::of_broker(StatusCode::NOT_FOUND, Some(ErrorKind::RunnerNotFound), message)
    }

    pub(super) fn version_too_old(version: &str) -> Self {
        let message =
            format!("Runner version v{version} is deprecated and cannot receive messages.");
        Self::of_broker(StatusCode::FORBIDDEN, Some(ErrorKind::RunnerVersionTooOld), message)
    }

    pub(super) fn session_invalid() -> Self {
        let message = "the session has ended";
        Self::of_broker(StatusCode::NOT_FOUND, Some(ErrorKind::RunnerSessionInvalid), message)
    }

    pub(super) fn stopping() -> Self {
        Self::of_broker(StatusCode::SERVICE_UNAVAILABLE, None, "the sandbox is stopping")
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let body = ServiceError {
            source: self.source.to_owned(),
            error_kind: self.kind,
            status_code: self.status.as_u16(),
            error_message: self.message,
        };
        (self.status, Json(body)).into_response()
    }
}
