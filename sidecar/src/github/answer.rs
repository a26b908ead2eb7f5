//! An answer of GitHub.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use secrecy::SecretString;

pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// GitHub answered 304. Status and body are those of the cached answer.
    pub(super) unchanged: bool,
    /// The token of the request, which no message may repeat.
    pub(super) token: SecretString,
}

impl Answer {
    /// The status that GitHub sent.
    pub(super) fn sent_status(&self) -> StatusCode {
        match self.unchanged {
            true => StatusCode::NOT_MODIFIED,
            false => self.status,
        }
    }
}
