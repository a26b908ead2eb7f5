//! Whom we believe to be GitHub.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, pem::PemObject as _},
};

pub(crate) type Certificates = Vec<CertificateDer<'static>>;

/// Those of CAs in a PEM.
pub(crate) fn read_ca(file: &Path) -> Result<Certificates, String> {
    let pem = fs::read(file).map_err(|error| format!("cannot read that file: {error}"))?;
    if pem.is_empty() {
        return Err("that file is empty: write the CA's certificate into it, a PEM".to_owned());
    }
    let certificates: Certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("that file is no PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate in that file: write the CA's, a PEM that begins \
                    with -----BEGIN CERTIFICATE-----"
            .to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| {
            format!("a certificate in that file cannot be that of a CA: {error}")
        })?;
    }
    Ok(certificates)
}

/// Trusts the system's CAs and these.
pub(crate) fn client_config(ca: &Certificates) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots.add_parsable_certificates(ca.iter().cloned());
    if roots.is_empty() {
        return Err("no CA is known: install the package ca-certificates".to_owned());
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
