//! HTTP client for requests to GitHub, to Envoy and to a running sidecar.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{HttpConnector, proxy::Tunnel},
    },
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring::default_provider};
use tokio::time::timeout;

use crate::config::{Certificates, Proxy};

pub(crate) const USER_AGENT: &str = concat!("edgerunner/", env!("CARGO_PKG_VERSION"));

type Body = Full<Bytes>;

/// Keeps its connections open. Follows no redirects and repeats no requests.
#[derive(Clone)]
pub(crate) enum HttpClient {
    Plain(Client<HttpConnector, Body>),
    Tls(Client<HttpsConnector<HttpConnector>, Body>),
    Tunneled(Client<HttpsConnector<Tunnel<HttpConnector>>, Body>),
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum HttpError {
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    #[error(transparent)]
    Request(#[from] hyper_util::client::legacy::Error),
    #[error(transparent)]
    Body(Box<dyn Error + Send + Sync>),
}

impl HttpClient {
    /// For URLs with the scheme of this one. TLS trusts the system's CAs and `ca`, and goes
    /// through `proxy` if there is one.
    pub(crate) fn new(
        url: &Uri,
        ca: &Certificates,
        proxy: Option<&Proxy>,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_nodelay(true);
        let builder = Client::builder(TokioExecutor::new());
        if url.scheme() == Some(&Scheme::HTTP) {
            return Ok(Self::Plain(builder.build(connector)));
        }
        let tls = HttpsConnectorBuilder::new().with_tls_config(tls_config(ca)?);
        let tls = tls.https_only().enable_http1();
        Ok(match proxy {
            Some(proxy) => {
                let mut tunnel = Tunnel::new(proxy.url().clone(), connector);
                if let Some(credentials) = proxy.credentials() {
                    tunnel = tunnel.with_auth(credentials.clone());
                }
                Self::Tunneled(builder.build(tls.wrap_connector(tunnel)))
            }
            None => {
                connector.enforce_http(false);
                Self::Tls(builder.build(tls.wrap_connector(connector)))
            }
        })
    }

    /// Sends a request and reads the whole response, which is an error if it is larger than
    /// `response_bytes_max`. Callers limit the time.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
        response_bytes_max: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let response = match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
            Self::Tunneled(client) => client.request(request).await,
        };
        let (head, body) = response?.into_parts();
        let body = Limited::new(body, response_bytes_max).collect().await;
        Ok(Response::from_parts(head, body.map_err(HttpError::Body)?.to_bytes()))
    }

    /// Like `send`, with a time limit.
    pub(crate) async fn send_within(
        &self,
        limit: Duration,
        request: Request<Body>,
        response_bytes_max: usize,
    ) -> Result<Response<Bytes>, HttpError> {
        let response = timeout(limit, self.send(request, response_bytes_max)).await;
        response.unwrap_or(Err(HttpError::TimedOut(limit)))
    }
}

fn tls_config(ca: &Certificates) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(ca.iter().cloned());
    if roots.is_empty() {
        return Err(
            "this system has no CA certificates: install the package ca-certificates".to_owned()
        );
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
