//! The status page: what is going on, for people to look at. It changes nothing.

mod dashboard;
mod live;
mod merge_patch;
mod queue_times;

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response, Sse, sse::KeepAlive},
    routing::get,
};
use serde::Deserialize;
use tokio::sync::mpsc;
use tower_http::{compression::CompressionLayer, set_header::SetResponseHeaderLayer};

use crate::{
    control::command::Command,
    store::{self, JobHistory, RunnerRecord, Store},
};
use live::{BEAT_EVERY, Live, beat};

/// Nothing from elsewhere, nothing inline, and in nobody's frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // A later version must not meet this one's scripts.
    (header::CACHE_CONTROL, "no-cache"),
];

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, type and content.
type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($($name:literal: $kind:ident),+ $(,)?) => {
        [$(($name, $kind, include_str!(concat!("assets/", $name)))),+]
    };
}

const ASSETS: [Asset; 12] = assets! {
    "index.html": HTML,
    "page.css": CSS,
    "icon.svg": SVG,
    "main.js": SCRIPT,
    "live.js": SCRIPT,
    "elements.js": SCRIPT,
    "table.js": SCRIPT,
    "overview.js": SCRIPT,
    "lists.js": SCRIPT,
    "chart.js": SCRIPT,
    "details.js": SCRIPT,
    "search.js": SCRIPT,
};

#[derive(Clone)]
struct Page {
    store: Store,
    live: Live,
}

pub(crate) fn router<S>(store: Store, driver: mpsc::Sender<Command>) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    let live = Live::new(store.clone(), driver);
    let mut router = Router::new()
        .route("/", get(|| async { asset(&ASSETS[0]) }))
        .route("/page/jobs", get(jobs))
        .route("/page/runners/{name}", get(runner));
    for found in &ASSETS[1..] {
        let path = format!("/page/{}", found.0);
        router = router.route(&path, get(move || async move { asset(found) }));
    }
    // Compressed, events would wait for more of their kind.
    router = router.layer(CompressionLayer::new()).route("/page/events", get(events));
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        router = router.layer(SetResponseHeaderLayer::overriding(name, value));
    }
    router.with_state(Page { store, live })
}

fn asset((_, kind, content): &'static Asset) -> Response {
    ([(header::CONTENT_TYPE, *kind)], *content).into_response()
}

async fn events(State(page): State<Page>) -> Response {
    match page.live.watch() {
        Some(events) => Sse::new(events)
            .keep_alive(KeepAlive::new().interval(BEAT_EVERY).event(beat()))
            .into_response(),
        None => (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response(),
    }
}

/// By an id that is part of GitHub's addresses.
#[derive(Deserialize)]
struct Wanted {
    job: Option<u64>,
    run: Option<u64>,
}

async fn jobs(
    State(page): State<Page>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Vec<JobHistory>>, Unreadable> {
    Ok(Json(match wanted {
        Wanted { job: Some(job), .. } => page.store.job_attempts(job).await?,
        Wanted { run: Some(run), .. } => page.store.jobs_of_run(run).await?,
        Wanted { job: None, run: None } => Vec::new(),
    }))
}

/// `null`: none of that name.
async fn runner(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Json<Option<RunnerRecord>>, Unreadable> {
    Ok(Json(page.store.runner(name).await?))
}

struct Unreadable(store::Error);

impl From<store::Error> for Unreadable {
    fn from(error: store::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Unreadable {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}

#[cfg(test)]
mod tests;
