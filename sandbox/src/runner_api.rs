//! `/_sandbox/runner/`: the sandbox's side of the runner protocol.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{FromRequestParts, Path, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;

use crate::app::App;
use crate::job::{Job, JobStatus};
use crate::protocol::{
    Completion, ErrorResponse, LogLines, OpenSession, POLL_TIMEOUT, RENEWAL_INTERVAL,
    RegistrationRequest, RegistrationResponse, Renewal, SessionOpened,
};
use crate::registration::{Session, TokenPurpose};
use crate::runner_groups::{DEFAULT_GROUP_ID, RUNNER_GROUPS};
use crate::scope::Scope;
use crate::state::State;
use crate::state::registrations::{NewRunner, RegisterError};

pub(crate) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/register", post(register))
        .route("/sessions", post(open))
        .route("/sessions/{session}", delete(close))
        .route("/sessions/{session}/job", get(job))
        .route("/sessions/{session}/renewal", get(renew))
        .route("/sessions/{session}/log", post(log))
        .route("/sessions/{session}/complete", post(complete))
}

fn error_response(status: StatusCode, error: impl ToString) -> Response {
    let error = error.to_string();
    (status, Json(ErrorResponse { error })).into_response()
}

async fn register(
    Shared(app): Shared<Arc<App>>,
    headers: HeaderMap,
    Json(registration): Json<RegistrationRequest>,
) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("RemoteAuth "))
        .unwrap_or_default()
        .to_owned();
    app.update(|state| {
        let now = Timestamp::now();
        let known = state.registration_tokens.iter().find(|known| {
            known.token == token
                && known.purpose == TokenPurpose::Register
                && known.expires_at > now
        });
        let Some(scope) = known.map(|known| known.scope.clone()) else {
            return error_response(StatusCode::NOT_FOUND, "unknown registration token");
        };
        let page = registration.url.parse::<http::Uri>().ok();
        if page.and_then(|page| Scope::from_page(page.path())) != Some(scope.clone()) {
            return error_response(
                StatusCode::NOT_FOUND,
                format!("the registration token is not valid for {}", registration.url),
            );
        }
        let group_id = match &registration.group {
            None => DEFAULT_GROUP_ID,
            Some(name) => match RUNNER_GROUPS.iter().find(|group| group.name == name) {
                Some(group) => group.id,
                None => {
                    return error_response(
                        StatusCode::NOT_FOUND,
                        format!("Could not find any self-hosted runner group named \"{name}\"."),
                    );
                }
            },
        };
        // The public images register with `--replace`.
        state.runners.retain(|_, runner| {
            runner.scope != scope
                || !runner.name.eq_ignore_ascii_case(&registration.name)
                || runner.busy()
        });
        let mut labels: Vec<String> = match registration.no_default_labels {
            true => Vec::new(),
            false => ["self-hosted", "linux", "x64"].map(str::to_owned).into(),
        };
        labels.extend(registration.labels);
        let registered = state.register(NewRunner {
            scope,
            name: registration.name,
            group_id,
            labels,
            ephemeral: registration.ephemeral,
            work_folder: registration.work_folder.unwrap_or_else(|| "_work".to_owned()),
        });
        match registered {
            Ok((_, encoded_jit_config)) => {
                (StatusCode::CREATED, Json(RegistrationResponse { encoded_jit_config }))
                    .into_response()
            }
            Err(error @ RegisterError::NameTaken(_)) => error_response(StatusCode::CONFLICT, error),
            Err(error @ RegisterError::UnknownGroup(_)) => {
                error_response(StatusCode::NOT_FOUND, error)
            }
            Err(error @ RegisterError::Encoding(_)) => {
                error_response(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    })
}

/// The id of the runner whose credentials the request has.
struct AuthenticatedRunner(u64);

impl FromRequestParts<Arc<App>> for AuthenticatedRunner {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        let credentials = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
            .and_then(|text| String::from_utf8(BASE64.decode(text).ok()?).ok())
            .unwrap_or_default();
        let (client_id, secret) = credentials.split_once(':').unwrap_or_default();
        app.read(|state| {
            state
                .runners
                .values()
                .find(|runner| {
                    runner.credentials.client_id == client_id && runner.credentials.secret == secret
                })
                .map(|runner| Self(runner.id))
        })
        .ok_or_else(|| {
            error_response(
                StatusCode::UNAUTHORIZED,
                "The runner registration has been deleted from the server, please re-configure.",
            )
        })
    }
}

async fn open(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Json(opening): Json<OpenSession>,
) -> Response {
    app.update(|state| {
        let Some(runner) = state.runners.get_mut(&id) else {
            return session_ended();
        };
        if runner.session.is_some() {
            return error_response(
                StatusCode::CONFLICT,
                "A session for this runner already exists.",
            );
        }
        let session = Session::new();
        let opened = SessionOpened { session_id: session.id.clone() };
        runner.os = opening.os;
        runner.version = Some(opening.version);
        runner.session = Some(session);
        (StatusCode::CREATED, Json(opened)).into_response()
    })
}

async fn close(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path(session): Path<String>,
) -> Response {
    app.update(|state| match session_of(state, id, &session) {
        Some(_) => {
            state.end_session(id);
            StatusCode::NO_CONTENT.into_response()
        }
        None => session_ended(),
    })
}

async fn job(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path(session): Path<String>,
) -> Response {
    let Some(_held) = HeldRequest::new(&app, id, &session) else {
        return session_ended();
    };
    let mut changes = app.changes();
    let assigned = async {
        loop {
            changes.mark_unchanged();
            // Checked by a read first: an update wakes every waiting runner, and each would
            // wake all the others in turn.
            let available = app.read(|state| {
                let runner = state.runners.get(&id)?;
                let current = runner.session.as_ref()?.id == session;
                current.then(|| state.job_for(runner).is_some())
            });
            match available {
                None => return session_ended(),
                Some(true) => {
                    if let Some(message) = app.update(|state| state.assign_job(id)) {
                        return Json(message).into_response();
                    }
                }
                Some(false) => {}
            }
            if changes.changed().await.is_err() {
                return session_ended();
            }
        }
    };
    tokio::select! {
        response = assigned => response,
        () = tokio::time::sleep(POLL_TIMEOUT) => StatusCode::NO_CONTENT.into_response(),
        () = app.stop.cancelled() => stopping(),
    }
}

async fn renew(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path(session): Path<String>,
) -> Response {
    let Some(_held) = HeldRequest::new(&app, id, &session) else {
        return session_ended();
    };
    let mut changes = app.changes();
    let cancelled = async {
        while !app.read(|state| cancel_requested(state, id)) {
            if changes.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = cancelled => Json(Renewal { cancelled: true }).into_response(),
        () = tokio::time::sleep(RENEWAL_INTERVAL) => {
            Json(Renewal { cancelled: false }).into_response()
        }
        () = app.stop.cancelled() => stopping(),
    }
}

async fn complete(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path(session): Path<String>,
    Json(completion): Json<Completion>,
) -> Response {
    app.update(|state| match job_in_progress(state, id, &session, completion.job_id) {
        Ok(_) => {
            state.finish_job(id, completion.conclusion);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => response,
    })
}

async fn log(
    Shared(app): Shared<Arc<App>>,
    AuthenticatedRunner(id): AuthenticatedRunner,
    Path(session): Path<String>,
    Json(log): Json<LogLines>,
) -> Response {
    app.update(|state| match job_in_progress(state, id, &session, log.job_id) {
        Ok(job) => {
            job.log.extend(log.lines);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(response) => response,
    })
}

/// The job, if the runner is running it in this session.
#[expect(clippy::result_large_err, reason = "axum's own type, created once per request")]
fn job_in_progress<'a>(
    state: &'a mut State,
    runner: u64,
    session: &str,
    job: u64,
) -> Result<&'a mut Job, Response> {
    if session_of(state, runner, session).is_none() {
        return Err(session_ended());
    }
    let own = state.runners.get(&runner).is_some_and(|runner| runner.job_id == Some(job));
    let found = state.jobs.get_mut(&job);
    found
        .filter(|job| own && job.status == JobStatus::InProgress)
        .ok_or_else(|| error_response(StatusCode::CONFLICT, "this runner is not running that job"))
}

fn session_ended() -> Response {
    error_response(StatusCode::NOT_FOUND, "the session has ended")
}

fn stopping() -> Response {
    error_response(StatusCode::SERVICE_UNAVAILABLE, "the sandbox is stopping")
}

fn session_of<'a>(state: &'a mut State, runner: u64, session: &str) -> Option<&'a mut Session> {
    let own = state.runners.get_mut(&runner)?.session.as_mut()?;
    (own.id == session).then_some(own)
}

fn cancel_requested(state: &State, runner: u64) -> bool {
    state
        .runners
        .get(&runner)
        .and_then(|runner| state.jobs.get(&runner.job_id?))
        .is_some_and(|job| job.cancel_requested)
}

/// Keeps a session from expiring while one of its requests is held open. When the runner dies, its
/// connection breaks and the request is dropped; then the session's time starts to run.
struct HeldRequest {
    app: Arc<App>,
    runner: u64,
    session: String,
}

impl HeldRequest {
    fn new(app: &Arc<App>, runner: u64, session: &str) -> Option<Self> {
        app.update(|state| {
            let own = session_of(state, runner, session)?;
            own.held += 1;
            own.last_seen = Instant::now();
            Some(())
        })?;
        Some(Self { app: Arc::clone(app), runner, session: session.to_owned() })
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        self.app.update(|state| {
            if let Some(own) = session_of(state, self.runner, &self.session) {
                own.held = own.held.saturating_sub(1);
                own.last_seen = Instant::now();
            }
        });
    }
}

/// Ends sessions as they expire, until the sandbox stops.
pub(crate) async fn expire_sessions(app: Arc<App>) {
    let mut changes = app.changes();
    loop {
        changes.mark_unchanged();
        let expiry = app.read(State::next_session_expiry);
        let expired = async {
            match expiry {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = expired => app.update(|state| state.end_expired_sessions(Instant::now())),
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = app.stop.cancelled() => return,
        }
    }
}
