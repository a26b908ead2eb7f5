//! Responses to GET requests, for conditional requests with their `ETag`.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use quick_cache::{Weighter, sync::Cache};

/// A page of a hundred runs is about 1.5 MB.
const BYTES_MAX: u64 = 32 << 20;
const RESPONSES_ESTIMATED: usize = 1_000;

/// Responses by path. If nothing has changed, GitHub returns 304, which does not count against
/// the rate limit.
pub(super) struct EtagCache(Cache<String, CachedResponse, Size>);

#[derive(Clone)]
pub(super) struct CachedResponse {
    pub(super) etag: HeaderValue,
    link: Option<HeaderValue>,
    body: Bytes,
}

#[derive(Clone)]
struct Size;

impl Weighter<String, CachedResponse> for Size {
    fn weight(&self, path: &String, cached: &CachedResponse) -> u64 {
        (path.len() + cached.body.len()) as u64
    }
}

impl EtagCache {
    pub(super) fn new() -> Self {
        Self(Cache::with_weighter(RESPONSES_ESTIMATED, BYTES_MAX, Size))
    }

    pub(super) fn get(&self, path: &str) -> Option<CachedResponse> {
        self.0.get(path)
    }

    pub(super) fn store(&self, path: &str, headers: &HeaderMap, body: &Bytes) {
        if let Some(etag) = headers.get(header::ETAG).cloned() {
            let link = headers.get(header::LINK).cloned();
            self.0.insert(path.to_owned(), CachedResponse { etag, link, body: body.clone() });
        }
    }
}

impl CachedResponse {
    /// The response that a request without the condition would have got. `headers` are those of
    /// the 304.
    pub(super) fn confirmed(self, headers: &mut HeaderMap) -> (StatusCode, Bytes) {
        if let Some(link) = self.link {
            headers.entry(header::LINK).or_insert(link);
        }
        (StatusCode::OK, self.body)
    }
}
