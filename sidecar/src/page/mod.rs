//! The status page: the current state, for people. It is read-only.

mod assets;
mod dashboard;
mod details;
mod live;
mod merge_patch;
mod queue_times;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::{Query, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response, Sse, sse::KeepAlive},
    routing::get,
};
use serde::Deserialize;
use tower_http::{compression::CompressionLayer, set_header::SetResponseHeaderLayer};

use crate::{
    control::{command::CommandSender, sidecars::Sidecars},
    store::Store,
};
use live::{HEARTBEAT_EVERY, Live, heartbeat};

/// Nothing from other origins, nothing inline, and never inside a frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // A later version must not run with cached scripts of this one.
    (header::CACHE_CONTROL, "no-cache"),
];

#[derive(Clone)]
struct Page {
    store: Store,
    live: Live,
}

pub(crate) fn router(store: Store, driver: CommandSender, sidecars: Sidecars) -> Router {
    let live = Live::new(store.clone(), driver, sidecars);
    let mut router = assets::router()
        .route("/", get(index))
        .route("/page/jobs", get(details::jobs))
        .route("/page/jobs/{id}", get(details::job))
        .route("/page/runners/{name}", get(details::runner))
        .layer(CompressionLayer::new())
        // Not compressed: the encoder would hold events back until it has enough of them.
        .route("/page/events", get(events));
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        router = router.layer(SetResponseHeaderLayer::overriding(name, value));
    }
    router.with_state(Page { store, live })
}

/// The page, with the state in it, so that it is shown without a second request.
async fn index(State(page): State<Page>) -> Response {
    assets::index(page.live.first().await.as_deref())
}

#[derive(Deserialize)]
struct Subscription {
    /// The number of the update that the page has.
    after: Option<u64>,
}

async fn events(
    State(page): State<Page>,
    Query(Subscription { after }): Query<Subscription>,
) -> Response {
    match page.live.subscribe(after) {
        Some(events) => Sse::new(events)
            .keep_alive(KeepAlive::new().interval(HEARTBEAT_EVERY).event(heartbeat()))
            .into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response(),
    }
}
