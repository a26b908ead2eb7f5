//! The HTTP side: health, and what is going on as JSON. Read-only.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::{
    Json, Router,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::{
    driver::Input,
    metrics,
    snapshot::Snapshot,
    store::{JobRecord, RunnerRecord, Store},
};

/// Rows of history that one answer holds.
const HISTORY: u32 = 200;

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    driver: mpsc::Sender<Input>,
    /// The port's own names; see [`known_host`].
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    prometheus: PrometheusHandle,
}

impl Api {
    pub(crate) fn new(
        store: Store,
        driver: mpsc::Sender<Input>,
        address: SocketAddr,
        stopping: Arc<AtomicBool>,
        prometheus: PrometheusHandle,
    ) -> Self {
        Self { store, driver, address, stopping, prometheus }
    }

    pub(crate) fn router(self) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), known_host);
        Router::new()
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
        (self.status, Json(Body { error: self.message })).into_response()
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
