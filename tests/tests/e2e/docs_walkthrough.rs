//! A reader of the documents: a checkout, the programs, and a terminal.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox, Settings};
use edgerunner_testkit::envoy_config::{ENVOY_YAML, Sidecars, adapted};
use edgerunner_testkit::programs::{RUNNER_IMAGE, command};
use edgerunner_testkit::{
    Containers, Process, Programs, client, eventually, ports, webhook, workspace,
};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::terminal::Terminal;
use edgerunner_tests::TOKEN;

/// A `sudo` that needs no password.
const SUDO: &str = "exec \"$@\"";
/// Hot restart would connect Envoys that run at the same time.
const ENVOY_OPTIONS: &str = "--concurrency 1 --disable-hot-restart";

/// Follows the documents with the sandbox in GitHub's place and with free ports.
pub(crate) struct DocsWalkthrough {
    directory: TempDir,
    environment: Vec<(String, String)>,
    sandbox: Sandbox,
    containers: Containers,
    http: SocketAddr,
    envoy: SocketAddr,
    /// The programs in other terminals.
    running: Vec<Process>,
}

impl DocsWalkthrough {
    /// Removes everything after the test.
    pub(crate) async fn run(test: impl AsyncFnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let mut walkthrough = Self::new().await?;
        let tested = test(&mut walkthrough).await;
        let Self { directory, sandbox, containers, running, .. } = walkthrough;
        let logs = fs::read_to_string(log(directory.path())).unwrap_or_default();
        if tested.is_err() {
            eprintln!("{logs}");
        }
        for process in running {
            process.end(Signal::TERM).await?;
        }
        containers.remove_all().await?;
        sandbox.shutdown().await;
        ensure!(!logs.contains(TOKEN), "the token was logged");
        tested
    }

    async fn new() -> Result<Self> {
        let programs = Programs::from_environment()?;
        let settings = Settings { tokens: vec![TOKEN.to_owned()], ..Settings::default() };
        let sandbox = Sandbox::start(TcpListener::bind(("127.0.0.1", 0)).await?, settings)?;
        let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let containers = Containers::watch(None, &instance)?;
        let [envoy, admin, grpc, http] =
            [ports::free()?, ports::free()?, ports::free()?, ports::free()?];
        let directory = TempDir::new()?;
        let path = directory.path();
        check_out(path, &programs)?;
        let etc = Path::new("/etc/envoy");
        let module = etc.join("edgerunner_filter.wasm");
        let sidecars = Sidecars::Plain(grpc);
        let configuration = adapted(ENVOY_YAML, &sidecars, (envoy, admin), (&module, etc), &[])?;
        fs::write(path.join("envoy/envoy.yaml"), at_home(path, &configuration))?;
        let search = std::env::var("PATH").context("PATH")?;
        let environment = [
            ("PATH", format!("{}:{search}", path.join("bin").display())),
            ("GITHUB_API_URL", sandbox.url()),
            ("GITHUB_WEB_URL", sandbox.url()),
            ("GITHUB_WEBHOOK_URL", format!("http://{envoy}{}", webhook::PATH)),
            ("SERVER_GRPC_ADDRESS", grpc.to_string()),
            ("SERVER_HTTP_ADDRESS", http.to_string()),
            ("SCHEDULER_INSTANCE", instance),
            ("DOCKER_RUNNER_IMAGE", RUNNER_IMAGE.to_owned()),
            ("DOCKER_PULL_POLICY", "never".to_owned()),
            // The runner reaches the sandbox on the loopback interface.
            ("DOCKER_NETWORK", "host".to_owned()),
            ("RUNNER_IDLE_TIMEOUT_SECONDS", "1".to_owned()),
        ];
        let environment = environment.map(|(name, value)| (name.to_owned(), value)).into();
        Ok(Self { directory, environment, sandbox, containers, http, envoy, running: Vec::new() })
    }

    pub(crate) fn terminal(&self) -> Result<Terminal> {
        Terminal::open(self.directory.path(), self.environment.iter().cloned())
    }

    /// Starts programs in another terminal, which run until the end of the test.
    pub(crate) fn start(&mut self, commands: &str) -> Result<()> {
        let mut shell = command(Path::new("bash"));
        shell
            .args(["-e", "-u", "-c", &at_home(self.directory.path(), commands)])
            .current_dir(self.directory.path())
            .envs(self.environment.iter().cloned());
        self.running.push(Process::start("shell", shell, &log(self.directory.path()))?);
        Ok(())
    }

    /// Checks that git ignores every file that the steps have created, some of which are secret.
    pub(crate) fn created_files_are_ignored(&self) -> Result<()> {
        let log = log(self.directory.path());
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            if !path.is_file() || path == log {
                continue;
            }
            let mut git = command(Path::new("git"));
            git.args(["check-ignore", "--quiet", "--no-index"]);
            git.arg(path.file_name().context("no name")?).current_dir(workspace::root());
            ensure!(git.as_std_mut().status()?.success(), "git does not ignore {}", path.display());
        }
        Ok(())
    }

    pub(crate) async fn ready(&self) -> Result<()> {
        eventually("sidecar and Envoy are ready", async || {
            client::get(self.envoy, "/").await?;
            Ok((client::get(self.http, "/readyz").await?.status == 200).then_some(()))
        })
        .await
    }

    /// Runs a job of acme/app, the repository in the documents.
    pub(crate) async fn a_job_is_done(&self) -> Result<u64> {
        let id = self.sandbox.queue_job(&JobRequest { seconds: 0.1, ..JobRequest::default() });
        eventually("a job is done", async || {
            let done = self.sandbox.job(id).is_some_and(|job| job.status == JobStatus::Completed);
            Ok(done.then_some(()))
        })
        .await?;
        Ok(id)
    }
}

/// Keeps the documents' system paths inside the directory.
fn at_home(directory: &Path, text: &str) -> String {
    text.replace("/etc/envoy", &directory.join("etc/envoy").display().to_string())
}

fn log(directory: &Path) -> PathBuf {
    directory.join("other-terminals.log")
}

/// Creates the files of a checkout that the documents need.
fn check_out(directory: &Path, programs: &Programs) -> Result<()> {
    let module = directory.join("target/wasm32-wasip1/wasm/edgerunner_filter.wasm");
    let (bin, envoy) = (directory.join("bin"), directory.join("envoy"));
    for directory in [module.parent().context("no directory")?, &bin, &envoy] {
        fs::create_dir_all(directory)?;
    }
    fs::copy(&programs.module, &module)?;
    symlink(&programs.sidecar, bin.join("edgerunner"))?;
    script(&bin.join("sudo"), SUDO)?;
    let envoy = programs.envoy.display();
    script(&bin.join("envoy"), &format!("exec {envoy} \"$@\" {ENVOY_OPTIONS}"))
}

fn script(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options().create_new(true).write(true).mode(0o755).open(path)?;
    writeln!(file, "#!/bin/sh\n{text}")?;
    Ok(())
}
