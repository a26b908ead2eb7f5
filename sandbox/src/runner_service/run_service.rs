//! The run service: hands a job to its runner, keeps it locked, and takes its result.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderName, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::auth::AuthenticatedRunner;
use super::error::Failure;
use super::{results_url, run_service_url};
use crate::app::App;
use crate::job::{Conclusion, JobStatus};
use crate::job_message::{MessageFor, job_uuid, plan_uuid, request_uuid, same_uuid};
use crate::protocol::{AcquireJob, CompleteJob, JOB_LOCK, JobRenewed, RenewJob};
use crate::state::State;

type Acquired = ([(HeaderName, String); 1], Json<Value>);

/// Starts the job. A runner that asks again, because an answer was lost, gets it again.
pub(super) async fn acquire(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    body: Bytes,
) -> Result<Acquired, Failure> {
    let request: AcquireJob = parse(&body)?;
    app.update(|state| {
        let own = state.runners.get(&id);
        let own = own.and_then(|runner| runner.job_id.or(runner.offered_job_id));
        let own = own.filter(|job| same_uuid(&request.job_message_id, &request_uuid(*job)));
        let Some(job_id) = own else {
            let known = state.jobs.keys().any(|job| request.job_message_id == request_uuid(*job));
            return Err(match known {
                true => Failure::of_run_service(StatusCode::CONFLICT, "job already acquired"),
                false => Failure::of_run_service(StatusCode::NOT_FOUND, "job not found"),
            });
        };
        state.start_job(id);
        let token = state.issue_runner_token(id);
        let locked_until = lock(state, id);
        let job = state.jobs.get(&job_id).ok_or_else(job_not_found)?;
        let group_name = state.runners.get(&id).map(|it| it.group_name.clone());
        let message = MessageFor {
            job,
            urls: &state.urls,
            run_service_url: &run_service_url(&state.urls),
            results_url: &results_url(&state.urls),
            token: &token,
            group_name: &group_name.unwrap_or_default(),
            locked_until: &locked_until,
        };
        let message = message.json().map_err(|error| {
            Failure::of_run_service(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        })?;
        let plan = (HeaderName::from_static("x-plan-id"), plan_uuid(job.run_id));
        Ok(([plan], Json(message)))
    })
}

pub(super) async fn renew(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    body: Bytes,
) -> Result<Json<JobRenewed>, Failure> {
    let request: RenewJob = parse(&body)?;
    app.update(|state| {
        running_job(state, id, &request.job_id)?;
        Ok(Json(JobRenewed { locked_until: lock(state, id) }))
    })
}

pub(super) async fn complete(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let request: CompleteJob = parse(&body)?;
    let conclusion = conclusion(&request.conclusion).ok_or_else(|| {
        let message = format!("{} is not a conclusion", request.conclusion);
        Failure::of_run_service(StatusCode::BAD_REQUEST, message)
    })?;
    let job = app.read(|state| state.runners.get(&id).and_then(|runner| runner.job_id));
    if let Some(job) = job {
        app.announced(job).await;
    }
    app.update(|state| {
        running_job(state, id, &request.job_id)?;
        state.finish_job(id, conclusion);
        Ok(StatusCode::NO_CONTENT)
    })
}

fn parse<T: DeserializeOwned>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|error| Failure::of_run_service(StatusCode::BAD_REQUEST, error.to_string()))
}

fn job_not_found() -> Failure {
    Failure::of_run_service(StatusCode::NOT_FOUND, "this runner is not running that job")
}

/// Fails unless the runner is running the job.
fn running_job(state: &State, runner: u64, job: &str) -> Result<(), Failure> {
    let own = state.runners.get(&runner).and_then(|runner| runner.job_id);
    own.filter(|own| same_uuid(job, &job_uuid(*own)))
        .and_then(|own| state.jobs.get(&own))
        .filter(|job| job.status == JobStatus::InProgress)
        .map(|_| ())
        .ok_or_else(job_not_found)
}

/// Locks the runner's job, and returns until when.
fn lock(state: &mut State, runner: u64) -> String {
    let session = state.runners.get_mut(&runner).and_then(|runner| runner.session.as_mut());
    if let Some(session) = session {
        session.lock_job(JOB_LOCK);
    }
    (Timestamp::now() + JOB_LOCK).to_string()
}

/// Runners report a name, or the number of GitHub's Protocol Buffers.
fn conclusion(value: &Value) -> Option<Conclusion> {
    let text = match value {
        Value::String(text) => text.to_lowercase().replace('_', ""),
        Value::Number(number) => {
            return Some(match number.as_u64()? {
                2 => Conclusion::Success,
                3 => Conclusion::Failure,
                4 => Conclusion::Cancelled,
                7 => Conclusion::Skipped,
                _ => return None,
            });
        }
        _ => return None,
    };
    Some(match text.as_str() {
        "succeeded" | "succeededwithissues" | "success" => Conclusion::Success,
        "failed" | "abandoned" | "failure" => Conclusion::Failure,
        "canceled" | "cancelled" => Conclusion::Cancelled,
        "skipped" => Conclusion::Skipped,
        "neutral" => Conclusion::Neutral,
        "timedout" => Conclusion::TimedOut,
        "actionrequired" => Conclusion::ActionRequired,
        _ => return None,
    })
}
