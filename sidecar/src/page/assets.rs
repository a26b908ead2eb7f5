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

/// Where the page has its first state, in place of `null`.
const FIRST: &str = "<script type=\"application/json\" id=\"first\">null</script>";

/// The first one is the page itself, at `/`.
pub(super) const ASSETS: [Asset; 31] = assets! {
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
    "jobs.js": SCRIPT,
    "order.js": SCRIPT,
    "places.js": SCRIPT,
    "timeline.js": SCRIPT,
    "versions.js": SCRIPT,
    "views.js": SCRIPT,
    "wall.js": SCRIPT,
    "address.js": SCRIPT,
    "cells.js": SCRIPT,
    "figures.js": SCRIPT,
    "words.js": SCRIPT,
};

pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let mut router = Router::new();
    for asset in &ASSETS[1..] {
        let path = format!("/page/{}", asset.0);
        router = router.route(&path, get(move || async move { response(asset) }));
    }
    router
}

/// The page itself, with its first state as JSON.
pub(super) fn index(first: Option<&str>) -> Response {
    let (_, content_type, html) = ASSETS[0];
    let Some(first) = first else { return response(&ASSETS[0]) };
    // In JSON, it is only in strings.
    let first = first.replace('<', "\\u003c");
    let html = html.replace(FIRST, &FIRST.replace("null", &first));
    ([(header::CONTENT_TYPE, content_type)], html).into_response()
}

fn response((_, content_type, content): &'static Asset) -> Response {
    ([(header::CONTENT_TYPE, *content_type)], *content).into_response()
}
