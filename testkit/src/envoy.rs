//! Envoy with a configuration that ships.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;

use crate::envoy_config::{self, Sidecars};
use crate::eventually::eventually;
use crate::{Authority, Process, Programs, client, ports};

/// The name in Envoy's certificate, in addition to its address.
pub(crate) const SERVER_NAME: &str = "hooks.test";
/// The name in the sidecars' certificates.
pub(crate) const SIDECAR_NAME: &str = "edgerunner";

pub struct Envoy {
    programs: Programs,
    environment: Vec<(String, String)>,
    arguments: Vec<String>,
    process: Process,
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    directory: PathBuf,
    sidecars: u64,
    /// The CA of its certificate, if it speaks TLS.
    pub(crate) authority: Option<Authority>,
    ca: Option<PathBuf>,
}

/// How to start one.
pub struct Settings {
    /// For its files and its log.
    pub directory: PathBuf,
    pub listener: SocketAddr,
    pub admin: SocketAddr,
    pub sidecars: Sidecars,
    /// A configuration in place of the one that ships, with the same ports and paths.
    pub configuration: Option<String>,
    /// Texts in the configuration, each of which occurs once, and their replacements.
    pub changes: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    pub arguments: Vec<String>,
    /// Signs Envoy's certificate, if it is to speak TLS.
    pub authority: Option<Authority>,
}

impl Settings {
    /// With free ports. Issues Envoy's certificate, if it is to speak TLS.
    pub fn new(directory: &Path, sidecars: Sidecars) -> Result<Self> {
        let authority = match sidecars {
            Sidecars::Plain(_) => None,
            Sidecars::MutualTls(_) | Sidecars::UnixSocket(_) => {
                let authority = Authority::new()?;
                install_certificate(&etc(directory), &authority)?;
                Some(authority)
            }
        };
        Ok(Self {
            directory: directory.to_owned(),
            listener: ports::free()?,
            admin: ports::free()?,
            sidecars,
            configuration: None,
            changes: Vec::new(),
            environment: Vec::new(),
            arguments: Vec::new(),
            authority,
        })
    }

    /// The file with the CA of Envoy's certificate, if it is to speak TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.authority.as_ref().map(|_| etc(&self.directory).join("tls/server/ca.crt"))
    }
}

impl Envoy {
    /// Starts it, and waits for nothing.
    pub fn spawn(programs: &Programs, settings: Settings) -> Result<Self> {
        let ca = settings.ca();
        let Settings { directory, listener, admin, sidecars, authority, .. } = settings;
        let (environment, arguments) = (settings.environment, settings.arguments);
        let etc = etc(&directory);
        let path = directory.join("envoy.yaml");
        let configuration = envoy_config::adapted(
            settings.configuration.as_deref().unwrap_or(sidecars.shipped()),
            &sidecars,
            (listener, admin),
            (&programs.module, &etc),
            &settings.changes,
        )?;
        std::fs::write(&path, configuration)
            .with_context(|| format!("cannot write {}", path.display()))?;
        if authority.is_some() {
            envoy_config::install_includes(&etc)?;
        }
        let process = start(programs, &directory, &environment, &arguments)?;
        let sidecars = sidecars.count();
        Ok(Self {
            programs: programs.clone(),
            environment,
            arguments,
            process,
            address: listener,
            admin,
            directory,
            sidecars,
            authority,
            ca,
        })
    }

    /// Ends it and starts it again, with the same configuration. Waits for nothing.
    pub async fn restart(&mut self) -> Result<()> {
        self.process.end(Signal::TERM).await?;
        self.process = start(&self.programs, &self.directory, &self.environment, &self.arguments)?;
        Ok(())
    }

    /// Waits until it serves.
    pub async fn ready(&self) -> Result<()> {
        self.process.answers(self.admin, "/ready").await
    }

    /// Waits until it serves and all sidecars are healthy. It is ready after the first
    /// health check, whatever the result.
    pub async fn ready_with_sidecars(&self) -> Result<()> {
        self.ready().await?;
        eventually("Envoy finds the sidecars healthy", async || {
            let healthy = self.stat("cluster.edgerunner_sidecar.membership_healthy").await?;
            Ok((healthy == self.sidecars).then_some(()))
        })
        .await
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its directory in place of `/etc/envoy`.
    pub fn etc(&self) -> PathBuf {
        etc(&self.directory)
    }

    /// The file with the CA of its certificate, if it speaks TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.ca.as_deref()
    }

    /// Installs a new certificate.
    pub fn renew_certificate(&self) -> Result<()> {
        let authority = self.authority.as_ref().context("this Envoy does not speak TLS")?;
        install_certificate(&self.etc(), authority)
    }

    /// Forgets the counters and the log of those who used it before.
    pub async fn forget(&self) -> Result<()> {
        let answer = client::post(self.admin, "/reset_counters").await?;
        ensure!(answer.status == 200, "{answer:?}");
        let log = File::options().write(true).open(log_path(&self.directory))?;
        Ok(log.set_len(0)?)
    }

    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.stats().await?;
        stats.get(name).copied().with_context(|| format!("no statistic {name}"))
    }

    /// Counters and gauges by name.
    async fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let answer = client::get(self.admin, "/stats").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// Its metrics in Prometheus's format.
    pub async fn prometheus(&self) -> Result<String> {
        Ok(String::from_utf8(client::get(self.admin, "/stats/prometheus").await?.body.into())?)
    }

    /// The line of the access log for one delivery.
    pub async fn access_log_line(&self, guid: &str) -> Result<Value> {
        eventually("the access log has the delivery", async || {
            let log = self.log()?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.into_iter().find(|line| line["delivery"] == guid))
        })
        .await
    }

    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(log_path(&self.directory))?)
    }

    /// Envoy reloads a filter that trapped: good for users, but in a test it must not go
    /// unnoticed.
    pub async fn check_filter(&self) -> Result<()> {
        for name in ["vm_reload", "vm_reload_backoff", "vm_reload_failure", "vm_reload_success"] {
            let count = self.stat(&format!("wasm.edgerunner.{name}")).await?;
            ensure!(count == 0, "the filter trapped: {name} is {count}");
        }
        Ok(())
    }

    pub async fn stop(self) -> Result<()> {
        let status = self.process.end(Signal::TERM).await?;
        ensure!(status.success(), "Envoy ended with {status}");
        Ok(())
    }
}

fn start(
    programs: &Programs,
    directory: &Path,
    environment: &[(String, String)],
    arguments: &[String],
) -> Result<Process> {
    let mut command = programs.command(&programs.envoy);
    command
        .arg("--config-path")
        .arg(directory.join("envoy.yaml"))
        // Hot restart would connect this Envoy to others on the machine.
        .arg("--disable-hot-restart")
        .args(arguments)
        .envs(environment.iter().cloned());
    Process::start("Envoy", command, &log_path(directory))
}

/// The log of an Envoy with this directory.
pub fn log_path(directory: &Path) -> PathBuf {
    directory.join("envoy.log")
}

fn etc(directory: &Path) -> PathBuf {
    directory.join("etc")
}

fn install_certificate(etc: &Path, authority: &Authority) -> Result<()> {
    let identity = authority.issue_for(&[SERVER_NAME, "127.0.0.1"])?;
    identity.install(&etc.join("tls/server"), authority)
}

/// Issues the certificates that Envoy and a sidecar present to each other. Returns the
/// sidecar's variables.
pub fn mutual_tls(directory: &Path) -> Result<Vec<(String, String)>> {
    let authority = Authority::new()?;
    let tls = etc(directory).join("tls/sidecar");
    authority.issue(SIDECAR_NAME)?.install(&tls, &authority)?;
    let variables = [
        ("SERVER_GRPC_CERTIFICATE_FILE", "tls.crt"),
        ("SERVER_GRPC_KEY_FILE", "tls.key"),
        ("SERVER_GRPC_CLIENT_CA_FILE", "ca.crt"),
    ];
    let variable =
        |(name, file): (&str, &str)| (name.to_owned(), tls.join(file).display().to_string());
    Ok(variables.map(variable).into())
}
