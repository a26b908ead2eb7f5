//! Small requests to programs on this machine.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is kept for as long as its sender.
pub(crate) async fn connect(address: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("nothing listens on {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        // Its end shows in the sender, with the reason.
        let _ = connection.await;
    });
    Ok(sender)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<(StatusCode, Bytes)> {
    exchange(address, Request::get(path), Bytes::new()).await
}

pub(crate) async fn get_json(address: SocketAddr, path: &str) -> Result<Value> {
    json(path, get(address, path).await?)
}

pub(crate) async fn post_json(address: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let request = Request::post(path).header("content-type", "application/json");
    json(path, exchange(address, request, body.to_string().into()).await?)
}

pub(crate) async fn post_json_with_token(
    address: SocketAddr,
    path: &str,
    token: &str,
    body: &Value,
) -> Result<Value> {
    let request = Request::post(path)
        .header("content-type", "application/json")
        // GitHub refuses who does not say who asks.
        .header("user-agent", "edgerunner-xtask")
        .header("authorization", format!("Bearer {token}"));
    json(path, exchange(address, request, body.to_string().into()).await?)
}

pub(crate) async fn put_json(address: SocketAddr, path: &str, body: &Value) -> Result<Value> {
    let request = Request::put(path).header("content-type", "application/json");
    json(path, exchange(address, request, body.to_string().into()).await?)
}

async fn exchange(
    address: SocketAddr,
    request: hyper::http::request::Builder,
    body: Bytes,
) -> Result<(StatusCode, Bytes)> {
    let request = request.header("host", address.to_string()).body(Full::new(body))?;
    let exchange = async {
        let response = connect(address).await?.send_request(request).await?;
        let status = response.status();
        anyhow::Ok((status, response.into_body().collect().await?.to_bytes()))
    };
    tokio::time::timeout(TIMEOUT, exchange)
        .await
        .with_context(|| format!("{address} does not answer within {TIMEOUT:?}"))?
}

fn json(path: &str, (status, body): (StatusCode, Bytes)) -> Result<Value> {
    if !status.is_success() {
        bail!("{path} answered {status}: {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).with_context(|| format!("{path} did not answer with JSON"))
}
