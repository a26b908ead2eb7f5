//! Errors in GitHub's format.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

pub(super) const DOCUMENTATION: &str = "https://docs.github.com/rest";
const INSTALLATION_TOKENS: &str =
    "https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app";
const RUNNERS: &str = "https://docs.github.com/rest/actions/self-hosted-runners";

#[derive(Debug)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub body: ErrorBody,
}

#[derive(Debug, Serialize)]
pub(crate) struct ErrorBody {
    pub message: String,
    pub documentation_url: &'static str,
    /// The HTTP status, as text.
    pub status: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<serde_json::Value>,
}

impl ApiError {
    pub(crate) fn new(
        status: StatusCode,
        message: impl Into<String>,
        documentation_url: &'static str,
    ) -> Self {
        Self {
            status,
            body: ErrorBody {
                message: message.into(),
                documentation_url,
                status: status.as_u16().to_string(),
                errors: Vec::new(),
            },
        }
    }

    pub(crate) fn with_errors(mut self, errors: Vec<serde_json::Value>) -> Self {
        self.body.errors = errors;
        self
    }

    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not Found", DOCUMENTATION)
    }

    pub(crate) fn bad_credentials() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Bad credentials", DOCUMENTATION)
    }

    pub(crate) fn suspended() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "This installation has been suspended",
            INSTALLATION_TOKENS,
        )
    }

    pub(crate) fn runners(status: StatusCode, message: impl Into<String>) -> Self {
        Self::new(status, message, RUNNERS)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

pub(super) async fn not_found() -> ApiError {
    ApiError::not_found()
}
