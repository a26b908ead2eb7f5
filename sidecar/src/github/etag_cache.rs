use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use quick_cache::{Weighter, sync::Cache};

/// A page of a hundred runs is about 1.5 MB.
const BYTES_MAX: u64 = 32 << 20;
const ANSWERS_EXPECTED: usize = 1_000;

/// Answers to GET by their path. If nothing has changed GitHub says so with a 304, which
/// costs nothing of the budget.
pub(super) struct EtagCache(Cache<String, Kept, Size>);

#[derive(Clone)]
pub(super) struct Kept {
    pub(super) etag: HeaderValue,
    link: Option<HeaderValue>,
    body: Bytes,
}

#[derive(Clone)]
struct Size;

impl Weighter<String, Kept> for Size {
    fn weight(&self, path: &String, kept: &Kept) -> u64 {
        (path.len() + kept.body.len()) as u64
    }
}

impl EtagCache {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(ANSWERS_EXPECTED, BYTES_MAX, Size))
    }

    pub(super) fn get(&self, path: &str) -> Option<Kept> {
        self.0.get(path)
    }

    pub(super) fn keep(&self, path: &str, headers: &HeaderMap, body: &Bytes) {
        if let Some(etag) = headers.get(header::ETAG).cloned() {
            let link = headers.get(header::LINK).cloned();
            self.0.insert(path.to_owned(), Kept { etag, link, body: body.clone() });
        }
    }
}

impl Kept {
    /// What the answer would have been without a condition.
    pub(super) fn confirmed(self, headers: &mut HeaderMap) -> (StatusCode, Bytes) {
        if let Some(link) = self.link {
            headers.entry(header::LINK).or_insert(link);
        }
        (StatusCode::OK, self.body)
    }
}
