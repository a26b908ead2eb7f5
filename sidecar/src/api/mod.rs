//! The HTTP side: health, what is going on as JSON, and draining.

mod drain;
mod guard;
mod health;
mod jobs;
mod metrics;
mod problem;
mod runners;
mod status;
#[cfg(test)]
mod tests;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use axum::{
    Router, middleware,
    routing::{get, post},
};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::{mpsc, oneshot};

use crate::{
    authorization::Authorization, driver::Input, page, plan::Pool, snapshot::Snapshot, store::Store,
};
use problem::Problem;

/// Rows of history that one answer holds.
const HISTORY: u32 = 200;

#[derive(Clone)]
pub(crate) struct Api {
    store: Store,
    driver: mpsc::Sender<Input>,
    pools: Arc<[Pool]>,
    authorization: Authorization,
    /// The port's own names; see [`guard::known_host`].
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
        let guard = middleware::from_fn_with_state(self.clone(), guard::known_host);
        let control = Router::new()
            .route("/api/v1/drain", post(drain::drain))
            .route("/api/v1/resume", post(drain::resume))
            .route_layer(middleware::from_fn_with_state(self.clone(), guard::authorized));
        Router::new()
            .merge(control)
            .merge(page::router(self.store.clone(), self.driver.clone()))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .route("/api/v1/status", get(status::status))
            .route("/api/v1/jobs", get(jobs::jobs))
            .route("/api/v1/runners", get(runners::runners))
            .layer(guard)
            .with_state(self)
    }

    async fn snapshot(&self) -> Result<Snapshot, Problem> {
        let (reply, answer) = oneshot::channel();
        self.driver.send(Input::Look(reply)).await.map_err(|_| Problem::stopping())?;
        answer.await.map_err(|_| Problem::stopping())
    }
}
