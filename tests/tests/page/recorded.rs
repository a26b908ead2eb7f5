//! A server of the page's own files that shows recorded states in a sidecar's place.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::Path as FilePath;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

/// Where the page has its first state.
const FIRST: &str = r#"<script type="application/json" id="first">null</script>"#;

/// The time of all states: 30 January 2026, 10:00 in UTC.
pub(crate) const NOW_MS: u64 = 1_769_767_200_000;

/// The clock of the browser stands still then.
pub(crate) fn frozen_clock() -> String {
    format!(
        "const RealDate = Date;
         Date = class extends RealDate {{
             constructor(...given) {{ super(...(given.length ? given : [{NOW_MS}])); }}
             static now() {{ return {NOW_MS}; }}
         }};"
    )
}

#[derive(Default)]
struct Recorded {
    dashboard: Value,
    /// By path.
    answers: HashMap<String, Value>,
}

#[derive(Clone)]
pub(crate) struct Server {
    recorded: Arc<Mutex<Recorded>>,
    changes: broadcast::Sender<String>,
    url: String,
}

impl Server {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let (changes, _) = broadcast::channel(16);
        let server = Self { recorded: Arc::default(), changes, url };
        let router = Router::new()
            .route("/", get(index))
            .route("/page/events", get(events))
            .route("/page/{file}", get(asset))
            .fallback(answer)
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(server)
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What pages show that are opened from now on.
    pub(crate) fn show(&self, dashboard: Value) {
        self.recorded.lock().expect("no panic").dashboard = dashboard;
    }

    /// What is answered to a request of the page.
    pub(crate) fn answer(&self, path: &str, answer: Value) {
        self.recorded.lock().expect("no panic").answers.insert(path.to_owned(), answer);
    }

    /// Sends a merge patch to the pages that are open.
    pub(crate) fn change(&self, patch: &Value) {
        // Without a page, nobody receives it.
        let _ = self.changes.send(content(patch));
    }
}

fn content(dashboard: &Value) -> String {
    json!({ "number": 1, "now_ms": NOW_MS, "dashboard": dashboard }).to_string()
}

async fn index(State(server): State<Server>) -> Result<Response, Failure> {
    let html = file("index.html")?;
    let first = content(&server.recorded.lock().expect("no panic").dashboard);
    let first = first.replace('<', "\\u003c");
    let html = html.replace(FIRST, &FIRST.replace("null", &first));
    Ok(([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response())
}

async fn asset(Path(name): Path<String>) -> Result<Response, Failure> {
    let content_type = match name.rsplit('.').next() {
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        _ => "image/svg+xml",
    };
    Ok(([(header::CONTENT_TYPE, content_type)], file(&name)?).into_response())
}

/// The page has the first state already.
async fn events(State(server): State<Server>) -> Response {
    let changes = BroadcastStream::new(server.changes.subscribe());
    let events = changes.filter_map(async |change| {
        change.ok().map(|data| Ok::<_, Infallible>(Event::default().event("change").data(data)))
    });
    // Without them the page takes the connection for lost, and a change is lost with it.
    let heartbeats = KeepAlive::new()
        .interval(Duration::from_secs(5))
        .event(Event::default().event("beat").data("0"));
    Sse::new(events.boxed()).keep_alive(heartbeats).into_response()
}

async fn answer(State(server): State<Server>, uri: Uri) -> Response {
    match server.recorded.lock().expect("no panic").answers.get(uri.path()) {
        Some(answer) => Json(answer.clone()).into_response(),
        None => Json(Value::Null).into_response(),
    }
}

fn file(name: &str) -> Result<String> {
    let assets = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("../sidecar/src/page/assets");
    std::fs::read_to_string(assets.join(name)).with_context(|| format!("no {name}"))
}

struct Failure(anyhow::Error);

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::NOT_FOUND, format!("{:#}\n", self.0)).into_response()
    }
}
