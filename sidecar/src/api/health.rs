//! Readiness, for supervisors and load balancers.

use std::sync::atomic::Ordering;

use axum::{extract::State, http::StatusCode};

use super::{Api, Problem};
use crate::control::command::Command;

pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.stopping.load(Ordering::Relaxed) {
        return Err(Problem::stopping());
    }
    if api.request(Command::IsRecovered).await? {
        return Ok("ready\n");
    }
    let mut message =
        "no provider has answered yet: events are stored, but nothing is launched".to_owned();
    if let Some(error) = api.executor.provider_error() {
        message += &format!(". {error}");
    }
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message))
}
