//! Throw-away certificates, for tests and for `cargo xtask up --tls`.

use std::path::Path;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

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
