//! A small HTTP client for programs on this machine. Each request has its own connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::request::Builder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(30);

/// A response that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The filter's outcome of the delivery; empty if Envoy responded without the filter.
    pub fn outcome(&self) -> &str {
        self.header("x-edgerunner-outcome")
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {self:?}"))
    }

    pub fn reason(&self) -> Result<String> {
        let reason = self.json()?["reason"].as_str().map(str::to_owned);
        reason.with_context(|| format!("no reason: {self:?}"))
    }

    pub async fn read(response: Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }
}

pub async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    exchange(address, Request::get(path), None).await
}

pub(crate) async fn post(address: SocketAddr, path: &str) -> Result<Answer> {
    exchange(address, Request::post(path), None).await
}

/// Fails unless it answers with 2xx and JSON of this shape.
pub(crate) async fn get_json<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T> {
    json(address, Request::get(path), None).await
}

/// The same for a request with a JSON body, or none.
pub async fn json<T: DeserializeOwned>(
    address: SocketAddr,
    request: Builder,
    body: Option<&Value>,
) -> Result<T> {
    let answer = exchange(address, request, body).await?;
    ensure!((200..300).contains(&answer.status), "{answer:?}");
    serde_json::from_slice(&answer.body).with_context(|| format!("unexpected JSON: {answer:?}"))
}

async fn exchange(address: SocketAddr, request: Builder, body: Option<&Value>) -> Result<Answer> {
    let mut request = request.header("host", address.to_string());
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let body = Full::new(Bytes::from(body.map(Value::to_string).unwrap_or_default()));
    timeout(LIMIT, send(address, request.body(body)?))
        .await
        .with_context(|| format!("no answer from {address} within {LIMIT:?}"))?
}

pub async fn send<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    send_over(TcpStream::connect(address).await?, request).await
}

/// On a connection that was opened for it.
pub async fn send_over<S, B>(stream: S, request: Request<B>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Answer::read(sender.send_request(request).await?).await
}
