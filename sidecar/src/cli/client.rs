//! Requests to the HTTP API of a running sidecar.

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::Full;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::block_on::block_on;
use crate::{config::Config, http_client::HttpClient};

const RESPONSE_BYTES_MAX: usize = 256 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Enough for a list of everything in the store.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn get(config: &Config, path: &str) -> Result<Value> {
    json(&request(config, Method::GET, path, None)?)
}

pub(super) fn text(config: &Config, path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&request(config, Method::GET, path, None)?).into_owned())
}

/// Needs `server.api_token`.
pub(super) fn post(config: &Config, path: &str, body: &Value) -> Result<Value> {
    json(&request(config, Method::POST, path, Some(body))?)
}

/// Needs `server.api_token`.
pub(super) fn delete(config: &Config, path: &str) -> Result<Value> {
    json(&request(config, Method::DELETE, path, None)?)
}

fn json(body: &[u8]) -> Result<Value> {
    serde_json::from_slice(body).context("the sidecar's response is not JSON")
}

fn request(config: &Config, method: Method, path: &str, body: Option<&Value>) -> Result<Bytes> {
    let url = format!("http://{}{path}", config.server.http_address);
    let mut request = Request::builder().method(&method).uri(&url);
    if method != Method::GET {
        let token = config.server.api_token.as_ref().context(
            "set server.api_token, SERVER_API_TOKEN or SERVER_API_TOKEN_FILE to the token that \
             `edgerunner serve` uses",
        )?;
        let bearer = format!("Bearer {}", token.expose_secret());
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let body = match body {
        None => Full::default(),
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            Full::from(body.to_string())
        }
    };
    block_on(call(&url, request.body(body)?))
}

/// The body of a successful response.
async fn call(url: &str, request: Request<Full<Bytes>>) -> Result<Bytes> {
    let client = HttpClient::new(request.uri(), &Vec::new(), None, CONNECT_TIMEOUT);
    let client = client.map_err(|problem| anyhow!(problem))?;
    let response =
        client.send_within(TIMEOUT, request, RESPONSE_BYTES_MAX).await.with_context(|| {
            format!(
                "no response from {url}: is `edgerunner serve` running, and is \
                 server.http_address the same for both?"
            )
        })?;
    let (status, body) = (response.status(), response.into_body());
    if status.is_success() {
        return Ok(body);
    }
    let response = serde_json::from_slice::<Value>(&body).ok();
    match response.as_ref().and_then(|response| response["error"].as_str()) {
        Some(error) => bail!("{error} ({status} from {url})"),
        None => bail!("{status} from {url}: is edgerunner listening there?"),
    }
}
