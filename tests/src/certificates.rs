//! Throw-away certificates, and how a test speaks TLS.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub certificate: String,
}

/// A certificate and its key, PEM each.
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// For whoever is called so.
    pub fn issue(&self, name: &str) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new([name.to_owned()])?;
        // One that bore the authority's own name would pass for self-signed.
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Identity {
    /// In a directory as Kubernetes makes it: what was there is replaced in one step.
    pub fn install(&self, directory: &Path, ca: &Authority) -> Result<()> {
        std::fs::create_dir_all(directory)?;
        let files =
            [("tls.crt", &self.certificate), ("tls.key", &self.key), ("ca.crt", &ca.certificate)];
        let version = format!("..{}", uuid::Uuid::new_v4().simple());
        std::fs::create_dir(directory.join(&version))?;
        for (name, text) in files {
            std::fs::write(directory.join(&version).join(name), text)?;
            let link = directory.join(name);
            if !link.is_symlink() {
                std::os::unix::fs::symlink(Path::new("..data").join(name), link)?;
            }
        }
        let next = directory.join("..next");
        std::os::unix::fs::symlink(&version, &next)?;
        std::fs::rename(next, directory.join("..data"))?;
        Ok(())
    }
}

/// A TLS client that trusts the authority of this certificate alone.
pub(crate) fn client(
    authority: &str,
    identity: Option<&Identity>,
    protocol: &str,
) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some(identity) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(identity.certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes())?,
        )?,
    };
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

pub(crate) async fn connect(
    address: SocketAddr,
    name: &'static str,
    connector: &TlsConnector,
) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    connector.connect(ServerName::try_from(name)?, stream).await.context("no TLS handshake")
}
