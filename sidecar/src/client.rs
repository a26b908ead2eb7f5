//! How the command line asks a running sidecar.

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::config::Config;

const ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;

pub(crate) fn get(config: &Config, path: &str) -> Result<Value> {
    let url = url(config, path);
    wait_for(call(&url, Request::get(&url).body(Full::default())?))
}

/// Needs `server.api_token`.
pub(crate) fn post(config: &Config, path: &str, body: &Value) -> Result<Value> {
    let token = config.server.api_token.as_ref().context(
        "set server.api_token, SERVER_API_TOKEN or SERVER_API_TOKEN_FILE to what \
         `edgerunner serve` has",
    )?;
    let url = url(config, path);
    wait_for(call(&url, post_request(&url, token, body)?))
}

pub(crate) fn post_request(
    url: &str,
    token: &SecretString,
    body: &Value,
) -> Result<Request<Full<Bytes>>> {
    Ok(Request::post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::AUTHORIZATION, format!("Bearer {}", token.expose_secret()))
        .body(Full::from(body.to_string()))?)
}

fn url(config: &Config, path: &str) -> String {
    format!("http://{}{path}", config.server.http_address)
}

fn wait_for(call: impl Future<Output = Result<Value>>) -> Result<Value> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(call)
}

pub(crate) async fn call(url: &str, request: Request<Full<Bytes>>) -> Result<Value> {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.request(request).await.with_context(|| {
        format!(
            "no sidecar answers at {url}: is `edgerunner serve` running, and is \
             server.http_address the same for both?"
        )
    })?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| anyhow!("{url}: {error}"))?.to_bytes();
    if !status.is_success() {
        bail!("{url} answered {status}: {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("{url} did not answer with JSON"))
}
