//! Throw-away certificates.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A CA for one run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub certificate: String,
}

/// A certificate and its key, both PEM.
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

    pub fn issue(&self, name: &str) -> Result<Identity> {
        self.issue_for(&[name])
    }

    /// For several names or addresses of one server.
    pub(crate) fn issue_for(&self, names: &[&str]) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let mut params =
            CertificateParams::new(names.iter().copied().map(str::to_owned).collect::<Vec<_>>())?;
        // With the authority's own name it would pass for self-signed.
        params.distinguished_name.push(DnType::CommonName, names.concat());
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}

impl Identity {
    /// Writes it as Kubernetes does: all files change in one step.
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
