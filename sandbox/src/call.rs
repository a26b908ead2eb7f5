//! A REST request that the sandbox received, and how it answered.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

#[derive(Clone, Debug, Serialize)]
pub struct Call {
    pub at: Timestamp,
    pub method: String,
    /// Includes the query.
    pub path: String,
    /// Of `authorization`, only the scheme is kept.
    pub headers: BTreeMap<String, String>,
    /// Index in [`Settings::tokens`](crate::Settings::tokens) of the token that was sent.
    pub token: Option<usize>,
    pub body: String,
    /// `None` until the response is ready, and for good if the connection was closed
    /// without a response.
    pub status: Option<u16>,
}
