//! TLS of connections: which servers are trusted, by `sslmode`.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{
        WebPkiSupportedAlgorithms, ring::default_provider, verify_tls12_signature,
        verify_tls13_signature,
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::{Certificates, SslMode};

/// `None` if connections are not encrypted. `ca`: see `Database`.
pub(super) fn connector(
    mode: SslMode,
    ca: &Certificates,
) -> Result<Option<MakeRustlsConnect>, String> {
    let provider = Arc::new(default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let algorithms = provider.signature_verification_algorithms;
    let config = match mode {
        SslMode::Disable => return Ok(None),
        SslMode::VerifyFull => config.with_root_certificates(roots(ca)?).with_no_client_auth(),
        SslMode::VerifyCa => {
            let chain = WebPkiServerVerifier::builder_with_provider(roots(ca)?.into(), provider)
                .build()
                .map_err(|error| error.to_string())?;
            lenient(config, Lenient { chain: Some(chain), algorithms })
        }
        SslMode::Require => lenient(config, Lenient { chain: None, algorithms }),
    };
    Ok(Some(MakeRustlsConnect::new(config)))
}

fn roots(ca: &Certificates) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match ca.is_empty() {
        true => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        false => roots.add_parsable_certificates(ca.iter().cloned()),
    };
    match roots.is_empty() {
        true => Err("this system has no CA certificates: install the package ca-certificates, or \
                     set store.ca_file"
            .to_owned()),
        false => Ok(roots),
    }
}

fn lenient(
    config: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
    verifier: Lenient,
) -> ClientConfig {
    config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth()
}

/// Accepts a certificate for any name.
#[derive(Debug)]
struct Lenient {
    /// Checks that a CA has signed it; `None` accepts every certificate.
    chain: Option<Arc<WebPkiServerVerifier>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        // The name is checked last.
        match chain.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
