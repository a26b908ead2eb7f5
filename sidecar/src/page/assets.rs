//! The files that the page consists of.

use axum::{
    Router,
    http::header,
    response::{IntoResponse as _, Response},
    routing::get,
};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// Name, content type and content.
pub(super) type Asset = (&'static str, &'static str, &'static str);

macro_rules! assets {
    ($($name:literal: $content_type:ident),+ $(,)?) => {
        [$(($name, $content_type, include_str!(concat!("assets/", $name)))),+]
    };
}

/// The first one is the page itself, at `/`.
pub(super) const ASSETS: [Asset; 20] = assets! {
    "index.html": HTML,
    "page.css": CSS,
    "icon.svg": SVG,
    "icon-broken.svg": SVG,
    "main.js": SCRIPT,
    "live.js": SCRIPT,
    "elements.js": SCRIPT,
    "table.js": SCRIPT,
    "attention.js": SCRIPT,
    "overview.js": SCRIPT,
    "lists.js": SCRIPT,
    "nodes.js": SCRIPT,
    "operate.js": SCRIPT,
    "audit.js": SCRIPT,
    "sidecars.js": SCRIPT,
    "egress.js": SCRIPT,
    "chart.js": SCRIPT,
    "report.js": SCRIPT,
    "details.js": SCRIPT,
    "search.js": SCRIPT,
};

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new().route("/", get(|| async { response(&ASSETS[0]) }));
    for asset in &ASSETS[1..] {
        let path = format!("/page/{}", asset.0);
        router = router.route(&path, get(move || async move { response(asset) }));
    }
    router
}

fn response((_, content_type, content): &'static Asset) -> Response {
    ([(header::CONTENT_TYPE, *content_type)], *content).into_response()
}
