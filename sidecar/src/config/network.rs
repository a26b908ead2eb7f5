//! How GitHub is reached: CA certificates and the proxy.

use std::path::Path;

use http::Uri;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use secrecy::SecretString;

use super::{
    GitHub,
    document::{Document, Origin},
    proxy::Proxy,
};
use crate::blocking::read_file;

/// A file with the CA certificates of a whole system has a quarter of it.
pub(super) const PEM_BYTES_MAX: u64 = 1 << 20;

const PROXY: &str = "/github/proxy_url";
const VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// CA certificates that are trusted in addition to the system's.
pub(crate) type Certificates = Vec<CertificateDer<'static>>;

/// Defaults for credentials without their own settings.
pub(super) struct Network {
    pub(super) ca: Certificates,
    proxy_url: Option<SecretString>,
    no_proxy: String,
}

impl Document {
    pub(super) fn read_network(
        &mut self,
        github: &GitHub,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Network {
        let variable = |names: [&'static str; 2]| {
            let set = names.into_iter().find_map(|name| Some((name, env(name)?)));
            set.filter(|(_, value)| !value.is_empty())
        };
        let mut proxy_url = github.proxy_url.clone();
        if proxy_url.is_none()
            && let Some((name, value)) = variable(VARIABLES)
        {
            self.set_origin(PROXY, Origin::Variable(name.to_owned()));
            proxy_url = Some(value.into());
        }
        let anywhere = Uri::from_static("https://api.github.com");
        if let Some(Err(problem)) = proxy_url.as_ref().map(|url| Proxy::to(&anywhere, url, "")) {
            self.error(PROXY, problem);
        }
        let no_proxy = variable(EXCEPTIONS).map(|(_, value)| value).unwrap_or_default();
        Network { ca: self.read_ca("/github", github.ca_file.as_deref()), proxy_url, no_proxy }
    }

    pub(super) fn read_ca(&mut self, table: &str, file: Option<&Path>) -> Certificates {
        let read = file.map_or(Ok(Certificates::new()), read_ca);
        read.unwrap_or_else(|problem| {
            self.error(&format!("{table}/ca_file"), problem);
            Certificates::new()
        })
    }

    pub(super) fn proxy_to(
        &mut self,
        api_url: &str,
        Network { proxy_url, no_proxy, .. }: &Network,
    ) -> Option<Proxy> {
        let (url, api_url) = (proxy_url.as_ref()?, api_url.parse().ok()?);
        match Proxy::to(&api_url, url, no_proxy) {
            Ok(proxy) => proxy,
            Err(problem) => {
                // The environment variable is for all programs, so an unusable one is ignored;
                // an unusable setting is an error.
                if self.get(PROXY).is_some() {
                    self.error(PROXY, problem);
                }
                None
            }
        }
    }
}

/// Reads CA certificates from a PEM file.
pub(crate) fn read_ca(file: &Path) -> Result<Certificates, String> {
    let pem = read_file(file, PEM_BYTES_MAX)
        .map_err(|error| format!("cannot read that file: {error}"))?;
    if pem.is_empty() {
        return Err(
            "that file is empty: write the CA's certificate into it, in PEM format".to_owned()
        );
    }
    let certificates: Certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("that file is not PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("there is no certificate in that file: write the CA's, in PEM format, which \
                    begins with -----BEGIN CERTIFICATE-----"
            .to_owned());
    }
    let mut roots = RootCertStore::empty();
    for certificate in &certificates {
        roots.add(certificate.clone()).map_err(|error| {
            format!("a certificate in that file is not usable as a CA: {error}")
        })?;
    }
    Ok(certificates)
}
