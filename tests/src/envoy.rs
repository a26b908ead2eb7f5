use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use http::Request;
use hyper::body::Body;
use rustix::process::Signal;
use serde_json::Value;

use crate::answer::{self, Answer};
use crate::eventually::eventually;
use crate::ports;
use crate::process::Process;
use crate::programs::{Programs, command};
use crate::webhook::Webhook;

const SHIPPED: &str = include_str!("../../envoy/envoy.yaml");
/// Where the shipped file expects the filter.
const MODULE: &str = "/etc/envoy/edgerunner_filter.wasm";
const PORT: &str = "port_value: 8080";
const ADMIN_PORT: &str = "port_value: 9901";
const SIDECAR_PORT: &str = "port_value: 50051";

/// Envoy with the configuration that ships.
pub struct Envoy {
    process: Process,
    address: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
}

impl Envoy {
    pub(crate) async fn start(
        programs: &Programs,
        directory: &Path,
        sidecar: SocketAddr,
        environment: &[(String, String)],
        changes: &[(String, String)],
    ) -> Result<Self> {
        let (address, admin) = (ports::free()?, ports::free()?);
        let module = programs.module.to_str().context("the module's path is not UTF-8")?;
        let ports = [
            (PORT, format!("port_value: {}", address.port())),
            (ADMIN_PORT, format!("port_value: {}", admin.port())),
            (SIDECAR_PORT, format!("port_value: {}", sidecar.port())),
        ];
        let changes = changes.iter().map(|(from, to)| (from.as_str(), to.as_str()));
        let ports = ports.iter().map(|(from, to)| (*from, to.as_str()));
        let configuration = fitted([(MODULE, module)].into_iter().chain(ports).chain(changes))?;
        let path = directory.join("envoy.yaml");
        std::fs::write(&path, configuration)?;
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
        let envoy = Self { process, address, admin, log };
        // Ready is said after the first health check, whatever came of it.
        eventually("Envoy is ready and finds the sidecar healthy", async || {
            let ready = answer::get(admin, "/ready").await?.status == 200;
            let healthy = envoy.stat("cluster.edgerunner_sidecar.membership_healthy").await? == 1;
            Ok((ready && healthy).then_some(()))
        })
        .await?;
        Ok(envoy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        answer::send(self.address, webhook.request()?).await
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

/// The shipped file with each of these texts, which it must have exactly once,
/// replaced.
fn fitted<'a>(replacements: impl Iterator<Item = (&'a str, &'a str)>) -> Result<String> {
    let mut text = SHIPPED.to_owned();
    for (from, to) in replacements {
        let count = SHIPPED.matches(from).count();
        ensure!(count == 1, "envoy/envoy.yaml has `{from}` {count} times instead of once");
        text = text.replace(from, to);
    }
    Ok(text)
}
