//! GitHub's REST API, as far as an autoscaler needs it: at `/` as
//! api.github.com has it and at `/api/v3` as GitHub Enterprise Server has it.

mod error;
mod extract;
mod gate;
mod jit;
mod page;
mod runners;
mod tokens;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use axum::routing::{get, post};

use crate::app::App;

pub(crate) use gate::CloseConnection;

pub(crate) fn router(app: &Arc<App>) -> Router<Arc<App>> {
    let mut api = Router::new();
    for scope in [
        "/repos/{owner}/{repo}",
        "/orgs/{org}",
        "/enterprises/{enterprise}",
    ] {
        api = api.nest(scope, scoped());
    }
    Router::new()
        .nest("/api/v3", api.clone())
        .merge(api)
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::not_found)
        .layer(middleware::from_fn_with_state(Arc::clone(app), gate::gate))
}

fn scoped() -> Router<Arc<App>> {
    Router::new()
        .route("/actions/runners", get(runners::list))
        .route(
            "/actions/runners/{id}",
            get(runners::get).delete(runners::remove),
        )
        .route("/actions/runners/generate-jitconfig", post(jit::generate))
        .route(
            "/actions/runners/registration-token",
            post(tokens::registration),
        )
        .route("/actions/runners/remove-token", post(tokens::removal))
}
