//! `envoy/production.yaml` and its certificates, on the loopback interface alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use edgerunner_certificates::Authority;
use tokio::process::Command;

use crate::ports::{Ports, local};
use crate::workspace;

/// Where the shipped files expect all that they read.
const ETC: &str = "/etc/envoy";
/// What sidecars are called in their certificates.
const SIDECAR_NAME: &str = "edgerunner";
/// Nobody listens there: there is no standby, as when it is away.
const NO_STANDBY: u16 = 1;

pub(crate) struct Production {
    directory: PathBuf,
}

impl Production {
    /// Writes everything anew, certificates included.
    pub(crate) fn write(directory: &Path, module: &Path, ports: &Ports) -> Result<Self> {
        let production = Self { directory: directory.join("production") };
        let authority = Authority::new()?;
        let server = local(ports.envoy).ip().to_string();
        for (name, directory) in [
            (&*server, production.etc().join("tls/server")),
            ("envoy", production.etc().join("tls/sidecar")),
            (SIDECAR_NAME, production.sidecar_tls()),
        ] {
            authority.issue(name)?.install(&directory, &authority)?;
        }
        for name in [
            "github_addresses.yaml",
            "sds/server.yaml",
            "sds/sidecar_ca.yaml",
            "sds/sidecar_client.yaml",
        ] {
            production.install(name, &shipped(name)?)?;
        }
        let configuration = fitted(&shipped("production.yaml")?, module, ports)?;
        production.install("production.yaml", &configuration)?;
        Ok(production)
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.etc().join("production.yaml")
    }

    /// The CA that signed what Envoy shows.
    pub(crate) fn ca(&self) -> PathBuf {
        self.etc().join("tls/server/ca.crt")
    }

    /// Has the sidecar demand a certificate of this CA.
    pub(crate) fn secure(&self, sidecar: &mut Command) {
        for (name, file) in [
            ("SERVER_GRPC_CERTIFICATE_FILE", "tls.crt"),
            ("SERVER_GRPC_KEY_FILE", "tls.key"),
            ("SERVER_GRPC_CLIENT_CA_FILE", "ca.crt"),
        ] {
            sidecar.env(name, self.sidecar_tls().join(file));
        }
    }

    /// Stands for `/etc/envoy`.
    fn etc(&self) -> PathBuf {
        self.directory.join("envoy")
    }

    fn sidecar_tls(&self) -> PathBuf {
        self.directory.join("edgerunner/tls")
    }

    fn install(&self, name: &str, text: &str) -> Result<()> {
        let path = self.etc().join(name);
        let write = || {
            std::fs::create_dir_all(path.parent().unwrap_or(&path))?;
            std::fs::write(&path, text.replace(ETC, &self.etc().display().to_string()))
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

fn shipped(name: &str) -> Result<String> {
    let path = workspace::root().join("envoy").join(name);
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn fitted(shipped: &str, module: &Path, ports: &Ports) -> Result<String> {
    let listener =
        |address: &str, port: u16| format!("address: {address}\n          port_value: {port}\n");
    let sidecar = |address: &str, port: u16| {
        format!("address: {address}\n                      port_value: {port}\n")
    };
    let on_loopback = |shape: &dyn Fn(&str, u16) -> String, port: u16| {
        let address: SocketAddr = local(port);
        shape(&address.ip().to_string(), address.port())
    };
    let module_path = format!("{ETC}/edgerunner_filter.wasm");
    let mut text = shipped.to_owned();
    for (from, to) in [
        (module_path, module.display().to_string()),
        (listener("0.0.0.0", 8443), on_loopback(&listener, ports.envoy)),
        ("port_value: 9901".to_owned(), format!("port_value: {}", ports.envoy_admin)),
        (sidecar("edgerunner-1", 50051), on_loopback(&sidecar, ports.grpc)),
        (sidecar("edgerunner-2", 50051), on_loopback(&sidecar, NO_STANDBY)),
    ] {
        if !shipped.contains(&from) {
            bail!("envoy/production.yaml does not have `{from}` any more");
        }
        text = text.replace(&from, &to);
    }
    Ok(text)
}
