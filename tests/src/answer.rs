use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::net::TcpStream;

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

    /// What the filter says of the delivery; empty if it was not the filter
    /// that answered.
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

    async fn read(response: http::Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Self { status: head.status.as_u16(), headers: head.headers, body })
    }
}

/// On a connection of its own, so that no request depends on one before it.
pub(crate) async fn send<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = Answer::read(sender.send_request(request).await?).await;
    connection.abort();
    answer
}

/// HTTP/2 without TLS, by prior knowledge.
pub(crate) async fn send_http2<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = Answer::read(sender.send_request(request).await?).await;
    connection.abort();
    answer
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let request =
        Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    send(address, request).await
}
