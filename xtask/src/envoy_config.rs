//! The configuration that ships, fitted to this checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ports::{Ports, STANDARD};
use crate::workspace;

/// Where the shipped file expects the module.
const MODULE: &str = "/etc/envoy/edgerunner_filter.wasm";

// What surrounds the filter and its route in the shipped file.
const FILTER: &str = "- name: edgerunner\n                    typed_config:\n";
const ROUTER: &str = "- name: envoy.filters.http.router\n";
const ROUTE: &str = "route:\n                            cluster: nowhere\n                            timeout: 5s\n";
const BUFFER: &str = r#"- name: envoy.filters.http.buffer
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer
                      max_request_bytes: 27262976
                  "#;

/// Writes `envoy/envoy.yaml` to `directory`, unchanged but for the module's
/// path and the ports.
pub(crate) fn write(directory: &Path, module: &Path, ports: &Ports) -> Result<PathBuf> {
    written(directory, &fitted(&shipped()?, module, ports)?)
}

/// Whether an Envoy without the filter reads a body before it answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bodies {
    Unread,
    Read,
}

/// Writes the same to `directory`, but with Envoy itself answering 401 and
/// `answer` where the filter would be asked.
pub(crate) fn write_plain(
    directory: &Path,
    ports: &Ports,
    bodies: Bodies,
    answer: &str,
) -> Result<PathBuf> {
    let plain = plain(&shipped()?, bodies, answer)?;
    written(directory, &with_ports(plain, ports)?)
}

fn shipped() -> Result<String> {
    let source = workspace::root().join("envoy/envoy.yaml");
    std::fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))
}

fn written(directory: &Path, text: &str) -> Result<PathBuf> {
    let path = directory.join("envoy.yaml");
    std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&path, text))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn plain(shipped: &str, bodies: Bodies, answer: &str) -> Result<String> {
    let parts = (|| {
        let (before, rest) = shipped.split_once(FILTER)?;
        let (_, rest) = rest.split_once(ROUTER)?;
        let (between, after) = rest.split_once(ROUTE)?;
        Some((before, between, after))
    })();
    let Some((before, between, after)) = parts else {
        bail!("envoy/envoy.yaml does not have the filter before the router any more");
    };
    let buffer = match bodies {
        Bodies::Unread => "",
        Bodies::Read => BUFFER,
    };
    let answer = format!(
        "direct_response: {{ status: 401, body: {{ inline_string: {} }} }}\n",
        serde_json::to_string(answer)?
    );
    Ok([before, buffer, ROUTER, between, &answer, after].concat())
}

fn fitted(shipped: &str, module: &Path, ports: &Ports) -> Result<String> {
    if !shipped.contains(MODULE) {
        bail!("envoy/envoy.yaml does not name {MODULE} any more");
    }
    with_ports(shipped.replace(MODULE, &module.display().to_string()), ports)
}

fn with_ports(mut text: String, ports: &Ports) -> Result<String> {
    // Marked first: a new port may be the number of one still to be replaced.
    let replacements = [
        (STANDARD.envoy, ports.envoy),
        (STANDARD.envoy_admin, ports.envoy_admin),
        (STANDARD.grpc, ports.grpc),
    ];
    for (standard, port) in replacements {
        let key = format!("port_value: {standard}");
        if !text.contains(&key) {
            bail!("envoy/envoy.yaml does not name port {standard} any more");
        }
        text = text.replace(&key, &format!("port_value: @{port}"));
    }
    Ok(text.replace("port_value: @", "port_value: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = "a: { port_value: 8080 }\nb:\n  port_value: 9901\nc: {port_value: 50051}\n\
                           module: /etc/envoy/edgerunner_filter.wasm\n";

    #[test]
    fn ports_may_change_places() {
        let ports = Ports { envoy: 9901, envoy_admin: 50051, grpc: 8080, ..STANDARD };
        let text = fitted(SHIPPED, Path::new("/m.wasm"), &ports).unwrap();
        assert_eq!(
            text,
            "a: { port_value: 9901 }\nb:\n  port_value: 50051\nc: {port_value: 8080}\nmodule: /m.wasm\n"
        );
    }

    #[test]
    fn the_shipped_file_can_do_without_the_filter() {
        let text = plain(&shipped().unwrap(), Bodies::Read, "no \"way\"").unwrap();
        assert!(!text.contains("wasm.v3"));
        assert!(text.contains("filters.http.buffer"));
        assert!(text.contains(r#"inline_string: "no \"way\"""#));
        assert!(!plain(&shipped().unwrap(), Bodies::Unread, "").unwrap().contains("http.buffer"));
    }

    #[test]
    fn a_file_that_moved_on_is_an_error() {
        assert!(fitted("port_value: 8080", Path::new("/m.wasm"), &STANDARD).is_err());
    }
}
