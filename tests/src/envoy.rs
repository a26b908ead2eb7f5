use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_certificates::Authority;
use http::Request;
use hyper::body::Body;
use rustix::process::Signal;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::answer::{self, Answer};
use crate::certificates;
use crate::eventually::eventually;
use crate::ports;
use crate::process::Process;
use crate::programs::{Programs, command};
use crate::webhook::Webhook;

/// Where the shipped files expect the filter, and all else that they read.
const MODULE: &str = "/etc/envoy/edgerunner_filter.wasm";
const ETC: &str = "/etc/envoy";
const ADMIN_PORT: &str = "port_value: 9901";

/// The name that Envoy shows its certificate for.
pub(crate) const SERVER_NAME: &str = "hooks.test";
/// What sidecars are called in their certificates.
pub(crate) const SIDECAR_NAME: &str = "edgerunner";

/// Which of the shipped configurations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// `envoy.yaml`
    #[default]
    Plain,
    /// `production.yaml`: TLS, and two sidecars by mutual TLS.
    Production,
    /// `unix-socket.yaml`: TLS, and a sidecar behind a Unix socket.
    UnixSocket,
}

/// The sidecars as Envoy reaches them.
pub(crate) enum Sidecars {
    Plain(SocketAddr),
    MutualTls([SocketAddr; 2]),
    UnixSocket(PathBuf),
}

/// Envoy with a configuration that ships.
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    directory: PathBuf,
    /// Of what it shows, where it speaks TLS.
    authority: Option<Authority>,
}

impl Sidecars {
    fn shipped(&self) -> &'static str {
        match self {
            Self::Plain(_) => include_str!("../../envoy/envoy.yaml"),
            Self::MutualTls(_) => include_str!("../../envoy/production.yaml"),
            Self::UnixSocket(_) => include_str!("../../envoy/unix-socket.yaml"),
        }
    }

    fn count(&self) -> u64 {
        match self {
            Self::Plain(_) | Self::UnixSocket(_) => 1,
            Self::MutualTls(sidecars) => sidecars.len() as u64,
        }
    }

    /// What this machine needs instead of what is shipped.
    fn replacements(&self, listener: SocketAddr) -> Vec<(String, String)> {
        let tls = (
            "address: 0.0.0.0\n          port_value: 8443".to_owned(),
            format!("address: {}\n          port_value: {}", listener.ip(), listener.port()),
        );
        match self {
            Self::Plain(sidecar) => vec![
                ("port_value: 8080".to_owned(), format!("port_value: {}", listener.port())),
                ("port_value: 50051".to_owned(), format!("port_value: {}", sidecar.port())),
            ],
            Self::MutualTls(sidecars) => sidecars
                .iter()
                .enumerate()
                .map(|(index, sidecar)| {
                    let endpoint = |host: &str, port: u16| {
                        format!("address: {host}\n                      port_value: {port}")
                    };
                    let host = sidecar.ip().to_string();
                    let shipped = endpoint(&format!("edgerunner-{}", index + 1), 50051);
                    (shipped, endpoint(&host, sidecar.port()))
                })
                .chain([tls])
                .collect(),
            Self::UnixSocket(path) => {
                let socket = ("/run/edgerunner/grpc.sock".to_owned(), path.display().to_string());
                vec![tls, socket]
            }
        }
    }
}

impl Envoy {
    pub(crate) async fn start(
        programs: &Programs,
        directory: &Path,
        sidecars: &Sidecars,
        own: Option<&str>,
        environment: &[(String, String)],
        changes: &[(String, String)],
    ) -> Result<Self> {
        let (address, admin) = (ports::free()?, ports::free()?);
        let module = programs.module.to_str().context("the module's path is not UTF-8")?;
        let mut replacements = sidecars.replacements(address);
        replacements.push((MODULE.to_owned(), module.to_owned()));
        replacements.push((ADMIN_PORT.to_owned(), format!("port_value: {}", admin.port())));
        replacements.extend_from_slice(changes);
        let configuration = fitted(own.unwrap_or(sidecars.shipped()), &replacements)?;
        let etc = directory.join("etc");
        let path = directory.join("envoy.yaml");
        std::fs::write(&path, configuration.replace(ETC, &etc.display().to_string()))?;
        let authority = match sidecars {
            Sidecars::Plain(_) => None,
            _ => {
                install(&etc)?;
                let authority = Authority::new()?;
                let identity = authority.issue(SERVER_NAME)?;
                identity.install(&etc.join("tls/server"), &authority)?;
                Some(authority)
            }
        };
        let mut command = command(&programs.envoy);
        command
            .arg("--config-path")
            .arg(path)
            .args(["--concurrency", "1"])
            // Hot restart would tie the Envoys of parallel tests together.
            .arg("--disable-hot-restart")
            // The default lets a line of the access log wait for 10 s.
            .args(["--file-flush-interval-msec", "50"])
            .envs(environment.iter().cloned());
        let log = directory.join("envoy.log");
        let process = Process::start(command, &log)?;
        let directory = directory.to_owned();
        let envoy = Self { process, address, admin, log, directory, authority };
        // Ready is said after the first health check, whatever came of it.
        eventually("Envoy is ready and finds the sidecar healthy", async || {
            let ready = answer::get(admin, "/ready").await?.status == 200;
            let healthy = envoy.stat("cluster.edgerunner_sidecar.membership_healthy").await?
                == sidecars.count();
            Ok((ready && healthy).then_some(()))
        })
        .await?;
        Ok(envoy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        match &self.authority {
            None => answer::send(self.address, webhook.request()?).await,
            Some(_) => Ok(self.send_seeing(webhook).await?.0),
        }
    }

    /// The answer, and the certificate that was shown.
    pub async fn send_seeing(&self, webhook: &Webhook) -> Result<(Answer, Vec<u8>)> {
        let stream = self.connect("http/1.1").await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|shown| shown.first());
        let shown = shown.context("no certificate")?.to_vec();
        Ok((answer::send_over(stream, webhook.request()?).await?, shown))
    }

    /// By HTTP/2 over TLS.
    pub async fn send_h2(&self, webhook: &Webhook) -> Result<Answer> {
        let stream = self.connect("h2").await?;
        Answer::read(answer::open_http2_over(stream, webhook.request()?).await?).await
    }

    async fn connect(&self, protocol: &str) -> Result<TlsStream<TcpStream>> {
        let authority = self.authority.as_ref().context("this Envoy speaks no TLS")?;
        let client = certificates::client(&authority.certificate, None, protocol)?;
        certificates::connect(self.address, SERVER_NAME, &client).await
    }

    /// Has it show another certificate from now on.
    pub fn renew_certificate(&self) -> Result<()> {
        let authority = self.authority.as_ref().context("this Envoy speaks no TLS")?;
        authority.issue(SERVER_NAME)?.install(&self.etc().join("tls/server"), authority)
    }

    /// Stands for `/etc/envoy`.
    pub fn etc(&self) -> PathBuf {
        self.directory.join("etc")
    }

    pub async fn send_http2<B>(&self, request: Request<B>) -> Result<Answer>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
    {
        Self::send_http2_to(self.address, request).await
    }

    /// To wherever an Envoy listens.
    pub async fn send_http2_to<B>(address: SocketAddr, request: Request<B>) -> Result<Answer>
    where
        B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Send + Unpin + 'static,
    {
        answer::send_http2(address, request).await
    }

    /// How much of its memory is resident.
    pub fn memory_kib(&self) -> Result<u64> {
        self.process.memory_kib()
    }

    pub async fn stat(&self, name: &str) -> Result<u64> {
        let stats = self.stats().await?;
        stats.get(name).copied().with_context(|| format!("no statistic {name}"))
    }

    /// Counters and gauges by name.
    async fn stats(&self) -> Result<BTreeMap<String, u64>> {
        let answer = answer::get(self.admin, "/stats").await?;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        Ok(text
            .lines()
            .filter_map(|line| line.split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// As Prometheus is told of them.
    pub async fn prometheus(&self) -> Result<String> {
        Ok(String::from_utf8(answer::get(self.admin, "/stats/prometheus").await?.body.into())?)
    }

    /// The access log's line for one delivery.
    pub async fn access_log_line(&self, guid: &str) -> Result<Value> {
        eventually("the access log has the delivery", async || {
            let log = self.log()?;
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            Ok(lines.into_iter().find(|line| line["delivery"] == guid))
        })
        .await
    }

    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// A filter that trapped would be reloaded and go on: good for users, but
    /// in a test it must not stay unseen.
    pub async fn check_filter(&self) -> Result<()> {
        for name in ["vm_reload", "vm_reload_backoff", "vm_reload_failure", "vm_reload_success"] {
            let count = self.stat(&format!("wasm.edgerunner.{name}")).await?;
            ensure!(count == 0, "the filter trapped: {name} is {count}");
        }
        Ok(())
    }

    pub(crate) async fn stop(self) -> Result<()> {
        let status = self.process.end(Signal::TERM).await?;
        ensure!(status.success(), "Envoy ended with {status}");
        Ok(())
    }
}

/// Puts the shipped parts of a configuration in place.
fn install(etc: &Path) -> Result<()> {
    let parts = [
        ("github_addresses.yaml", include_str!("../../envoy/github_addresses.yaml")),
        ("sds/server.yaml", include_str!("../../envoy/sds/server.yaml")),
        ("sds/sidecar_ca.yaml", include_str!("../../envoy/sds/sidecar_ca.yaml")),
        ("sds/sidecar_client.yaml", include_str!("../../envoy/sds/sidecar_client.yaml")),
    ];
    std::fs::create_dir_all(etc.join("sds"))?;
    for (name, text) in parts {
        std::fs::write(etc.join(name), text.replace(ETC, &etc.display().to_string()))?;
    }
    Ok(())
}

/// The shipped file with each of these texts, which it must have exactly once,
/// replaced.
fn fitted(shipped: &str, replacements: &[(String, String)]) -> Result<String> {
    let mut text = shipped.to_owned();
    for (from, to) in replacements {
        let count = shipped.matches(from.as_str()).count();
        ensure!(count == 1, "the configuration has `{from}` {count} times instead of once");
        text = text.replace(from.as_str(), to);
    }
    Ok(text)
}
