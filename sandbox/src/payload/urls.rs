//! URLs in payloads.

use std::collections::BTreeMap;

/// Builds the URLs of the sandbox's own API and pages.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    origin: String,
    /// The origin of pages, which a browser may reach under another address.
    web: String,
}

impl Urls {
    pub(crate) fn new(origin: &str, web: &str) -> Self {
        let base = |url: &str| url.trim_end_matches('/').to_owned();
        Self { origin: base(origin), web: base(web) }
    }

    pub(crate) fn to(&self, path: &str) -> String {
        format!("{}/{path}", self.origin)
    }

    /// The URL of a page.
    pub(crate) fn page(&self, path: &str) -> String {
        format!("{}/{path}", self.web)
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    /// The keys and URLs of an object's `…_url` fields.
    pub(super) fn table(
        &self,
        base: &str,
        entries: &[(&'static str, &str)],
    ) -> BTreeMap<&'static str, String> {
        entries
            .iter()
            .map(|(key, suffix)| (*key, format!("{}/{base}{suffix}", self.origin)))
            .collect()
    }
}
