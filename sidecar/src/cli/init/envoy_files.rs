//! The files for Envoy: those that ship, with this installation's paths.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use serde_json::json;

use super::{
    answers::Edge,
    files::{File, NewFiles},
};

/// Plain HTTP on loopback, to a sidecar on a port of loopback.
const PROXY: &str = include_str!("../../../../envoy/envoy.yaml");
/// TLS, to a sidecar on a Unix socket.
const TLS: &str = include_str!("../../../../envoy/unix-socket.yaml");
const CERTIFICATE: &str = include_str!("../../../../envoy/sds/server.yaml");
const ADDRESSES: &str = include_str!("../../../../envoy/github_addresses.yaml");

/// Of a Unix socket's address, in bytes.
const SOCKET_BYTES_MAX: usize = 107;

/// The filter, as those files name it.
pub(super) const FILTER: &str = "/etc/envoy/edgerunner_filter.wasm";

/// The socket between Envoy and the sidecar, if they use one.
pub(super) fn socket(edge: &Edge, directory: &Path) -> Option<PathBuf> {
    matches!(edge, Edge::Tls { .. }).then(|| directory.join("grpc.sock"))
}

/// Before anything is written.
pub(super) fn check(edge: &Edge, new: &NewFiles) -> Result<()> {
    if let Some(socket) = socket(edge, new.directory())
        && socket.as_os_str().len() > SOCKET_BYTES_MAX
    {
        bail!(
            "{} is too long for the address of a socket: choose a --directory with a shorter path",
            socket.display()
        );
    }
    Ok(())
}

pub(super) fn add(edge: &Edge, new: &mut NewFiles) -> Result<()> {
    let (certificate, key) = match edge {
        Edge::Polling => return Ok(()),
        Edge::Proxy { .. } => {
            new.add(File::Envoy, PROXY.to_owned());
            return Ok(());
        }
        Edge::Tls { certificate, key, .. } => (certificate, key),
    };
    let socket = socket(edge, new.directory()).unwrap_or_default();
    let paths = [
        ("/etc/envoy/sds/server.yaml", new.path(File::EnvoyCertificate)),
        ("/etc/envoy/github_addresses.yaml", new.path(File::GithubAddresses)),
        ("/run/edgerunner/grpc.sock", socket),
    ];
    new.add(File::Envoy, with_paths(TLS, &paths)?);
    let directory = certificate.parent().unwrap_or(Path::new("/")).to_owned();
    let paths = [
        ("/etc/envoy/tls/server/tls.crt", certificate.clone()),
        ("/etc/envoy/tls/server/tls.key", key.clone()),
        ("/etc/envoy/tls/server", directory),
    ];
    new.add(File::EnvoyCertificate, with_paths(CERTIFICATE, &paths)?);
    new.add(File::GithubAddresses, ADDRESSES.to_owned());
    Ok(())
}

/// Replaces paths that ship. A text in JSON is one in YAML as well.
fn with_paths(text: &str, paths: &[(&str, PathBuf)]) -> Result<String> {
    let mut text = text.to_owned();
    for (shipped, path) in paths {
        ensure!(text.contains(shipped), "the file for Envoy does not name {shipped}");
        let Some(path) = path.to_str() else {
            bail!("{}: the path is not UTF-8; choose another", path.display())
        };
        text = text.replace(shipped, &json!(path).to_string());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_that_ships_is_replaced_but_that_of_the_filter() {
        let directory = tempfile::tempdir().unwrap();
        let mut new = NewFiles::in_directory(&directory.path().join("b \"c")).unwrap();
        let edge = Edge::Tls {
            url: "https://h.example.com".into(),
            certificate: "/certs/full chain.pem".into(),
            key: "/keys/key.pem".into(),
        };
        add(&edge, &mut new).unwrap();
        let written = new.write().unwrap();
        let read = |file| std::fs::read_to_string(written.path(file)).unwrap();
        let envoy = read(File::Envoy);
        let code = envoy.lines().filter(|line| !line.trim_start().starts_with('#'));
        let named: Vec<&str> = code.filter(|line| line.contains("/etc/envoy")).collect();
        assert_eq!(named.len(), 1, "{named:?}");
        assert!(named[0].ends_with(FILTER), "{named:?}");
        assert!(!envoy.contains("/run/edgerunner"));
        assert!(envoy.contains(r#"b \"c/grpc.sock""#));
        let certificate = read(File::EnvoyCertificate);
        for line in [
            r#"filename: "/certs/full chain.pem""#,
            r#"filename: "/keys/key.pem""#,
            r#"path: "/certs""#,
        ] {
            assert!(certificate.contains(line), "{line}: {certificate}");
        }
        assert!(!certificate.contains("/etc/envoy/tls"));
        assert!(PROXY.contains(FILTER));
    }

    #[test]
    fn a_directory_too_deep_for_a_socket_is_refused() {
        let new = NewFiles::in_directory(&Path::new("/").join("x".repeat(120))).unwrap();
        let edge = Edge::Tls { url: String::new(), certificate: "/c".into(), key: "/k".into() };
        assert!(check(&edge, &new).unwrap_err().to_string().contains("shorter path"));
        let proxy = Edge::Proxy { url: String::new() };
        assert!(check(&proxy, &new).is_ok());
    }
}
