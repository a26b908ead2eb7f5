//! GitHub's pagination: the `per_page` and `page` parameters and the `Link` header.

use std::sync::Arc;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};

use super::error::ApiError;
use crate::app::App;

const PER_PAGE: usize = 30;
const PER_PAGE_MAX: usize = 100;

pub(super) struct Page {
    per_page: usize,
    number: usize,
    /// The URL that the client requested, without the query.
    url: String,
    /// The query's other parameters, which links repeat.
    others: Vec<(String, String)>,
}

/// The items of one page, and the links to other pages.
pub(super) struct PageOf<T> {
    pub total: usize,
    pub items: Vec<T>,
    pub links: Links,
}

pub(super) type Links = Option<[(HeaderName, String); 1]>;

impl FromRequestParts<Arc<App>> for Page {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, app).await;
        // Links name the host that the client used, which may be a proxy: the client follows
        // links to no other host.
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin = match host {
            Some(host) => format!("http://{host}"),
            None => app.read(|state| state.urls.origin().to_owned()),
        };
        let mut page = Self {
            per_page: PER_PAGE,
            number: 1,
            url: format!("{origin}{}", uri.path()),
            others: Vec::new(),
        };
        for (key, value) in query(&uri) {
            let number = value.parse::<usize>().ok().filter(|number| *number > 0);
            match key.as_str() {
                "per_page" => page.per_page = number.unwrap_or(PER_PAGE).min(PER_PAGE_MAX),
                "page" => page.number = number.unwrap_or(1),
                _ => page.others.push((key, value)),
            }
        }
        Ok(page)
    }
}

impl Page {
    /// A parameter of the query other than `per_page` and `page`.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.others.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn per_page(&self) -> usize {
        self.per_page
    }

    /// Takes this page's items out of a whole list.
    pub(super) fn of<T>(&self, all: Vec<T>) -> PageOf<T> {
        let total = all.len();
        let last = total.div_ceil(self.per_page).max(1);
        let items =
            all.into_iter().skip((self.number - 1) * self.per_page).take(self.per_page).collect();
        let number = |relation, number: usize| self.link(relation, "page", &number.to_string());
        let mut links = Vec::new();
        if self.number > 1 {
            links.push(number("prev", self.number - 1));
            links.push(number("first", 1));
        }
        if self.number < last {
            links.push(number("next", self.number + 1));
            links.push(number("last", last));
        }
        let links = (!links.is_empty()).then(|| [(header::LINK, links.join(", "))]);
        PageOf { total, items, links }
    }

    pub(super) fn link(&self, relation: &str, key: &str, value: &str) -> String {
        let others: String = self
            .others
            .iter()
            .filter(|(own, _)| own != key)
            .map(|(key, value)| format!("{}={}&", encode(key), encode(value)))
            .collect();
        format!(
            "<{}?{others}per_page={}&{key}={}>; rel=\"{relation}\"",
            self.url,
            self.per_page,
            encode(value)
        )
    }
}

fn query(uri: &http::Uri) -> Vec<(String, String)> {
    axum::extract::Query::try_from_uri(uri)
        .map(|axum::extract::Query(pairs)| pairs)
        .unwrap_or_default()
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
