//! A reader of the documents: a checkout, a home directory, the programs, and a terminal.

use std::ffi::OsString;
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
        let sidecars = Sidecars::Plain(vec![grpc]);
        let configuration = adapted(ENVOY_YAML, &sidecars, (envoy, admin), (&module, etc), &[])?;
        fs::write(path.join("checkout/envoy/envoy.yaml"), at_home(path, &configuration))?;
        let search = std::env::var("PATH").context("PATH")?;
        let environment = [
            ("PATH", format!("{}:{search}", path.join("bin").display())),
            ("HOME", path.join("home").display().to_string()),
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
        Terminal::open(&self.directory.path().join("checkout"), self.environment.iter().cloned())
    }

    /// See [`at_home`].
    pub(crate) fn at_home(&self, text: &str) -> String {
        at_home(self.directory.path(), text)
    }

    /// Starts programs in another terminal, which run until the end of the test.
    pub(crate) fn start(&mut self, commands: &str) -> Result<()> {
        let mut shell = command(Path::new("bash"));
        shell
            .args(["-e", "-u", "-c", &self.at_home(commands)])
            .current_dir(self.directory.path())
            .envs(self.environment.iter().cloned());
        self.running.push(Process::start("shell", shell, &log(self.directory.path()))?);
        Ok(())
    }

    /// Checks that the steps have created no file in the checkout, and that git would ignore
    /// those which they have created elsewhere.
    pub(crate) fn secrets_stay_out_of_git(&self) -> Result<()> {
        let files = |directory: &Path| -> Result<Vec<OsString>> {
            let entries = fs::read_dir(self.directory.path().join(directory))?;
            entries.map(|entry| Ok(entry?.file_name())).collect()
        };
        let mut left = files(Path::new("checkout"))?;
        left.retain(|name| name != "envoy" && name != "target");
        ensure!(left.is_empty(), "created in the checkout: {left:?}");
        let created = files(Path::new("home/edgerunner"))?;
        ensure!(created.iter().any(|name| name == "github-token"), "no token in {created:?}");
        for name in created {
            let mut git = command(Path::new("git"));
            git.args(["check-ignore", "--quiet", "--no-index"]).arg(&name);
            let status = git.current_dir(workspace::root()).as_std_mut().status()?;
            ensure!(status.success(), "git does not ignore {name:?}");
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
        .replace("/usr/local/bin", &directory.join("bin").display().to_string())
}

fn log(directory: &Path) -> PathBuf {
    directory.join("other-terminals.log")
}

/// Creates the files of a checkout in which `cargo xtask up` has built the programs.
fn check_out(directory: &Path, programs: &Programs) -> Result<()> {
    let checkout = directory.join("checkout");
    let sidecar = checkout.join("target/debug/edgerunner");
    let module = checkout.join("target/wasm32-wasip1/wasm/edgerunner_filter.wasm");
    let bin = directory.join("bin");
    for file in [&sidecar, &module, &checkout.join("envoy/envoy.yaml"), &bin.join("envoy")] {
        fs::create_dir_all(file.parent().context("no directory")?)?;
    }
    fs::create_dir(directory.join("home"))?;
    fs::copy(&programs.module, &module)?;
    symlink(&programs.sidecar, &sidecar)?;
    script(&bin.join("sudo"), SUDO)?;
    let envoy = programs.envoy.display();
    script(&bin.join("envoy"), &format!("exec {envoy} \"$@\" {ENVOY_OPTIONS}"))
}

fn script(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::File::options().create_new(true).write(true).mode(0o755).open(path)?;
    writeln!(file, "#!/bin/sh\n{text}")?;
    Ok(())
}
