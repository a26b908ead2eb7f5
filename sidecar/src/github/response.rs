//! A response from GitHub.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;

use super::moved::Moved;

pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// GitHub returned 304. Status and body are those of the cached response.
    pub(super) unchanged: bool,
    /// GitHub redirected the request: what moved, and to where.
    pub(super) moved: Option<Arc<Moved>>,
    /// The token of the request, which no message may repeat.
    pub(super) token: SecretString,
}

impl Response {
    /// The status that GitHub sent.
    pub(super) fn sent_status(&self) -> StatusCode {
        match self.unchanged {
            true => StatusCode::NOT_MODIFIED,
            false => self.status,
        }
    }
}
