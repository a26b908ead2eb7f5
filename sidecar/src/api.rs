//! The HTTP side: health, what is going on as JSON, and draining.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Request, State, rejection::JsonRejection},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::{
    authorization::Authorization,
    control::Draining,
    driver::Input,
    metrics,
    plan::Pool,
    snapshot::Snapshot,
    store::{JobRecord, RunnerRecord, Store},
};

/// Rows of history that one answer holds.
const HISTORY: u32 = 200;

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    driver: mpsc::Sender<Input>,
    pools: Arc<[Pool]>,
    authorization: Authorization,
    /// The port's own names; see [`known_host`].
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    prometheus: PrometheusHandle,
}

impl Api {
    pub(crate) fn new(
        store: Store,
        driver: mpsc::Sender<Input>,
        pools: Arc<[Pool]>,
        authorization: Authorization,
        address: SocketAddr,
        stopping: Arc<AtomicBool>,
        prometheus: PrometheusHandle,
    ) -> Self {
        Self { store, driver, pools, authorization, address, stopping, prometheus }
    }

    pub(crate) fn router(self) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), known_host);
        let control = Router::new()
            .route("/api/v1/drain", post(drain))
            .route("/api/v1/resume", post(resume))
            .route_layer(middleware::from_fn_with_state(self.clone(), authorized));
        Router::new()
            .merge(control)
            .route("/", get(page))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/metrics", get(scrape))
            .route("/api/v1/status", get(status))
            .route("/api/v1/jobs", get(jobs))
            .route("/api/v1/runners", get(runners))
            .layer(guard)
            .with_state(self)
    }

    async fn snapshot(&self) -> Result<Snapshot, Problem> {
        let (reply, answer) = oneshot::channel();
        self.driver.send(Input::Look(reply)).await.map_err(|_| Problem::stopping())?;
        answer.await.map_err(|_| Problem::stopping())
    }
}

/// A web page elsewhere must not read this through its visitor's browser by giving our
/// address a name of its own (DNS rebinding), so on loopback only loopback's names count.
async fn known_host(State(api): State<Api>, request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .map(|host| host.rsplit_once(':').map_or(host, |(name, _)| name));
    let known = !api.address.ip().is_loopback()
        || matches!(host, None | Some("localhost" | "127.0.0.1" | "[::1]"))
        || host == Some(&api.address.ip().to_string());
    if known {
        next.run(request).await
    } else {
        Problem {
            status: StatusCode::MISDIRECTED_REQUEST,
            message: "unknown host: use localhost or the address itself".into(),
        }
        .into_response()
    }
}

async fn authorized(State(api): State<Api>, request: Request, next: Next) -> Response {
    match api.authorization.check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err((status, message)) => Problem { status, message: message.into() }.into_response(),
    }
}

struct Problem {
    status: StatusCode,
    message: String,
}

impl Problem {
    fn stopping() -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, message: "shutting down".into() }
    }
}

impl From<crate::store::Error> for Problem {
    fn from(error: crate::store::Error) -> Self {
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

async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

async fn ready(State(api): State<Api>) -> Result<&'static str, Problem> {
    if api.stopping.load(Ordering::Relaxed) {
        return Err(Problem::stopping());
    }
    if api.snapshot().await?.recovered {
        Ok("ready\n")
    } else {
        Err(Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "Docker has not answered yet: events are stored, nothing is launched".into(),
        })
    }
}

async fn scrape(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    metrics::levels(&api.snapshot().await?);
    api.prometheus.run_upkeep();
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    Ok((kind, api.prometheus.render()))
}

async fn status(State(api): State<Api>) -> Result<Json<Snapshot>, Problem> {
    api.snapshot().await.map(Json)
}

async fn jobs(State(api): State<Api>) -> Result<Json<Vec<JobRecord>>, Problem> {
    Ok(Json(api.store.recent_jobs(HISTORY).await?))
}

async fn runners(State(api): State<Api>) -> Result<Json<Vec<RunnerRecord>>, Problem> {
    Ok(Json(api.store.recent_runners(HISTORY).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    /// `null`: all of them.
    pool: Option<String>,
}

type Chosen = Result<Json<Choice>, JsonRejection>;

async fn drain(State(api): State<Api>, chosen: Chosen) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, true).await
}

async fn resume(State(api): State<Api>, chosen: Chosen) -> Result<Json<Draining>, Problem> {
    api.drain(chosen, false).await
}

impl Api {
    async fn drain(&self, chosen: Chosen, draining: bool) -> Result<Json<Draining>, Problem> {
        let Json(Choice { pool }) = chosen.map_err(|rejection| Problem {
            status: rejection.status(),
            message: rejection.body_text(),
        })?;
        let pool = pool.map(|name| self.pool(&name)).transpose()?;
        let (reply, kept) = oneshot::channel();
        let input = Input::Drain { pool, draining, reply };
        self.driver.send(input).await.map_err(|_| Problem::stopping())?;
        kept.await.map_err(|_| Problem::stopping())?.map_err(|error| Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: format!("done, but a restart will undo it: {error}"),
        })?;
        Ok(Json(Draining::of(&self.snapshot().await?)))
    }

    fn pool(&self, name: &str) -> Result<usize, Problem> {
        self.pools.iter().position(|pool| pool.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.pools.iter().map(|pool| pool.name.as_str()).collect();
            Problem {
                status: StatusCode::NOT_FOUND,
                message: format!("there is no such pool; there are {}", names.join(", ")),
            }
        })
    }
}

#[cfg(test)]
mod tests;
