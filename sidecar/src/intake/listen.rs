//! Listeners of the gRPC service: TCP with or without mutual TLS, or a Unix socket.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;
use tracing::warn;

use crate::{
    blocking::OneAtATime,
    config::{GrpcAddress, TlsFiles},
};

/// The socket's group may connect, since Envoy runs as another user.
const SOCKET_MODE: u32 = 0o660;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the certificates, within that time.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Clients that never finish a handshake must not keep Envoy out.
const HANDSHAKES_AT_ONCE_MAX: usize = 64;

pub(crate) enum Listener {
    Tcp(TcpIncoming),
    Tls(BoxStream<'static, io::Result<TlsStream<TcpStream>>>),
    Unix(UnixListenerStream),
}

impl Listener {
    pub(crate) async fn bind(
        field: &str,
        address: &GrpcAddress,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        match address {
            GrpcAddress::Unix(path) => Ok(Self::Unix(UnixListenerStream::new(bind_unix(path)?))),
            GrpcAddress::Tcp(address) => {
                let listener = bind_tcp(field, *address).await?;
                // Replies are small: the next one must not wait until Envoy has acknowledged
                // the last.
                let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
                match tls {
                    None => Ok(Self::Tcp(connections)),
                    Some(files) => {
                        // Fail at the start if they cannot be used.
                        let config = server_config(files)?;
                        Ok(Self::Tls(encrypted(connections, Identity::new(files, config))))
                    }
                }
            }
        }
    }
}

pub(crate) async fn bind_tcp(field: &str, address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address}: choose another {field}, or stop the program that uses it"
        )
    })
}

fn bind_unix(path: &Path) -> Result<UnixListener> {
    match UnixStream::connect(path) {
        Ok(_) => bail!("cannot listen on {}: another process already does", path.display()),
        // Left by a process that was killed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)
            .with_context(|| format!("cannot remove the old socket {}", path.display()))?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).with_context(|| {
        format!(
            "cannot listen on {}: its directory must exist and be writable, and the path must \
             not be another file",
            path.display()
        )
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
        .with_context(|| format!("cannot let the group use {}", path.display()))?;
    Ok(listener)
}

fn encrypted(
    connections: TcpIncoming,
    identity: Identity,
) -> BoxStream<'static, io::Result<TlsStream<TcpStream>>> {
    let identity = Arc::new(identity);
    connections
        .map(move |connection| accept(connection, Arc::clone(&identity)))
        .buffer_unordered(HANDSHAKES_AT_ONCE_MAX)
        .flat_map(stream::iter)
        .boxed()
}

/// `None` for a client that was rejected.
async fn accept(
    connection: io::Result<TcpStream>,
    identity: Arc<Identity>,
) -> Option<io::Result<TlsStream<TcpStream>>> {
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => return Some(Err(error)),
    };
    let client = connection.peer_addr().ok().map(|address| address.to_string());
    match timeout(HANDSHAKE_TIMEOUT, handshake(&identity, connection)).await {
        Ok(Ok(encrypted)) => return Some(Ok(encrypted)),
        Ok(Err(error)) => warn!(client, error = format!("{error:#}"), "TLS handshake failed"),
        Err(_) => warn!(client, "TLS handshake not finished within {HANDSHAKE_TIMEOUT:?}"),
    }
    None
}

async fn handshake(identity: &Identity, connection: TcpStream) -> Result<TlsStream<TcpStream>> {
    let config = identity.config().await?;
    Ok(TlsAcceptor::from(config).accept(connection).await?)
}

/// The certificates of the service, which are read for each connection.
struct Identity {
    files: TlsFiles,
    reads: OneAtATime<Result<ServerConfig>>,
    /// For as long as the files cannot be read because their disk hangs.
    last: Mutex<Arc<ServerConfig>>,
}

impl Identity {
    fn new(files: &TlsFiles, config: ServerConfig) -> Self {
        let last = Mutex::new(Arc::new(config));
        Self { files: files.clone(), reads: OneAtATime::default(), last }
    }

    async fn config(&self) -> Result<Arc<ServerConfig>> {
        let files = self.files.clone();
        let read = self.reads.run(READ_LIMIT, move || server_config(&files)).await.transpose()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read {
            *last = Arc::new(read);
        }
        Ok(Arc::clone(&last))
    }
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates("grpc_client_ca_file", &files.client_ca)? {
        roots.add(certificate)?;
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .context("server.grpc_client_ca_file")?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| unreadable("grpc_key_file", "a private key", &files.key))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates("grpc_certificate_file", &files.certificate)?, key)
        .context("server.grpc_certificate_file and server.grpc_key_file")?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(field: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = || CertificateDer::pem_file_iter(path)?.collect::<Result<Vec<_>, _>>();
    let certificates = read().with_context(|| unreadable(field, "certificates", path))?;
    if certificates.is_empty() {
        bail!(unreadable(field, "certificates", path));
    }
    Ok(certificates)
}

fn unreadable(field: &str, what: &str, path: &Path) -> String {
    format!("server.{field}: {} must be readable and hold {what} as PEM", path.display())
}
