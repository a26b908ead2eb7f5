//! The HTTP API: health checks, metrics, the current state and history as JSON, and changes by
//! operators.

pub(crate) mod audit;
mod authorization;
mod caller;
mod drain;
mod egress;
mod guard;
mod health;
mod jobs;
mod metrics;
mod nodes;
mod openapi;
mod pools;
mod problem;
pub(crate) mod report;
mod retry;
mod runners;
mod sidecars;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod views;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use axum::{Json, Router, http::StatusCode, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    config::Server,
    control::{
        command::{Command, CommandSender},
        executor::Places,
        gauges::Exported,
        sidecars::Sidecars,
    },
    listen::ClosedListener,
    store::Store,
    telemetry,
};
use authorization::Authorization;
use caller::Entrance;
use problem::Problem;

/// Rows of history in one response, unless the request names another limit.
const HISTORY_MAX: u32 = 200;
/// The largest that it may name.
const LIMIT_MAX: u32 = 1_000;

fn check_limit(limit: u32) -> Result<(), Problem> {
    if (1..=LIMIT_MAX).contains(&limit) {
        return Ok(());
    }
    let message = format!("limit must be from 1 to {LIMIT_MAX}");
    Err(Problem::new(StatusCode::BAD_REQUEST, message))
}

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    places: Places,
    driver: CommandSender,
    authorization: Authorization,
    entrance: Entrance,
    /// `server.trusted_names`.
    trusted_names: Arc<[String]>,
    stopping: Arc<AtomicBool>,
    prometheus: PrometheusHandle,
    exported: Arc<Mutex<Exported>>,
    sidecars: Sidecars,
}

impl Api {
    pub(crate) fn new(
        store: Store,
        places: Places,
        driver: CommandSender,
        server: &Server,
        stopping: Arc<AtomicBool>,
        prometheus: PrometheusHandle,
        sidecars: Sidecars,
    ) -> Self {
        let exported = Arc::default();
        telemetry::metrics::api_refused_from_zero();
        Self {
            store,
            places,
            driver,
            authorization: Authorization::new(server.api_token.clone()),
            entrance: Entrance::Direct(server.http_address),
            trusted_names: server.trusted_names.clone().into(),
            stopping,
            prometheus,
            exported,
            sidecars,
        }
    }

    /// The API, and `page` behind the same guard.
    fn router(self, page: Router) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), guard::known_caller);
        let authorized = middleware::from_fn_with_state(self.clone(), guard::may_change);
        let (api, description) = OpenApiRouter::with_openapi(openapi::Head::openapi())
            .merge(reads())
            .merge(changes().route_layer(authorized))
            .split_for_parts();
        let description = openapi::with_common_responses(description);
        api.route("/api/v1/openapi.json", get(|| async { Json(description) }))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .with_state(self)
            .merge(page)
            .layer(guard)
    }

    /// Serves the API and `page` until `shutdown`, then answers the requests in progress.
    pub(crate) async fn serve(
        self,
        page: Router,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let service = self.router(page).into_make_service_with_connect_info::<SocketAddr>();
        axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await?;
        Ok(())
    }

    /// The same, for an Envoy that signs people in and has nobody else behind it.
    pub(crate) async fn serve_signed_in(
        self,
        page: Router,
        listener: ClosedListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let api = Self { entrance: Entrance::SignIn, ..self };
        axum::serve(listener, api.router(page))
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await?;
        Ok(())
    }

    /// Sends a command to the driver and waits for the reply.
    async fn request<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Problem> {
        let (reply, response) = oneshot::channel();
        self.driver.send(command(reply)).await.map_err(|_| Problem::stopping())?;
        response.await.map_err(|_| Problem::stopping())
    }

    fn exported(&self) -> MutexGuard<'_, Exported> {
        self.exported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn reads() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(pools::pools))
        .routes(routes!(jobs::jobs))
        .routes(routes!(jobs::job))
        .routes(routes!(runners::runners))
        .routes(routes!(runners::log))
        .routes(routes!(nodes::nodes))
        .routes(routes!(sidecars::sidecars))
        .routes(routes!(egress::denials))
        .routes(routes!(report::report))
        .routes(routes!(audit::audit))
        .routes(routes!(audit::caller))
}

fn changes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(drain::drain))
        .routes(routes!(drain::resume))
        .routes(routes!(retry::retry))
        .routes(routes!(runners::remove))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::resume))
}
