//! The configurations in `envoy/`, adapted to this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

pub const ENVOY_YAML: &str = include_str!("../../envoy/envoy.yaml");

/// Paths in the files that ship.
const MODULE: &str = "/etc/envoy/edgerunner_filter.wasm";
const ETC: &str = "/etc/envoy";

/// The comments that show how another sidecar is added.
const OTHER: &str =
    "# - endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 50052}}}";
const OTHER_BY_TLS: &str =
    "# - endpoint: {address: {socket_address: {address: edgerunner-2, port_value: 50051}}}";

/// How Envoy reaches the sidecars. Each way has its own file.
pub enum Sidecars {
    /// `envoy.yaml`
    Plain(Vec<SocketAddr>),
    /// `production.yaml`: TLS, and mutual TLS to the sidecars.
    MutualTls(Vec<SocketAddr>),
    /// `unix-socket.yaml`: TLS, and one sidecar behind a Unix socket.
    UnixSocket(PathBuf),
}

impl Sidecars {
    pub fn count(&self) -> u64 {
        match self {
            Self::Plain(sidecars) | Self::MutualTls(sidecars) => sidecars.len() as u64,
            Self::UnixSocket(_) => 1,
        }
    }

    pub(crate) fn shipped(&self) -> &'static str {
        match self {
            Self::Plain(_) => ENVOY_YAML,
            Self::MutualTls(_) => include_str!("../../envoy/production.yaml"),
            Self::UnixSocket(_) => include_str!("../../envoy/unix-socket.yaml"),
        }
    }

    fn replacements(&self, listener: SocketAddr) -> Vec<(String, String)> {
        let tls = (
            "address: 0.0.0.0\n          port_value: 8443".to_owned(),
            format!("address: {}\n          port_value: {}", listener.ip(), listener.port()),
        );
        match self {
            Self::Plain(sidecars) => {
                let listener =
                    ("port_value: 8080".to_owned(), format!("port_value: {}", listener.port()));
                let endpoint = |port: u16| format!("port_value: {port}");
                endpoints(sidecars, |sidecar| (endpoint(50051), endpoint(sidecar.port())), OTHER)
                    .chain([listener])
                    .collect()
            }
            Self::MutualTls(sidecars) => {
                let endpoint = |host: &str, port: u16| {
                    format!("address: {host}\n                      port_value: {port}")
                };
                let first = |sidecar: SocketAddr| {
                    let host = sidecar.ip().to_string();
                    (endpoint("edgerunner", 50051), endpoint(&host, sidecar.port()))
                };
                endpoints(sidecars, first, OTHER_BY_TLS).chain([tls]).collect()
            }
            Self::UnixSocket(path) => {
                let socket = ("/run/edgerunner/grpc.sock".to_owned(), path.display().to_string());
                vec![tls, socket]
            }
        }
    }
}

/// What the first sidecar replaces, and the lines of the others in place of the comment.
fn endpoints(
    sidecars: &[SocketAddr],
    first: impl Fn(SocketAddr) -> (String, String),
    comment: &str,
) -> impl Iterator<Item = (String, String)> {
    let (one, others) = match sidecars {
        [one, others @ ..] => (Some(first(*one)), others),
        [] => (None, sidecars),
    };
    let lines = others.iter().map(|other| {
        let (address, port) = (other.ip(), other.port());
        format!("- endpoint: {{address: {{socket_address: {{address: {address}, port_value: {port}}}}}}}")
    });
    let lines = lines.collect::<Vec<_>>().join("\n              ");
    let others = (!lines.is_empty()).then(|| (comment.to_owned(), lines));
    one.into_iter().chain(others)
}

/// `text` with this machine's ports and paths. `changes` are further replacements.
pub fn adapted(
    text: &str,
    sidecars: &Sidecars,
    (listener, admin): (SocketAddr, SocketAddr),
    (module, etc): (&Path, &Path),
    changes: &[(String, String)],
) -> Result<String> {
    let mut replacements = sidecars.replacements(listener);
    let admin = format!("port_value: {}", admin.port());
    replacements.push(("port_value: 9901".to_owned(), admin));
    // A configuration without the filter has no module.
    if text.contains(MODULE) {
        let module = module.to_str().context("the module's path is not UTF-8")?;
        replacements.push((MODULE.to_owned(), module.to_owned()));
    }
    replacements.extend_from_slice(changes);
    Ok(in_etc(&replaced(text, &replacements)?, etc))
}

/// Writes the files that a configuration with TLS includes.
pub(crate) fn install_includes(etc: &Path) -> Result<()> {
    let files = [
        ("github_addresses.yaml", include_str!("../../envoy/github_addresses.yaml")),
        ("sds/server.yaml", include_str!("../../envoy/sds/server.yaml")),
        ("sds/sidecar_ca.yaml", include_str!("../../envoy/sds/sidecar_ca.yaml")),
        ("sds/sidecar_client.yaml", include_str!("../../envoy/sds/sidecar_client.yaml")),
    ];
    std::fs::create_dir_all(etc.join("sds"))?;
    for (name, text) in files {
        std::fs::write(etc.join(name), in_etc(text, etc))?;
    }
    Ok(())
}

/// `text` with the directory `etc` in place of Envoy's.
pub fn in_etc(text: &str, etc: &Path) -> String {
    text.replace(ETC, &etc.display().to_string())
}

/// Replaces all texts at once. Each has to occur exactly once.
pub fn replaced(shipped: &str, replacements: &[(String, String)]) -> Result<String> {
    let mut places = Vec::new();
    for (from, to) in replacements {
        let count = shipped.matches(from.as_str()).count();
        ensure!(count == 1, "the configuration has `{from}` {count} times instead of once");
        places.push((shipped.find(from.as_str()).unwrap_or_default(), from.len(), to));
    }
    // From the end, so that earlier offsets stay valid.
    places.sort_unstable_by_key(|(at, ..)| std::cmp::Reverse(*at));
    let mut text = shipped.to_owned();
    for (at, length, to) in places {
        text.replace_range(at..at + length, to);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::local;

    fn plain(text: &str, [listener, admin, grpc]: [u16; 3]) -> Result<String> {
        let addresses = (local(listener), local(admin));
        let paths = (Path::new("/m.wasm"), Path::new("/etc/envoy"));
        adapted(text, &Sidecars::Plain(vec![local(grpc)]), addresses, paths, &[])
    }

    #[test]
    fn ports_may_change_places() {
        let shipped = "a: { port_value: 8080 }\nb:\n  port_value: 9901\nc: {port_value: 50051}\n\
                       module: /etc/envoy/edgerunner_filter.wasm\n";
        assert_eq!(
            plain(shipped, [9901, 50051, 8080]).unwrap(),
            "a: { port_value: 9901 }\nb:\n  port_value: 50051\nc: {port_value: 8080}\nmodule: /m.wasm\n"
        );
    }

    #[test]
    fn each_sidecar_is_an_endpoint() {
        let adapted = |sidecars: &Sidecars| {
            let addresses = (local(1), local(2));
            let paths = (Path::new("/m.wasm"), Path::new("/etc/envoy"));
            adapted(sidecars.shipped(), sidecars, addresses, paths, &[]).unwrap()
        };
        let ports = [11, 12, 13];
        let addresses = ports.map(local).to_vec();
        for sidecars in [Sidecars::Plain(addresses.clone()), Sidecars::MutualTls(addresses)] {
            let text = adapted(&sidecars);
            let (_, cluster) = text.split_once("- name: edgerunner_sidecar").unwrap();
            for port in ports {
                let lines = cluster.lines().filter(|line| !line.trim_start().starts_with('#'));
                let of_port = lines.filter(|line| line.contains(&format!("port_value: {port}")));
                assert_eq!(of_port.count(), 1, "{cluster}");
            }
        }
    }

    #[test]
    fn a_text_that_no_longer_occurs_is_an_error() {
        assert!(plain("port_value: 8080", [1, 2, 3]).is_err());
    }
}
