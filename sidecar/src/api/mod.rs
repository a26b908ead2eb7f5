//! The HTTP side: health, what is going on as JSON, and what operators may change.

pub(crate) mod authorization;
mod drain;
mod guard;
mod health;
mod jobs;
mod metrics;
mod openapi;
mod pools;
mod problem;
mod runners;
mod status;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use axum::{Json, Router, middleware, routing::get};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    api::authorization::Authorization, control::command::Command, control::executor::Executor,
    control::snapshot::Snapshot, page, store::Store,
};
use problem::Problem;

/// Rows of history that one answer holds.
const HISTORY: u32 = 200;

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    executor: Executor,
    driver: mpsc::Sender<Command>,
    authorization: Authorization,
    /// The port's own names; see [`guard::known_caller`].
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    prometheus: PrometheusHandle,
}

impl Api {
    pub(crate) fn new(
        store: Store,
        executor: Executor,
        driver: mpsc::Sender<Command>,
        authorization: Authorization,
        address: SocketAddr,
        stopping: Arc<AtomicBool>,
        prometheus: PrometheusHandle,
    ) -> Self {
        Self { store, executor, driver, authorization, address, stopping, prometheus }
    }

    pub(crate) fn router(self) -> Router {
        let guard = middleware::from_fn_with_state(self.clone(), guard::known_caller);
        let authorized = middleware::from_fn_with_state(self.clone(), guard::authorized);
        let (api, description) = OpenApiRouter::with_openapi(openapi::Head::openapi())
            .merge(reading())
            .merge(changing().route_layer(authorized))
            .split_for_parts();
        let description = openapi::with_what_all_may_answer(description);
        api.route("/api/v1/openapi.json", get(|| async { Json(description) }))
            .merge(page::router(self.store.clone(), self.driver.clone()))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .layer(guard)
            .with_state(self)
    }

    /// Serves until `shutdown`, then answers the requests in progress.
    pub(crate) async fn serve(
        self,
        listener: TcpListener,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        axum::serve(listener, self.router())
            .with_graceful_shutdown(shutdown.cancelled_owned())
            .await?;
        Ok(())
    }

    /// Has the driver do something, and waits for its answer.
    async fn ask<T>(
        &self,
        input: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Problem> {
        let (reply, answer) = oneshot::channel();
        self.driver.send(input(reply)).await.map_err(|_| Problem::stopping())?;
        answer.await.map_err(|_| Problem::stopping())
    }

    async fn snapshot(&self) -> Result<Snapshot, Problem> {
        self.ask(Command::GetSnapshot).await
    }
}

fn reading() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(status::status))
        .routes(routes!(pools::pools))
        .routes(routes!(jobs::jobs))
        .routes(routes!(runners::runners))
        .routes(routes!(runners::log))
}

fn changing() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(drain::drain))
        .routes(routes!(drain::resume))
        .routes(routes!(runners::remove))
}
