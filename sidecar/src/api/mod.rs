//! The HTTP API: health checks, metrics, the current state and history as JSON, and changes by
//! operators.

pub(crate) mod authorization;
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

use axum::{Json, Router, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::authorization::Authorization,
    control::{
        command::{Command, CommandSender},
        executor::Places,
        gauges::Exported,
        sidecars::Sidecars,
    },
    store::Store,
};
use problem::Problem;

/// Rows of history in one response, unless the request names another limit.
const HISTORY_MAX: u32 = 200;

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    places: Places,
    driver: CommandSender,
    authorization: Authorization,
    /// Where it listens; see [`guard::same_origin`].
    address: SocketAddr,
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
        (authorization, address): (Authorization, SocketAddr),
        stopping: Arc<AtomicBool>,
        prometheus: PrometheusHandle,
        sidecars: Sidecars,
    ) -> Self {
        let exported = Arc::default();
        Self {
            store,
            places,
            driver,
            authorization,
            address,
            stopping,
            prometheus,
            exported,
            sidecars,
        }
    }

    /// The API, and `page` behind the same guard.
    fn router(self, page: Router) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), guard::same_origin);
        let authorized = middleware::from_fn_with_state(self.clone(), guard::authorized);
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
        axum::serve(listener, self.router(page))
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
}

fn changes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(drain::drain))
        .routes(routes!(drain::resume))
        .routes(routes!(runners::remove))
        .routes(routes!(nodes::drain))
        .routes(routes!(nodes::resume))
}
