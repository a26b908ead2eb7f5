//! `edgerunner serve`, and the other commands of the program.

use std::fs::File;
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
use crate::{Answer, Process, Programs, client};

/// For a command that prints something and ends.
const RUN_LIMIT: Duration = Duration::from_secs(20);

/// Keeps its addresses and its database when it is started again.
pub struct Sidecar {
    programs: Programs,
    environment: Vec<(String, String)>,
    working_directory: PathBuf,
    directory: PathBuf,
    pub(crate) grpc: SocketAddr,
    http: SocketAddr,
    process: Option<Process>,
}

impl Sidecar {
    /// Later variables override earlier ones.
    pub fn new(
        programs: &Programs,
        directory: &Path,
        (grpc, http): (SocketAddr, SocketAddr),
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut sidecar = Self {
            programs: programs.clone(),
            environment: environment.into_iter().collect(),
            working_directory: directory.to_owned(),
            directory: directory.to_owned(),
            grpc,
            http,
            process: None,
        };
        for (name, address) in [("SERVER_GRPC_ADDRESS", grpc), ("SERVER_HTTP_ADDRESS", http)] {
            sidecar.environment.insert(0, (name.to_owned(), address.to_string()));
        }
        sidecar
    }

    /// Sets the working directory.
    pub(crate) fn runs_in(self, working_directory: &Path) -> Self {
        Self { working_directory: working_directory.to_owned(), ..self }
    }

    /// Uses the sandbox's runners and, unless its store is in Postgres, the database in its
    /// directory.
    pub fn with_sandbox_runners(mut self) -> Self {
        if !self.environment.iter().any(|(name, _)| name == "STORE_URL") {
            let store = self.store().display().to_string();
            self.environment.insert(0, ("STORE_PATH".to_owned(), store));
        }
        let variables = [
            ("DOCKER_RUNNER_IMAGE", RUNNER_IMAGE),
            ("DOCKER_PULL_POLICY", "never"),
            // The runner reaches the sandbox on the loopback interface.
            ("DOCKER_NETWORK", "host"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.environment.splice(0..0, variables);
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.programs.command(&self.programs.sidecar);
        command
            .args(arguments)
            .current_dir(&self.working_directory)
            .envs(self.environment.iter().cloned());
        command
    }

    /// Another command with the same configuration, on a terminal of 80 by 24 that `script` of
    /// util-linux opens: what is written to its standard input is typed there.
    pub fn on_terminal(&self, arguments: &[&str]) -> Command {
        let mut command = self.programs.command(Path::new("script"));
        let program = self.programs.sidecar.display();
        let typed = format!("stty rows 24 cols 80 && exec '{program}' {}", arguments.join(" "));
        command
            .args(["--quiet", "--flush", "--return", "--command", &typed, "/dev/null"])
            .env("TERM", "xterm-256color")
            .current_dir(&self.working_directory)
            .envs(self.environment.iter().cloned());
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

    /// Keeps its store in this Postgres database from its next start on.
    pub fn use_postgres(&mut self, url: &str) {
        self.environment.retain(|(name, _)| name != "STORE_PATH");
        self.configure("STORE_URL", url);
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the sidecar is already running");
        let log = self.file("sidecar.log");
        self.process = Some(Process::start("sidecar", self.command(&["serve"]), &log)?);
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
        self.drop_half_a_line()
    }

    /// SIGKILL may interrupt the write of a line, and the next process would go on in it.
    fn drop_half_a_line(&self) -> Result<()> {
        let log = File::options().write(true).open(self.file("sidecar.log"))?;
        let whole = self.log()?.rfind('\n').map_or(0, |end| end + 1);
        log.set_len(whole.try_into()?)?;
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

    /// Suspends it: its ports stay open, but nothing is answered.
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
        Ok(output
            .with_context(|| format!("{arguments:?} is still running after {RUN_LIMIT:?}"))??)
    }

    /// Its standard output. It has to succeed.
    pub async fn print(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments).await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What it prints with `--json`.
    pub async fn json(&self, arguments: &[&str]) -> Result<Value> {
        let arguments = [arguments, &["--json"]].concat();
        Ok(serde_json::from_str(&self.print(&arguments).await?)?)
    }

    pub async fn metrics(&self) -> Result<String> {
        Ok(String::from_utf8(self.get("/metrics").await?.body.into())?)
    }

    pub async fn get(&self, path: &str) -> Result<Answer> {
        client::get(self.http, path).await
    }

    pub async fn status(&self) -> Result<Value> {
        client::get_json(self.http, "/api/v1/status").await
    }

    /// A job as the API lists it. An error if it is not there.
    pub async fn job(&self, id: u64) -> Result<Value> {
        let jobs = self.get("/api/v1/jobs").await?.json()?;
        let mut jobs = jobs.as_array().context("no list")?.iter();
        let job = jobs.find(|job| job["id"] == id);
        job.cloned().with_context(|| format!("job {id} is not there"))
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
        Ok(std::fs::read_to_string(self.file("sidecar.log"))?)
    }

    /// Counts the lines of the log that contain all of these texts.
    pub fn log_lines(&self, texts: &[&str]) -> Result<usize> {
        let log = self.log()?;
        Ok(log.lines().filter(|line| texts.iter().all(|text| line.contains(text))).count())
    }
}
