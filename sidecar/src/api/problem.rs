//! What is answered instead.

use axum::{
    Json,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::store;

pub(super) struct Problem {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

impl Problem {
    pub(super) fn stopping() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: "shutting down".into() }
    }
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: error.to_string() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Body {
            error: String,
        }
        let unauthorized = self.status == StatusCode::UNAUTHORIZED;
        let challenge = unauthorized.then_some([(header::WWW_AUTHENTICATE, "Bearer")]);
        (self.status, challenge, Json(Body { error: self.message })).into_response()
    }
}
