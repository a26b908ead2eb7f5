//! `/_sandbox/`: the control API, which queues jobs, sets faults and changes what GitHub has.

use std::sync::Arc;

use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Json, Router};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::call::Call;
use crate::delivery::DeliveryRecord;
use crate::faults::{ActiveFaults, Faults};
use crate::installation::InstallationStatus;
use crate::job::{Job, JobRequest};
use crate::protocol::ErrorResponse;
use crate::registration::Runner;
use crate::repository::{Access, Repository, Visibility};
use crate::scope::RepositoryName;
use crate::state::jobs::JobError;
use crate::state::registrations::RemoveError;

const HELP: &str = r#"edgerunner sandbox: a stand-in GitHub

  POST /_sandbox/jobs               {"repository":"acme/app","labels":["self-hosted"],"seconds":2,
                                     "conclusion":"success","count":1,"max_parallel":1,
                                     "name":"build","from_fork":false,
                                     "steps":["container","limits"]}, all optional
  GET  /_sandbox/jobs
  POST /_sandbox/jobs/{id}/cancel
  POST /_sandbox/jobs/{id}/rerun
  POST /_sandbox/jobs/{id}/release  lifts max_parallel of the job's run
  GET  /_sandbox/runners
  DELETE /_sandbox/runners/{id}     unregisters an idle runner, which exits
  GET  /_sandbox/repositories       those that were changed
  PUT  /_sandbox/repositories/{owner}/{name}
                                    {"name":"acme/new"} renames or transfers it,
                                    {"access":"archived"} also takes open hidden blocked deleted,
                                    {"visibility":"public"} also private internal unreported
  PUT  /_sandbox/installations/{owner}
                                    {"status":"suspended"} also takes active uninstalled
  PUT  /_sandbox/runner-versions/{version}
                                    {"ends":"2026-12-08T00:00:00Z"} is when GitHub stops accepting
                                    it; {"ends":null}: GitHub does not know it
  GET  /_sandbox/deliveries         webhooks sent, with the responses
  GET  /_sandbox/calls              REST requests received, with the status of each response
  GET  /_sandbox/faults
  PUT  /_sandbox/faults             {"requests":[{"path":"generate-jitconfig","next":3,
                                     "fault":{"forbidden":{"retry_after":{"seconds":5}}}}],
                                     "deliveries":[{"action":"queued","probability":0.1,"fault":"lost"}],
                                     "unnamed_runners":true,"seed":1}
  POST /_sandbox/ping               {"repository":"acme/app"}, optional; sends a ping webhook

  request faults:       latency{ms} unauthorized forbidden{retry_after} too_many_requests{retry_after}
                        rate_limited{reset_seconds} not_found conflict unprocessable_entity
                        server_error web_page hang close{performed}
                        link_elsewhere{origin}
                        each with method, path, token (index of a personal token), next and
                        probability, all optional
  retry_after:          "none" {"seconds":5} {"date":5}
  delivery faults:      lost vanished doubled reordered delayed{ms}
  max_parallel:         how many jobs of the run GitHub hands out at a time; 0 holds all back
  unnamed_runners:      events do not name the runner of a job
  visibility:           unreported: private, and webhooks say nothing about it
  access:               archived 403 to writes, hidden and deleted 404, blocked 451
"#;

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(help))
        .route("/jobs", get(jobs).post(queue))
        .route("/jobs/{id}/cancel", post(cancel))
        .route("/jobs/{id}/rerun", post(rerun))
        .route("/jobs/{id}/release", post(release))
        .route("/runners", get(runners))
        .route("/runners/{id}", delete(unregister))
        .route("/repositories", get(repositories))
        .route("/repositories/{owner}/{name}", put(change_repository))
        .route("/installations/{owner}", put(change_installation))
        .route("/runner-versions/{version}", put(set_version_end))
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

async fn release(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<u64>,
) -> Result<Json<Job>, ControlError> {
    let job = app.update(|state| {
        state.release(id)?;
        state.jobs.get(&id).cloned().ok_or(JobError::Unknown(id))
    })?;
    Ok(Json(job))
}

async fn unregister(
    Shared(app): Shared<Arc<App>>,
    Path(id): Path<u64>,
) -> Result<StatusCode, ControlError> {
    app.update(|state| state.unregister(id)).map_err(|error| {
        let status = match error {
            RemoveError::Unknown => StatusCode::NOT_FOUND,
            RemoveError::Busy(_) => StatusCode::CONFLICT,
        };
        ControlError(status, error.to_string())
    })?;
    Ok(StatusCode::NO_CONTENT)
}

async fn repositories(Shared(app): Shared<Arc<App>>) -> Json<Vec<Repository>> {
    Json(app.read(|state| state.repositories.clone()))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RepositoryChange {
    name: Option<RepositoryName>,
    access: Option<Access>,
    visibility: Option<Visibility>,
}

async fn change_repository(
    Shared(app): Shared<Arc<App>>,
    Path((owner, name)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Repository>, ControlError> {
    let change: RepositoryChange = parse(&body)?;
    let name = RepositoryName { owner, name };
    app.update(|state| {
        if let Some(new) = change.name {
            state
                .rename_repository(&name, new)
                .map_err(|error| ControlError(StatusCode::CONFLICT, error.to_string()))?;
        }
        if let Some(access) = change.access {
            state.set_access(&name, access);
        }
        if let Some(visibility) = change.visibility {
            state.set_visibility(&name, visibility);
        }
        Ok(Json(state.repository(&state.current_name(&name))))
    })
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct VersionEnd {
    ends: Option<Timestamp>,
}

async fn set_version_end(
    Shared(app): Shared<Arc<App>>,
    Path(version): Path<String>,
    body: Bytes,
) -> Result<StatusCode, ControlError> {
    let VersionEnd { ends } = parse(&body)?;
    app.update(|state| state.set_version_end(&version, ends));
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct InstallationChange {
    status: InstallationStatus,
}

async fn change_installation(
    Shared(app): Shared<Arc<App>>,
    Path(owner): Path<String>,
    body: Bytes,
) -> Result<Json<InstallationChange>, ControlError> {
    let change: InstallationChange = parse(&body)?;
    app.update(|state| state.set_installation(&owner, change.status));
    Ok(Json(change))
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
