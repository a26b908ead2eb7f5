//! Clients that speak TLS and HTTP/2, and the TLS of servers.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::envoy::{SERVER_NAME, SIDECAR_NAME};
use crate::{Answer, Envoy, Identity, Sidecar, Webhook, client};

/// A root store with this PEM certificate alone.
pub fn roots(authority: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    Ok(roots)
}

/// Presents this certificate to every client.
pub fn acceptor(identity: &Identity) -> Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connects to `address`, which has to present a certificate for `name` by `authority`.
pub async fn connect(
    address: SocketAddr,
    name: &'static str,
    authority: &str,
    identity: Option<&Identity>,
    protocol: &str,
) -> Result<TlsStream<TcpStream>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(authority)?);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?,
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    connector.connect(ServerName::try_from(name)?, stream).await.context("no TLS handshake")
}

/// HTTP/2 without TLS, by prior knowledge.
pub async fn send_http2<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
where
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    Answer::read(open_http2(TcpStream::connect(address).await?, request).await?).await
}

/// Returns at the response's head. Its body may still be on its way.
async fn open_http2<S, B>(stream: S, request: Request<B>) -> Result<Response<Incoming>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

impl Envoy {
    pub async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        match &self.authority {
            None => client::send(self.address, webhook.request()?).await,
            Some(_) => Ok(self.send_over_tls(webhook).await?.0),
        }
    }

    /// Returns the certificate that Envoy presented as well.
    pub async fn send_over_tls(&self, webhook: &Webhook) -> Result<(Answer, Vec<u8>)> {
        let stream = self.connect("http/1.1").await?;
        let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let presented = presented.context("no certificate")?.to_vec();
        Ok((client::send_over(stream, webhook.request()?).await?, presented))
    }

    pub async fn send_http2_over_tls(&self, webhook: &Webhook) -> Result<Answer> {
        let stream = self.connect("h2").await?;
        Answer::read(open_http2(stream, webhook.request()?).await?).await
    }

    async fn connect(&self, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let authority = self.authority.as_ref().context("this Envoy does not speak TLS")?;
        connect(self.address, SERVER_NAME, &authority.certificate, None, protocol).await
    }
}

impl Sidecar {
    /// Watches its health by gRPC, a response without an end.
    pub async fn watch_health(&self) -> Result<Response<Incoming>> {
        let stream = TcpStream::connect(self.grpc).await?;
        open_http2(stream, health_request(&format!("http://{}", self.grpc), "Watch")?).await
    }

    /// Requests its health by gRPC over TLS with this client certificate.
    pub async fn health_over_tls(
        &self,
        authority: &str,
        identity: Option<&Identity>,
    ) -> Result<Answer> {
        let stream = connect(self.grpc, SIDECAR_NAME, authority, identity, "h2").await?;
        let request = health_request(&format!("https://{SIDECAR_NAME}"), "Check")?;
        Answer::read(open_http2(stream, request).await?).await
    }
}

fn health_request(server: &str, method: &str) -> Result<Request<Full<Bytes>>> {
    let request = Request::post(format!("{server}/grpc.health.v1.Health/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    // A message without fields, after its length.
    Ok(request.body(Full::new(Bytes::from_static(&[0; 5])))?)
}
