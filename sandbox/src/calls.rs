use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;

/// One REST request the sandbox saw.
#[derive(Clone, Debug, Serialize)]
pub struct Call {
    pub at: DateTime<Utc>,
    pub method: String,
    /// With the query.
    pub path: String,
    /// All but the credentials, of which only the scheme is kept.
    pub headers: BTreeMap<String, String>,
    /// Which of the accepted tokens it came with, by its place in the settings.
    pub token: Option<usize>,
    pub body: String,
    /// Absent while the request is worked on, and for good if the connection
    /// was closed without an answer.
    pub status: Option<u16>,
}
