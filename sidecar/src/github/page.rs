//! Reads one page of a list.

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::{client::Client, error::Error, response::Response};
use edgerunner_scheduler::missed::Page;

/// `items` takes them out of the body.
pub(super) fn read<T, Body: DeserializeOwned>(
    client: &Client,
    call: &str,
    response: &Response,
    items: impl FnOnce(Body) -> Result<Vec<T>, Error>,
) -> Result<Page<T>, Error> {
    let body = client.read(call, response, StatusCode::OK)?;
    let next = client.next_page(call, response)?;
    Ok(Page { items: items(body)?, next, unchanged: response.unchanged })
}
