//! Listeners: TCP with or without mutual TLS, or a Unix socket.

use std::{
    fs,
    future::pending,
    io,
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
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::TcpIncoming;
use tracing::warn;

use crate::{
    blocking::OneAtATime,
    config::{ListenAddress, TlsFiles},
};

/// The socket's group may connect, since Envoy runs as another user.
const SOCKET_MODE: u32 = 0o660;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// For the certificates, within that time.
const READ_LIMIT: Duration = Duration::from_secs(2);
/// Clients that never finish a handshake must not keep Envoy out.
const HANDSHAKES_AT_ONCE_MAX: usize = 64;
/// After a connection could not be accepted: the usual cause is that no file descriptor is free.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_secs(1);

const HTTP_2: &[&[u8]] = &[b"h2"];
const HTTP_2_OR_1: &[&[u8]] = &[b"h2", b"http/1.1"];

pub(crate) enum Listener {
    Tcp(TcpIncoming),
    Tls(BoxStream<'static, io::Result<TlsStream<TcpStream>>>),
    Unix(UnixListenerStream),
}

impl Listener {
    pub(crate) async fn bind(
        field: &str,
        address: &ListenAddress,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        match address {
            ListenAddress::Unix(path) => Ok(Self::Unix(UnixListenerStream::new(bind_unix(path)?))),
            ListenAddress::Tcp(address) => {
                let listener = bind_tcp(field, *address).await?;
                // Replies are small: the next one must not wait until Envoy has acknowledged
                // the last.
                let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
                match tls {
                    None => Ok(Self::Tcp(connections)),
                    Some(files) => {
                        let identity = Identity::new(files, HTTP_2)?;
                        Ok(Self::Tls(encrypted(connections, identity)))
                    }
                }
            }
        }
    }
}

/// A connection of any kind.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A listener for HTTP that only those reach who have the socket's group or a certificate.
pub(crate) struct ClosedListener(BoxStream<'static, io::Result<Box<dyn Connection>>>);

impl ClosedListener {
    /// `tls`: for an address and port.
    pub(crate) async fn bind(
        field: &str,
        address: &ListenAddress,
        tls: Option<&TlsFiles>,
    ) -> Result<Self> {
        fn boxed(connection: impl Connection + 'static) -> Box<dyn Connection> {
            Box::new(connection)
        }
        let connections = match (address, tls) {
            (ListenAddress::Unix(path), _) => {
                let connections = UnixListenerStream::new(bind_unix(path)?);
                connections.map(|connection| connection.map(boxed)).boxed()
            }
            (ListenAddress::Tcp(address), Some(files)) => {
                let identity = Identity::new(files, HTTP_2_OR_1)?;
                let listener = bind_tcp(field, *address).await?;
                let connections = TcpIncoming::from(listener).with_nodelay(Some(true));
                encrypted(connections, identity).map(|it| it.map(boxed)).boxed()
            }
            (ListenAddress::Tcp(_), None) => bail!("{field}: a port needs mutual TLS"),
        };
        Ok(Self(connections))
    }
}

impl axum::serve::Listener for ClosedListener {
    type Io = Box<dyn Connection>;
    /// Whoever connects is the same Envoy.
    type Addr = ();

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.0.next().await {
                Some(Ok(connection)) => return (connection, ()),
                Some(Err(error)) => {
                    warn!(%error, "a connection was not accepted");
                    sleep(ACCEPT_AGAIN_AFTER).await;
                }
                None => pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(())
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
    /// In the order in which they are preferred.
    protocols: &'static [&'static [u8]],
    reads: OneAtATime<Result<ServerConfig>>,
    /// For as long as the files cannot be read because their disk hangs.
    last: Mutex<Arc<ServerConfig>>,
}

impl Identity {
    /// Fails if the files cannot be used.
    fn new(files: &TlsFiles, protocols: &'static [&'static [u8]]) -> Result<Self> {
        let last = Mutex::new(Arc::new(server_config(files, protocols)?));
        Ok(Self { files: files.clone(), protocols, reads: OneAtATime::default(), last })
    }

    async fn config(&self) -> Result<Arc<ServerConfig>> {
        let (files, protocols) = (self.files.clone(), self.protocols);
        let read = self.reads.run(READ_LIMIT, move || server_config(&files, protocols));
        let read = read.await.transpose()?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(read) = read {
            *last = Arc::new(read);
        }
        Ok(Arc::clone(&last))
    }
}

fn server_config(files: &TlsFiles, protocols: &[&[u8]]) -> Result<ServerConfig> {
    let field = |name: &str| format!("server.{}_{name}", files.setting);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&field("client_ca_file"), &files.client_ca)? {
        roots.add(certificate)?;
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .with_context(|| field("client_ca_file"))?;
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .with_context(|| unreadable(&field("key_file"), "a private key", &files.key))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(certificates(&field("certificate_file"), &files.certificate)?, key)
        .with_context(|| format!("{} and {}", field("certificate_file"), field("key_file")))?;
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
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
    format!("{field}: {} must be readable and hold {what} as PEM", path.display())
}
