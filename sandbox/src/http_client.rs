//! A small HTTP client: each request has a timeout, and each response body a size limit.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

const RESPONSE_BYTES_MAX: usize = 64 * 1024;
/// Connections that were idle for longer are not used again: Envoy closes them after a minute, and a
/// request that is sent meanwhile is lost.
const IDLE_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("timed out")]
    Timeout,
    #[error("failed to connect to host: {0}")]
    Connect(hyper_util::client::legacy::Error),
    #[error("failed to read the response: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
}

pub(crate) struct HttpClient<C> {
    client: Client<C, Full<Bytes>>,
}

fn builder() -> Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
    builder
}

impl HttpClient<HttpConnector> {
    /// A client for `http` URLs.
    pub(crate) fn without_tls() -> Self {
        Self { client: builder().build_http() }
    }
}

impl HttpClient<HttpsConnector<HttpConnector>> {
    /// A client for `http` and `https` URLs that trusts only these certificate authorities.
    pub(crate) fn with_roots(roots: RootCertStore) -> Self {
        let tls = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
        Self { client: builder().build(connector.build()) }
    }
}

impl<C: Connect + Clone + Send + Sync + 'static> HttpClient<C> {
    /// The timeout includes reading the body.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(HttpError::Connect)?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, RESPONSE_BYTES_MAX);
            let body = body.collect().await.map_err(HttpError::Body)?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(HttpError::Timeout))
    }
}
