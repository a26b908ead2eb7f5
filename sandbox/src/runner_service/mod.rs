//! The services that runners use: tokens, the broker, the run service and the results service.

mod auth;
mod broker;
mod error;
mod held;
mod register;
mod results;
mod run_service;
mod token;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{delete, get, post, put};

use crate::app::App;
use crate::payload::Urls;
use crate::state::State;

/// The largest piece of a job's log.
const LOG_BYTES_MAX: usize = 8 * 1024 * 1024;

pub(crate) fn router() -> Router<Arc<App>> {
    let mut router = Router::new()
        .route("/_sandbox/runner/register", post(register::register))
        .route("/_apis/oauth2/token", post(token::issue))
        .route("/results/blobs/{kind}/{job}", put(results::upload));
    // Some clients add a slash to a base URL that already ends in one.
    for slash in ["/", "//"] {
        router = router
            .route(&format!("/broker{slash}session"), post(broker::open).delete(broker::close))
            .route(&format!("/broker{slash}session/{{id}}"), delete(broker::close))
            .route(&format!("/broker{slash}message"), get(broker::message))
            .route(&format!("/broker{slash}acknowledge"), post(broker::acknowledge))
            .route(&format!("/run-service{slash}acquirejob"), post(run_service::acquire))
            .route(&format!("/run-service{slash}renewjob"), post(run_service::renew))
            .route(&format!("/run-service{slash}completejob"), post(run_service::complete))
            .route(&format!("/results{slash}twirp/{{service}}/{{method}}"), post(results::call));
    }
    router.layer(DefaultBodyLimit::max(LOG_BYTES_MAX))
}

/// The URLs in a runner's configuration and in messages. Those of services end in a slash.
pub(crate) fn authorization_url(urls: &Urls) -> String {
    urls.to("_apis/oauth2/token")
}

pub(crate) fn broker_url(urls: &Urls) -> String {
    urls.to("broker/")
}

pub(crate) fn run_service_url(urls: &Urls) -> String {
    urls.to("run-service/")
}

pub(crate) fn results_url(urls: &Urls) -> String {
    urls.to("results/")
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
