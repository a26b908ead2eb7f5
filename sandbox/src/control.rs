//! `/_sandbox/`: the control API, which queues jobs and sets faults.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::call::Call;
use crate::delivery::DeliveryRecord;
use crate::faults::{ActiveFaults, Faults};
use crate::job::{Job, JobRequest};
use crate::protocol::ErrorResponse;
use crate::registration::Runner;
use crate::scope::RepositoryName;
use crate::state::jobs::JobError;

const HELP: &str = r#"edgerunner sandbox: a stand-in GitHub

  POST /_sandbox/jobs               {"repository":"acme/app","labels":["self-hosted"],"seconds":2,
                                     "conclusion":"success","count":1,"name":"build",
                                     "steps":["container","limits"]}, all optional
  GET  /_sandbox/jobs
  POST /_sandbox/jobs/{id}/cancel
  POST /_sandbox/jobs/{id}/rerun
  GET  /_sandbox/runners
  GET  /_sandbox/deliveries         webhooks sent, with the responses
  GET  /_sandbox/calls              REST requests received, with the status of each response
  GET  /_sandbox/faults
  PUT  /_sandbox/faults             {"requests":[{"path":"generate-jitconfig","next":3,
                                     "fault":{"forbidden":{"retry_after":{"seconds":5}}}}],
                                     "deliveries":[{"action":"queued","probability":0.1,"fault":"lost"}],
                                     "seed":1}
  POST /_sandbox/ping               {"repository":"acme/app"}, optional; sends a ping webhook

  request faults:       latency{ms} unauthorized forbidden{retry_after} too_many_requests{retry_after}
                        rate_limited{reset_seconds} not_found conflict unprocessable_entity
                        server_error hang close{performed} link_elsewhere{origin}
  retry_after:          "none" {"seconds":5} {"date":5}
  delivery faults:      lost vanished doubled reordered delayed{ms}
"#;

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(help))
        .route("/jobs", get(jobs).post(queue))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/rerun", post(rerun))
        .route("/runners", get(runners))
        .route("/deliveries", get(deliveries))
        .route("/calls", get(calls))
        .route("/faults", get(faults).put(set_faults))
        .route("/ping", post(ping))
        .fallback(|| async { (StatusCode::NOT_FOUND, HELP) })
}

pub(crate) async fn help() -> &'static str {
    HELP
}

struct ControlError(StatusCode, String);

impl IntoResponse for ControlError {
    fn into_response(self) -> Response {
        (self.0, Json(ErrorResponse { error: self.1 })).into_response()
    }
}

impl From<JobError> for ControlError {
    fn from(error: JobError) -> Self {
        let status = match error {
            JobError::Unknown(_) => StatusCode::NOT_FOUND,
            JobError::Completed(_) | JobError::NotCompleted(_) => StatusCode::CONFLICT,
        };
        Self(status, error.to_string())
    }
}

/// Ignores the content type, since curl sends that of a form. Without a body, the defaults apply.
fn parse<T: Default + for<'de> Deserialize<'de>>(body: &Bytes) -> Result<T, ControlError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| ControlError(StatusCode::BAD_REQUEST, error.to_string()))
}

async fn jobs(Shared(app): Shared<Arc<App>>) -> Json<Vec<Job>> {
    Json(app.read(|state| state.jobs.values().cloned().collect()))
}

async fn queue(
    Shared(app): Shared<Arc<App>>,
    body: Bytes,
) -> Result<(StatusCode, Json<Vec<Job>>), ControlError> {
    let request: JobRequest = parse(&body)?;
    request.check().map_err(|error| ControlError(StatusCode::BAD_REQUEST, error.to_owned()))?;
    let jobs = app.update(|state| {
        let ids = state.queue_jobs(&request);
        ids.iter().filter_map(|id| state.jobs.get(id).cloned()).collect()
    });
    Ok((StatusCode::CREATED, Json(jobs)))
}

async fn cancel(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<u64>,
) -> Result<(StatusCode, Json<Job>), ControlError> {
    let job = app.update(|state| {
        state.cancel(id)?;
        state.jobs.get(&id).cloned().ok_or(JobError::Unknown(id))
    })?;
    Ok((StatusCode::ACCEPTED, Json(job)))
}

async fn rerun(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<u64>,
) -> Result<(StatusCode, Json<Job>), ControlError> {
    let job = app.update(|state| {
        let new = state.rerun(id)?;
        state.jobs.get(&new).cloned().ok_or(JobError::Unknown(new))
    })?;
    Ok((StatusCode::CREATED, Json(job)))
}

async fn runners(Shared(app): Shared<Arc<App>>) -> Json<Vec<Runner>> {
    Json(app.read(|state| state.runners.values().cloned().collect()))
}

async fn deliveries(Shared(app): Shared<Arc<App>>) -> Json<Vec<DeliveryRecord>> {
    Json(app.read(|state| state.deliveries.clone()))
}

async fn calls(Shared(app): Shared<Arc<App>>) -> Json<Vec<Call>> {
    Json(app.read(|state| state.calls.clone()))
}

async fn faults(Shared(app): Shared<Arc<App>>) -> Json<Faults> {
    Json(app.read(|state| state.faults.get().clone()))
}

async fn set_faults(
    Shared(app): Shared<Arc<App>>,
    body: Bytes,
) -> Result<Json<Faults>, ControlError> {
    let faults: Faults = parse(&body)?;
    app.update(|state| state.faults = ActiveFaults::new(faults.clone()));
    Ok(Json(faults))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PingRequest {
    repository: Option<RepositoryName>,
}

#[derive(Serialize)]
struct PingResponse {
    repository: RepositoryName,
}

async fn ping(
    Shared(app): Shared<Arc<App>>,
    body: Bytes,
) -> Result<(StatusCode, Json<PingResponse>), ControlError> {
    let request: PingRequest = parse(&body)?;
    let repository = request.repository.unwrap_or_else(|| JobRequest::default().repository);
    app.update(|state| state.ping(&repository))
        .map_err(|error| ControlError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok((StatusCode::ACCEPTED, Json(PingResponse { repository })))
}
