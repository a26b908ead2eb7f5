//! One page of a list.

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::{answer::Answer, client::Client, error::Error};

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub items: Vec<T>,
    /// Path of the next page.
    pub next: Option<String>,
    /// GitHub answered 304, which does not count against the rate limit.
    pub unchanged: bool,
}

impl<T> Page<T> {
    pub(super) fn read<Reply: DeserializeOwned>(
        client: &Client,
        call: &str,
        answer: &Answer,
        items: impl FnOnce(Reply) -> Result<Vec<T>, Error>,
    ) -> Result<Self, Error> {
        let reply = client.read(call, answer, StatusCode::OK)?;
        let next = client.next_page(call, answer)?;
        Ok(Self { items: items(reply)?, next, unchanged: answer.unchanged })
    }
}
