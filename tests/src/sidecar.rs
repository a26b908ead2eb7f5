use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use edgerunner_certificates::Identity;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use crate::answer::{self, Answer};
use crate::certificates;
use crate::envoy::SIDECAR_NAME;
use crate::eventually::eventually;
use crate::ports;
use crate::process::Process;
use crate::programs::{Programs, command};

/// For a command that shows something and ends.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// `edgerunner serve`, which comes back to the same addresses and the same
/// store however often it ends.
pub struct Sidecar {
    program: PathBuf,
    environment: Vec<(String, String)>,
    directory: PathBuf,
    grpc: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

impl Sidecar {
    /// Later variables win over earlier ones. It does not run yet.
    pub(crate) fn new(
        programs: &Programs,
        directory: &Path,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self> {
        let (grpc, http) = (ports::free()?, ports::free()?);
        let text = |text: &str| text.to_owned();
        let mut all = vec![
            (text("SERVER_GRPC_ADDRESS"), grpc.to_string()),
            (text("SERVER_HTTP_ADDRESS"), http.to_string()),
            (text("STORE_PATH"), directory.join("edgerunner.db").display().to_string()),
            (text("DOCKER_RUNNER_IMAGE"), programs.runner_image.clone()),
            (text("DOCKER_PULL_POLICY"), text("never")),
            // The runner reaches the sandbox on the loopback interface.
            (text("DOCKER_NETWORK"), text("host")),
            (text("RUNNER_IDLE_TIMEOUT_SECONDS"), text("1")),
            // Tests lose webhooks to see what happens without them.
            (text("MISSED_WEBHOOKS_ENABLED"), text("false")),
            (text("LOG_FORMAT"), text("json")),
            (text("LOG_LEVEL"), text("info,edgerunner=debug")),
        ];
        all.extend(environment);
        Ok(Self {
            program: programs.sidecar.clone(),
            environment: all,
            directory: directory.to_owned(),
            grpc,
            http,
            log: directory.join("sidecar.log"),
            process: None,
        })
    }

    pub(crate) fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Of its status page.
    pub fn page(&self) -> String {
        format!("http://{}/", self.http)
    }

    /// From its next start on.
    pub fn configure(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it and waits until it may launch.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the sidecar runs already");
        let mut command = command(&self.program);
        command.arg("serve").current_dir(&self.directory).envs(self.environment.iter().cloned());
        self.process = Some(Process::start(command, &self.log)?);
        Ok(())
    }

    /// Waits until it may launch.
    pub async fn ready(&self) -> Result<()> {
        eventually("the sidecar is ready", async || {
            Ok((answer::get(self.http, "/readyz").await?.status == 200).then_some(()))
        })
        .await
    }

    /// Gives it no chance to finish anything.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL).await?;
        Ok(())
    }

    /// Asks it to end, which it must do well.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.end(Signal::TERM).await?;
        ensure!(status.success(), "the sidecar ended with {status}");
        Ok(())
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.take().context("the sidecar does not run")?.end(signal).await
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// From now on it answers nothing, though its ports are open.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("the sidecar does not run")?.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("the sidecar does not run")?.signal(Signal::CONT)
    }

    /// Watches its health by gRPC, which is an answer without an end.
    pub async fn watch_health(&self) -> Result<Response<Incoming>> {
        // A message without fields, behind its length.
        let message = Full::new(Bytes::from_static(&[0; 5]));
        let request = Request::post(format!("http://{}/grpc.health.v1.Health/Watch", self.grpc))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(message)?;
        answer::open_http2(self.grpc, request).await
    }

    /// Asks for its health by gRPC over TLS, as whoever bears this identity.
    pub async fn health_over_tls(
        &self,
        authority: &str,
        identity: Option<&Identity>,
    ) -> Result<Answer> {
        let client = certificates::client(authority, identity, "h2")?;
        let stream = certificates::connect(self.grpc, SIDECAR_NAME, &client).await?;
        let request = Request::post(format!("https://{SIDECAR_NAME}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from_static(&[0; 5])))?;
        Answer::read(answer::open_http2_over(stream, request).await?).await
    }

    /// Another command of the same program with the same configuration.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = command(&self.program);
        command.args(arguments).current_dir(&self.directory).envs(self.environment.iter().cloned());
        let output = timeout(RUN_LIMIT, command.kill_on_drop(true).output()).await;
        Ok(output.with_context(|| format!("{arguments:?}: no end within {RUN_LIMIT:?}"))??)
    }

    /// The database.
    pub fn store(&self) -> PathBuf {
        self.directory.join("edgerunner.db")
    }

    /// What such a command prints.
    pub async fn print(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        answer::get(self.http, path).await
    }

    pub async fn status(&self) -> Result<Value> {
        self.get("/api/v1/status").await?.json()
    }

    /// Why a queued job waits: the reason's name and its words.
    pub async fn waiting(&self, job: u64) -> Result<Option<(String, String)>> {
        let status = self.status().await?;
        let waiting = status["waiting"].as_array().context("no waiting jobs")?;
        Ok(waiting.iter().find(|waiting| waiting["job_id"] == job).map(|waiting| {
            let text = |name: &str| waiting[name].as_str().unwrap_or_default().to_owned();
            (text("reason"), text("message"))
        }))
    }

    pub fn log(&self) -> Result<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// The log's lines that have all of these texts.
    pub fn log_lines(&self, texts: &[&str]) -> Result<usize> {
        let log = self.log()?;
        Ok(log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count())
    }
}
