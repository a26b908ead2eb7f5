//! GitHub's REST API, as far as an autoscaler needs it: at `/` as
//! api.github.com has it and at `/api/v3` as GitHub Enterprise Server has it.

mod account;
mod apps;
mod error;
mod extract;
mod gate;
mod groups;
mod hooks;
mod identity;
mod jit;
mod jobs;
mod page;
mod runners;
mod runs;
mod tokens;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, post};

use crate::app::App;

pub(crate) use gate::CloseConnection;

pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let api = for_everyone().merge(for_tokens()).merge(for_apps());
    Router::new()
        .nest("/api/v3", api.clone())
        .merge(api)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::not_found)
        .layer(from_fn_with_state(Arc::clone(app), gate::gate))
}

fn for_everyone() -> Router<Arc<App>> {
    Router::new().route("/meta", get(account::meta)).route("/rate_limit", get(account::rate_limit))
}

fn for_tokens() -> Router<Arc<App>> {
    let mut api = Router::new()
        .route("/user", get(account::user))
        .route("/orgs/{org}", get(account::organization))
        .route("/repos/{owner}/{repo}", get(account::repository_view));
    for scope in ["/repos/{owner}/{repo}", "/orgs/{org}", "/enterprises/{enterprise}"] {
        api = api.nest(scope, scoped());
    }
    api.layer(from_fn(identity::require_token))
}

/// What a repository, an organization and an enterprise have alike, and what
/// some of them answer with 404.
fn scoped() -> Router<Arc<App>> {
    Router::new()
        .route("/actions/runners", get(runners::list))
        .route("/actions/runners/{id}", get(runners::get).delete(runners::remove))
        .route("/actions/runners/generate-jitconfig", post(jit::generate))
        .route("/actions/runners/registration-token", post(tokens::registration))
        .route("/actions/runners/remove-token", post(tokens::removal))
        .route("/actions/runner-groups", get(groups::list))
        .route("/actions/runner-groups/{id}", get(groups::get))
        .route("/actions/jobs/{id}", get(jobs::get))
        .route("/actions/runs", get(runs::list))
        .route("/actions/runs/{id}", get(runs::get))
        .route("/actions/runs/{id}/jobs", get(jobs::list))
        .route("/hooks", get(webhooks::list).post(webhooks::create))
        .route("/hooks/{hook}/pings", post(webhooks::ping))
        .route("/hooks/{hook}/deliveries", get(hooks::list))
        .route("/hooks/{hook}/deliveries/{id}", get(hooks::get))
        .route("/hooks/{hook}/deliveries/{id}/attempts", post(hooks::redeliver))
}

fn for_apps() -> Router<Arc<App>> {
    Router::new()
        .route("/app", get(apps::app))
        .route("/app/installations", get(apps::installations))
        .route("/app/installations/{id}/access_tokens", post(apps::access_token))
        .route("/app/hook/deliveries", get(hooks::list_of_app))
        .route("/app/hook/deliveries/{id}", get(hooks::get_of_app))
        .route("/app/hook/deliveries/{id}/attempts", post(hooks::redeliver_of_app))
        .route("/orgs/{org}/installation", get(apps::installation))
        .route("/repos/{owner}/{repo}/installation", get(apps::installation))
        .layer(from_fn(identity::require_app))
}
