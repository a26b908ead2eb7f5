//! `edgerunner serve`, and the other commands of the program.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::programs::RUNNER_IMAGE;
use crate::{Answer, Process, Programs, client, workspace};

/// For a command that prints something and ends.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// Keeps its addresses and its database when it is started again.
pub struct Sidecar {
    programs: Programs,
    environment: Vec<(String, String)>,
    /// Inherits the caller's environment and runs in the checkout.
    inherits: bool,
    directory: PathBuf,
    pub(crate) grpc: SocketAddr,
    http: SocketAddr,
    log: PathBuf,
    process: Option<Process>,
}

impl Sidecar {
    /// One that the caller's environment configures.
    pub fn inheriting(
        programs: &Programs,
        directory: &Path,
        (grpc, http): (SocketAddr, SocketAddr),
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let text = str::to_owned;
        let mut all = vec![
            (text("SERVER_GRPC_ADDRESS"), grpc.to_string()),
            (text("SERVER_HTTP_ADDRESS"), http.to_string()),
        ];
        all.extend(environment);
        Self {
            programs: programs.clone(),
            environment: all,
            inherits: true,
            directory: directory.to_owned(),
            grpc,
            http,
            log: directory.join("sidecar.log"),
            process: None,
        }
    }

    /// One with the sandbox's runners. Later variables override earlier ones.
    pub fn new(
        programs: &Programs,
        directory: &Path,
        addresses: (SocketAddr, SocketAddr),
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let text = str::to_owned;
        let mut all = vec![
            (text("STORE_PATH"), directory.join("edgerunner.db").display().to_string()),
            (text("DOCKER_RUNNER_IMAGE"), text(RUNNER_IMAGE)),
            (text("DOCKER_PULL_POLICY"), text("never")),
            // The runner reaches the sandbox on the loopback interface.
            (text("DOCKER_NETWORK"), text("host")),
        ];
        all.extend(environment);
        Self { inherits: false, ..Self::inheriting(programs, directory, addresses, all) }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = &self.programs.sidecar;
        let mut command = match self.inherits {
            true => Command::new(program),
            false => self.programs.command(program),
        };
        // Elsewhere it would find a configuration file of the person who runs this.
        let directory = if self.inherits { workspace::root() } else { &self.directory };
        command.args(arguments).current_dir(directory).envs(self.environment.iter().cloned());
        command
    }

    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// The URL of its status page.
    pub fn page(&self) -> String {
        self.url("/")
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Sets a variable for its next start.
    pub fn configure(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the sidecar is already running");
        let mut command = self.command(&["serve"]);
        if self.programs.own_groups {
            command.process_group(0);
        }
        self.process = Some(Process::start("sidecar", command, &self.log)?);
        Ok(())
    }

    /// Waits until it may launch runners.
    pub async fn ready(&self) -> Result<()> {
        self.process()?.answers(self.http, "/readyz").await
    }

    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the sidecar is not running")
    }

    /// Ends it without a chance to finish anything.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::KILL).await?;
        Ok(())
    }

    /// Ends it, which has to succeed.
    pub async fn terminate(&mut self) -> Result<()> {
        let status = self.end(Signal::TERM).await?;
        ensure!(status.success(), "the sidecar ended with {status}");
        Ok(())
    }

    async fn end(&mut self, signal: Signal) -> Result<ExitStatus> {
        self.process.take().context("the sidecar is not running")?.end(signal).await
    }

    pub fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Makes it answer nothing, though its ports stay open.
    pub fn freeze(&self) -> Result<()> {
        self.process()?.signal(Signal::STOP)
    }

    pub fn thaw(&self) -> Result<()> {
        self.process()?.signal(Signal::CONT)
    }

    /// Makes it reload its pools.
    pub fn reload(&self) -> Result<()> {
        self.process()?.signal(Signal::HUP)
    }

    /// The path of a file in its directory.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of its database.
    pub fn store(&self) -> PathBuf {
        self.file("edgerunner.db")
    }

    /// Runs another command of the program with the same configuration.
    pub async fn run(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command(arguments);
        let output = timeout(RUN_LIMIT, command.kill_on_drop(true).output()).await;
        Ok(output.with_context(|| format!("{arguments:?} runs on after {RUN_LIMIT:?}"))??)
    }

    /// Its standard output. It has to succeed.
    pub async fn print(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        client::get(self.http, path).await
    }

    pub async fn status(&self) -> Result<Value> {
        client::get_json(self.http, "/api/v1/status").await
    }

    /// Why a queued job waits: the reason's name, and its message.
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

    /// Counts the lines of the log that contain all of these texts.
    pub fn log_lines(&self, texts: &[&str]) -> Result<usize> {
        let log = self.log()?;
        Ok(log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count())
    }
}
