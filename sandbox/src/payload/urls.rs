//! URLs in payloads.

use std::collections::BTreeMap;

/// Builds URLs under the sandbox's own origin.
#[derive(Clone, Debug)]
pub(crate) struct Urls {
    origin: String,
}

impl Urls {
    pub(crate) fn new(origin: &str) -> Self {
        Self { origin: origin.trim_end_matches('/').to_owned() }
    }

    pub(crate) fn to(&self, path: &str) -> String {
        format!("{}/{path}", self.origin)
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
