//! The broker: sessions, and the messages that tell a runner of its job or of the job's cancellation.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::auth::AuthenticatedRunner;
use super::error::Failure;
use super::held::HeldRequest;
use super::run_service_url;
use crate::app::App;
use crate::job::JobStatus;
use crate::job_message::{job_uuid, request_uuid, same_uuid};
use crate::payload::id_of;
use crate::protocol::{
    Acknowledgement, Agent, BrokerSession, ErrorKind, JobCancellation, JobReference, Message,
    MessageType, POLL_TIMEOUT,
};
use crate::registration::Session;
use crate::state::State;

/// How long a runner waits for a cancelled job to end.
const CANCELLATION_TIMEOUT: &str = "00:05:00";

pub(super) async fn open(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    body: Bytes,
) -> Result<Json<BrokerSession>, Failure> {
    let request: Value = serde_json::from_slice(&body).map_err(|error| {
        Failure::of_broker(StatusCode::BAD_REQUEST, None, format!("the body is not JSON: {error}"))
    })?;
    let agent = field(&request, "agent").cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| {
        field(value, name).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    app.update(|state| {
        let version = text(&agent, "version");
        if state.version_ends.get(&version).is_some_and(|ends| *ends <= Timestamp::now()) {
            return Err(Failure::version_too_old(&version));
        }
        let runner = state.runners.get_mut(&id).ok_or_else(Failure::runner_not_found)?;
        if runner.session.is_some() {
            let message = "A session for this runner already exists.";
            return Err(Failure::of_broker(StatusCode::CONFLICT, None, message));
        }
        let session = Session::new();
        let opened = BrokerSession {
            session_id: session.id.clone(),
            owner_name: text(&request, "ownerName"),
            agent: Agent {
                id,
                name: runner.name.clone(),
                version,
                os_description: text(&agent, "osDescription"),
                ephemeral: runner.ephemeral,
            },
            use_fips_encryption: false,
        };
        runner.os = "Linux".to_owned();
        runner.version = Some(opened.agent.version.clone());
        runner.session = Some(session);
        Ok(Json(opened))
    })
}

/// A field of an object, whatever the case of its name: runners differ.
fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let fields = object.as_object()?;
    fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

pub(super) async fn close(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
) -> Result<StatusCode, Failure> {
    app.update(|state| {
        let runner = state.runners.get(&id).ok_or_else(Failure::runner_not_found)?;
        if runner.session.is_none() {
            return Err(Failure::session_invalid());
        }
        state.end_session(id);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// The query of a request for a message.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Poll {
    session_id: String,
    status: Option<String>,
    runner_version: Option<String>,
    os: Option<String>,
}

impl Poll {
    fn is_busy(&self) -> bool {
        self.status.as_deref().is_some_and(|status| status.eq_ignore_ascii_case("busy"))
    }
}

/// 200 with a message, or 202 if there was none while the request was held open.
pub(super) async fn message(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Query(poll): Query<Poll>,
) -> Result<Response, Failure> {
    let has_job = app.update(|state| {
        let runner = state.runners.get_mut(&id).ok_or_else(Failure::runner_not_found)?;
        if let Some(os) = &poll.os {
            runner.os.clone_from(os);
        }
        if poll.runner_version.is_some() {
            runner.version.clone_from(&poll.runner_version);
        }
        Ok(runner.busy())
    })?;
    let _held = HeldRequest::new(&app, id, &poll.session_id, has_job || poll.is_busy())
        .ok_or_else(Failure::session_invalid)?;
    let mut changes = app.changes();
    let next = async {
        loop {
            changes.mark_unchanged();
            // Checked by a read first: an update wakes every waiting runner, and each would
            // wake all the others in turn.
            let waiting = app.read(|state| has_message(state, id, &poll))?;
            if waiting && let Some(message) = app.update(|state| take_message(state, id, &poll)) {
                return Ok(Json(message).into_response());
            }
            if changes.changed().await.is_err() {
                return Err(Failure::stopping());
            }
        }
    };
    tokio::select! {
        response = next => response,
        () = tokio::time::sleep(POLL_TIMEOUT) => Ok(StatusCode::ACCEPTED.into_response()),
        () = app.stop.cancelled() => Err(Failure::stopping()),
    }
}

/// Whether there is a message for the runner.
fn has_message(state: &State, id: u64, poll: &Poll) -> Result<bool, Failure> {
    let runner = state.runners.get(&id).ok_or_else(Failure::runner_not_found)?;
    let session = runner.session.as_ref();
    let session = session
        .filter(|session| session.id.eq_ignore_ascii_case(&poll.session_id))
        .ok_or_else(Failure::session_invalid)?;
    Ok(match state.job_for(runner) {
        None => false,
        Some(job) if runner.busy() => job.cancel_requested && !session.cancellation_sent,
        Some(_) => !poll.is_busy() && !session.job_acknowledged,
    })
}

fn take_message(state: &mut State, id: u64, poll: &Poll) -> Option<Message> {
    if !has_message(state, id, poll).unwrap_or(false) {
        return None;
    }
    let message_id = state.next_message_id();
    let job = state.offer_job(id)?;
    let (job_id, owner) = (job.id, job.repository.owner.clone());
    let (message_type, body) = match job.status {
        JobStatus::InProgress => {
            let cancellation = JobCancellation {
                job_id: job_uuid(job_id),
                timeout: CANCELLATION_TIMEOUT.to_owned(),
            };
            (MessageType::JobCancellation, serde_json::to_string(&cancellation))
        }
        JobStatus::Queued | JobStatus::Completed => {
            let reference = JobReference {
                id: request_uuid(job_id),
                runner_request_id: request_uuid(job_id),
                should_acknowledge: true,
                run_service_url: run_service_url(&state.urls),
                billing_owner_id: id_of(&owner).to_string(),
            };
            (MessageType::RunnerJobRequest, serde_json::to_string(&reference))
        }
    };
    if message_type == MessageType::JobCancellation {
        state.runners.get_mut(&id)?.session.as_mut()?.cancellation_sent = true;
    }
    Some(Message { message_id, message_type, body: body.ok()? })
}

pub(super) async fn acknowledge(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    body: Bytes,
) -> Result<StatusCode, Failure> {
    let Acknowledgement { runner_request_id } = serde_json::from_slice(&body).map_err(|_| {
        Failure::of_broker(StatusCode::BAD_REQUEST, None, "Missing runnerRequestId")
    })?;
    app.update(|state| {
        let runner = state.runners.get_mut(&id).ok_or_else(Failure::runner_not_found)?;
        let own = runner
            .job_id
            .or(runner.offered_job_id)
            .filter(|job| same_uuid(&runner_request_id, &request_uuid(*job)))
            .and(runner.session.as_mut());
        let session = own.ok_or_else(|| {
            let kind = Some(ErrorKind::AcknowledgeJobNotFound);
            Failure::of_broker(StatusCode::NOT_FOUND, kind, "this runner has no such job")
        })?;
        session.job_acknowledged = true;
        Ok(StatusCode::NO_CONTENT)
    })
}
