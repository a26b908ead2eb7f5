//! `/_sandbox/runner/`: the sandbox's half of the runner protocol.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, Path, State as Shared};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::Utc;

use crate::app::App;
use crate::job::{Job, JobStatus};
use crate::protocol::{
    Completion, OpenSession, RENEWAL_INTERVAL_MS, Refusal, Registered, Registration, Renewal,
    SessionOpened, Written,
};
use crate::registration::{Session, TokenPurpose};
use crate::registrations::{NewRunner, RegisterError};
use crate::scope::Scope;
use crate::state::State;

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

fn refuse(status: StatusCode, error: impl ToString) -> Response {
    let error = error.to_string();
    (status, Json(Refusal { error })).into_response()
}

async fn register(
    Shared(app): Shared<Arc<App>>,
    headers: HeaderMap,
    Json(registration): Json<Registration>,
) -> Response {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("RemoteAuth "))
        .unwrap_or_default()
        .to_owned();
    app.update(|state| {
        let now = Utc::now();
        let known = state.tokens.iter().find(|known| {
            known.token == token
                && known.purpose == TokenPurpose::Register
                && known.expires_at > now
        });
        let Some(scope) = known.map(|known| known.scope.clone()) else {
            return refuse(StatusCode::NOT_FOUND, "the registration token is not known");
        };
        let page = registration.url.parse::<http::Uri>().ok();
        if page.and_then(|page| Scope::from_page(page.path())) != Some(scope.clone()) {
            return refuse(
                StatusCode::NOT_FOUND,
                format!("the token is not for {}", registration.url),
            );
        }
        let group_id = match &registration.group {
            None => 1,
            Some(name) => {
                match state.settings.runner_groups.iter().find(|group| group.name == *name) {
                    Some(group) => group.id,
                    None => {
                        return refuse(
                            StatusCode::NOT_FOUND,
                            format!(
                                "Could not find any self-hosted runner group named \"{name}\"."
                            ),
                        );
                    }
                }
            }
        };
        // As the public images do with `--replace`.
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
                (StatusCode::CREATED, Json(Registered { encoded_jit_config })).into_response()
            }
            Err(error @ RegisterError::NameTaken(_)) => refuse(StatusCode::CONFLICT, error),
            Err(error @ RegisterError::UnknownGroup(_)) => refuse(StatusCode::NOT_FOUND, error),
            Err(error @ RegisterError::Encoding(_)) => {
                refuse(StatusCode::INTERNAL_SERVER_ERROR, error)
            }
        }
    })
}

/// The runner whose credentials came with the request.
struct Caller(u64);

impl FromRequestParts<Arc<App>> for Caller {
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
            refuse(
                StatusCode::UNAUTHORIZED,
                "The runner registration has been deleted from the server, please re-configure.",
            )
        })
    }
}

async fn open(
    Shared(app): Shared<Arc<App>>,
    Caller(id): Caller,
    Json(opening): Json<OpenSession>,
) -> Response {
    app.update(|state| {
        let Some(runner) = state.runners.get_mut(&id) else {
            return gone();
        };
        if runner.session.is_some() {
            return refuse(StatusCode::CONFLICT, "A session for this runner already exists.");
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
    Caller(id): Caller,
    Path(session): Path<String>,
) -> Response {
    app.update(|state| match session_of(state, id, &session) {
        Some(_) => {
            state.end_session(id);
            StatusCode::NO_CONTENT.into_response()
        }
        None => gone(),
    })
}

async fn job(
    Shared(app): Shared<Arc<App>>,
    Caller(id): Caller,
    Path(session): Path<String>,
) -> Response {
    let Some(_held) = Held::new(&app, id, &session) else {
        return gone();
    };
    let timeout = app.read(|state| state.settings.poll_timeout);
    let mut changes = app.changes();
    let look = async {
        loop {
            changes.mark_unchanged();
            // Looked at before anything is changed: a change wakes every
            // runner that waits, and each of them would do so in turn.
            let available = app.read(|state| {
                let runner = state.runners.get(&id)?;
                let own = runner.session.as_ref()?.id == session;
                own.then(|| state.job_for(runner).is_some())
            });
            match available {
                None => return gone(),
                Some(true) => {
                    if let Some(message) = app.update(|state| state.take_job(id)) {
                        return Json(message).into_response();
                    }
                }
                Some(false) => {}
            }
            if changes.changed().await.is_err() {
                return gone();
            }
        }
    };
    tokio::select! {
        answer = look => answer,
        () = tokio::time::sleep(timeout) => StatusCode::NO_CONTENT.into_response(),
        () = app.stop.cancelled() => stopping(),
    }
}

async fn renew(
    Shared(app): Shared<Arc<App>>,
    Caller(id): Caller,
    Path(session): Path<String>,
) -> Response {
    let Some(_held) = Held::new(&app, id, &session) else {
        return gone();
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
        () = tokio::time::sleep(Duration::from_millis(RENEWAL_INTERVAL_MS)) => {
            Json(Renewal { cancelled: false }).into_response()
        }
        () = app.stop.cancelled() => stopping(),
    }
}

async fn complete(
    Shared(app): Shared<Arc<App>>,
    Caller(id): Caller,
    Path(session): Path<String>,
    Json(completion): Json<Completion>,
) -> Response {
    app.update(|state| match job_in_progress(state, id, &session, completion.job_id) {
        Ok(_) => {
            state.finish(id, completion.conclusion);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refusal,
    })
}

async fn log(
    Shared(app): Shared<Arc<App>>,
    Caller(id): Caller,
    Path(session): Path<String>,
    Json(written): Json<Written>,
) -> Response {
    app.update(|state| match job_in_progress(state, id, &session, written.job_id) {
        Ok(job) => {
            job.log.extend(written.lines);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(refusal) => refusal,
    })
}

/// If the runner has it in this session.
#[expect(clippy::result_large_err, reason = "axum's own type, made once for a request")]
fn job_in_progress<'a>(
    state: &'a mut State,
    runner: u64,
    session: &str,
    job: u64,
) -> Result<&'a mut Job, Response> {
    if session_of(state, runner, session).is_none() {
        return Err(gone());
    }
    let own = state.runners.get(&runner).is_some_and(|runner| runner.job_id == Some(job));
    let found = state.jobs.get_mut(&job);
    found
        .filter(|job| own && job.status == JobStatus::InProgress)
        .ok_or_else(|| refuse(StatusCode::CONFLICT, "this runner does not have that job"))
}

fn gone() -> Response {
    refuse(StatusCode::NOT_FOUND, "the session has ended")
}

fn stopping() -> Response {
    refuse(StatusCode::SERVICE_UNAVAILABLE, "the sandbox stops")
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

/// While a request is held open its session cannot lapse. When the runner dies
/// its connection breaks, the request is dropped and the time starts to run.
struct Held {
    app: Arc<App>,
    runner: u64,
    session: String,
}

impl Held {
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

impl Drop for Held {
    fn drop(&mut self) {
        self.app.update(|state| {
            if let Some(own) = session_of(state, self.runner, &self.session) {
                own.held = own.held.saturating_sub(1);
                own.last_seen = Instant::now();
            }
        });
    }
}

/// Ends sessions as they lapse, until the sandbox stops.
pub(crate) async fn watch(app: Arc<App>) {
    let mut changes = app.changes();
    loop {
        changes.mark_unchanged();
        let lapse = app.read(State::next_lapse);
        let lapsed = async {
            match lapse {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = lapsed => app.update(|state| state.end_lapsed_sessions(Instant::now())),
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = app.stop.cancelled() => return,
        }
    }
}
