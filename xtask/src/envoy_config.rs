//! The configuration that ships, fitted to this checkout.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::ports::{Ports, STANDARD};
use crate::workspace;

/// Where the shipped file expects the module.
const MODULE: &str = "/etc/envoy/edgerunner_filter.wasm";

/// Writes `envoy/envoy.yaml` to `directory`, unchanged but for the module's
/// path and the ports.
pub(crate) fn write(directory: &Path, module: &Path, ports: &Ports) -> Result<PathBuf> {
    let source = workspace::root().join("envoy/envoy.yaml");
    let shipped = std::fs::read_to_string(&source)
        .with_context(|| format!("cannot read {}", source.display()))?;
    let path = directory.join("envoy.yaml");
    std::fs::write(&path, fitted(&shipped, module, ports)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

fn fitted(shipped: &str, module: &Path, ports: &Ports) -> Result<String> {
    if !shipped.contains(MODULE) {
        bail!("envoy/envoy.yaml does not name {MODULE} any more");
    }
    let mut text = shipped.replace(MODULE, &module.display().to_string());
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
    fn a_file_that_moved_on_is_an_error() {
        assert!(fitted("port_value: 8080", Path::new("/m.wasm"), &STANDARD).is_err());
    }
}
