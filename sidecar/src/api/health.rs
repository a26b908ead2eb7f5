//! Readiness, for supervisors and load balancers.

use std::sync::atomic::Ordering;

use axum::{extract::State, http::StatusCode};

use super::{Api, Problem};
use crate::control::command::{Command, Readiness};

pub(super) async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.stopping.load(Ordering::Relaxed) {
        return Err(Problem::stopping());
    }
    let error = match api.request(Command::GetReadiness).await? {
        Readiness::Ready => return Ok("ready\n"),
        Readiness::Recovering(error) => error.map(|error| format!(". {error}")),
    };
    let message = format!(
        "no provider has answered yet: events are stored, but nothing is launched{}",
        error.unwrap_or_default()
    );
    Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, message))
}
