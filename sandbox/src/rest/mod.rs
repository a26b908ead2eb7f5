//! The part of GitHub's REST API that an autoscaler needs: at `/`, as on api.github.com, and at
//! `/api/v3`, as on GitHub Enterprise Server.

mod account;
mod app_manifests;
mod apps;
mod deliveries;
mod error;
mod extract;
mod identity;
mod jit;
mod jobs;
mod middleware;
mod page;
mod runner_groups;
mod runners;
mod runs;
mod target;
mod tokens;
mod versions;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::app::App;

pub(crate) use middleware::CloseConnection;

pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let api = Router::new()
        .route("/rate_limit", get(account::rate_limit))
        .route("/users/{login}", get(account::account))
        .route("/app-manifests/{code}/conversions", post(app_manifests::convert))
        .merge(token_endpoints())
        .merge(app_endpoints());
    Router::new()
        .nest("/api/v3", api.clone().route("/meta", get(account::meta_of_enterprise_server)))
        .merge(api.route("/meta", get(account::meta)))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::not_found)
        .layer(from_fn_with_state(Arc::clone(app), middleware::handle))
}

fn token_endpoints() -> Router<Arc<App>> {
    let mut api = Router::new()
        .route("/user", get(account::user))
        .route("/orgs/{org}", get(account::organization))
        .route("/repos/{owner}/{repo}", get(account::repository_view))
        .route("/repositories/{repository}", get(account::repository_view));
    for scope in [
        "/repos/{owner}/{repo}",
        "/repositories/{repository}",
        "/orgs/{org}",
        "/enterprises/{enterprise}",
    ] {
        api = api.nest(scope, scoped_endpoints());
    }
    api.layer(from_fn(identity::require_token))
}

/// The endpoints below a repository, an organization or an enterprise. Some return 404 for scopes
/// that do not have them.
fn scoped_endpoints() -> Router<Arc<App>> {
    Router::new()
        .route("/actions/runners", get(runners::list))
        .route("/actions/runners/{id}", get(runners::get).delete(runners::remove))
        .route("/actions/runners/deprecations/{version}", get(versions::get))
        .route("/actions/runners/generate-jitconfig", post(jit::generate))
        .route("/actions/runners/registration-token", post(tokens::registration))
        .route("/actions/runners/remove-token", post(tokens::removal))
        .route("/actions/runner-groups", get(runner_groups::list))
        .route("/actions/runner-groups/{id}", get(runner_groups::get))
        .route("/actions/jobs/{id}", get(jobs::get))
        .route("/actions/jobs/{id}/rerun", post(jobs::rerun))
        .route("/actions/runs/{id}/rerun-failed-jobs", post(jobs::rerun_failed))
        .route("/actions/runs", get(runs::list))
        .route("/actions/runs/{id}", get(runs::get))
        .route("/actions/runs/{id}/jobs", get(jobs::list))
        .route("/hooks", get(webhooks::list).post(webhooks::create))
        .route("/hooks/{hook}/pings", post(webhooks::ping))
        .route("/hooks/{hook}/deliveries", get(deliveries::list))
        .route("/hooks/{hook}/deliveries/{id}", get(deliveries::get))
        .route("/hooks/{hook}/deliveries/{id}/attempts", post(deliveries::redeliver))
}

fn app_endpoints() -> Router<Arc<App>> {
    Router::new()
        .route("/app", get(apps::app))
        .route("/app/installations", get(apps::installations))
        .route("/app/installations/{id}/access_tokens", post(apps::access_token))
        .route("/app/hook/deliveries", get(deliveries::list_of_app))
        .route("/app/hook/deliveries/{id}", get(deliveries::get_of_app))
        .route("/app/hook/deliveries/{id}/attempts", post(deliveries::redeliver_of_app))
        .route("/orgs/{org}/installation", get(apps::installation))
        .route("/repos/{owner}/{repo}/installation", get(apps::installation))
        .layer(from_fn(identity::require_app))
}
