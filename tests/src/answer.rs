use std::net::SocketAddr;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
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

    pub(crate) async fn read(response: Response<Incoming>) -> Result<Self> {
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
    send_over(TcpStream::connect(address).await?, request).await
}

/// On a connection that was made for it.
pub(crate) async fn send_over<S, B>(stream: S, request: Request<B>) -> Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Answer::read(sender.send_request(request).await?).await
}

pub(crate) async fn send_http2<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    Answer::read(open_http2(address, request).await?).await
}

/// HTTP/2 without TLS, by prior knowledge. The body may still be on its way.
pub(crate) async fn open_http2<B>(
    address: SocketAddr,
    request: Request<B>,
) -> Result<Response<Incoming>>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    open_http2_over(TcpStream::connect(address).await?, request).await
}

pub(crate) async fn open_http2_over<S, B>(
    stream: S,
    request: Request<B>,
) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    let request =
        Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    send(address, request).await
}
