//! `packaging/compose.yaml` with the sandbox in GitHub's place.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::models::ContainerSummary;
use edgerunner_sandbox::{Sandbox, Settings};
use edgerunner_testkit::containers::{Containers, labelled};
use edgerunner_testkit::programs::{self, RUNNER_IMAGE};
use edgerunner_testkit::webhook::{self, SECRET};
use edgerunner_testkit::{Answer, Authority, Webhook, client, eventually, ports, tls};
use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::time::timeout;

use edgerunner_tests::{TOKEN, gateway, tools};

const ADDRESS: &str = "127.0.0.1";
/// The Engine's socket, mounted into the sidecar's container.
pub(crate) const DOCKER_SOCKET: &str = "/var/run/docker.sock";
const COMPOSE_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Compose {
    directory: TempDir,
    project: String,
    webhooks: SocketAddr,
    status: SocketAddr,
    authority: Authority,
    pub(crate) sandbox: Sandbox,
    /// The sidecar's runners.
    pub(crate) runners: Containers,
}

/// The group whose members may use the Engine's socket.
pub(crate) fn docker_group() -> Result<u32> {
    Ok(fs::metadata(DOCKER_SOCKET)?.gid())
}

impl Compose {
    /// Starts the services, runs the test, and removes everything.
    pub(crate) async fn run<T>(test: impl AsyncFnOnce(&Self) -> Result<T>) -> Result<T> {
        let compose = Self::prepare().await?;
        let tested = AssertUnwindSafe(async {
            compose.refuses_an_empty_token().await?;
            compose.compose(&["up", "--detach", "--no-build"]).await?;
            let tested = test(&compose).await?;
            // Stopped first, so that the sidecar can remove its runners.
            compose.compose(&["stop"]).await?;
            anyhow::Ok(tested)
        })
        .catch_unwind()
        .await;
        if !matches!(tested, Ok(Ok(_))) {
            let logs = compose.compose(&["logs", "--no-color"]).await;
            eprintln!("{}", logs.unwrap_or_else(|error| format!("no logs: {error:#}")));
        }
        compose.compose(&["down", "--volumes"]).await?;
        let left = labelled(compose.runners.docker(), &compose.label()).await?;
        ensure!(left.is_empty(), "left by Compose: {left:?}");
        let runners = compose.runners.list().await?;
        compose.runners.remove_all().await?;
        compose.sandbox.shutdown().await;
        match tested {
            Ok(tested) => {
                let tested = tested?;
                ensure!(runners.is_empty(), "left by the sidecar: {runners:?}");
                Ok(tested)
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    async fn prepare() -> Result<Self> {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..12];
        let project = format!("edgerunner-{id}");
        let runners = Containers::watch(None, &format!("e2e-{id}"))?;
        let authority = Authority::new()?;
        let (webhooks, status) = (ports::free()?, ports::free()?);
        let settings = Settings {
            webhook_url: Some(format!("https://{webhooks}{}", webhook::PATH)),
            webhook_secret: SECRET.to_owned(),
            webhook_roots: tls::roots(&authority.certificate)?,
            tokens: vec![TOKEN.to_owned()],
            runner_lost_after: Duration::from_secs(2),
            ..Settings::default()
        };
        // The address at which containers reach this machine.
        let host: IpAddr = gateway(runners.docker(), "bridge").await?;
        let sandbox = Sandbox::start(TcpListener::bind((host, 0)).await?, settings)?;
        let directory = TempDir::new()?;
        let compose = Self { directory, project, webhooks, status, authority, sandbox, runners };
        let tls = compose.directory.path().join("tls");
        compose.authority.issue(ADDRESS)?.install(&tls, &compose.authority)?;
        compose.write_settings(TOKEN)?;
        Ok(compose)
    }

    /// Without a token there is one message, and no service that is restarted again and again.
    async fn refuses_an_empty_token(&self) -> Result<()> {
        self.write_settings("")?;
        let started = self.compose(&["up", "--detach", "--no-build"]).await;
        ensure!(started.is_err(), "Compose started the services without a token");
        let logs = self.compose(&["logs", "--no-color"]).await?;
        ensure!(logs.matches("github.token: no token").count() == 1, "{logs}");
        self.write_settings(TOKEN)
    }

    /// Writes the settings that a user fills in.
    fn write_settings(&self, token: &str) -> Result<()> {
        let group = docker_group()?;
        let github = self.sandbox.url();
        let variables = format!(
            "GITHUB_TOKEN={token}
GITHUB_WEBHOOK_SECRET={SECRET}
GITHUB_API_URL={github}
GITHUB_ALLOW_HTTP=true
GITHUB_WEB_URL={github}
HOST_DOCKER_GROUP={group}
EDGERUNNER_WEBHOOKS={}
EDGERUNNER_STATUS={}
SCHEDULER_INSTANCE={}
DOCKER_RUNNER_IMAGE={RUNNER_IMAGE}
DOCKER_PULL_POLICY=never
RUNNER_IDLE_TIMEOUT_SECONDS=1
",
            self.webhooks,
            self.status,
            self.runners.instance(),
        );
        Ok(fs::write(self.environment(), variables)?)
    }

    fn environment(&self) -> PathBuf {
        self.directory.path().join(".env")
    }

    fn label(&self) -> String {
        format!("com.docker.compose.project={}", self.project)
    }

    async fn compose(&self, arguments: &[&str]) -> Result<String> {
        let words = tools::compose()?;
        let mut words = words.split(' ');
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/compose.yaml");
        let mut command = programs::command(words.next().unwrap_or_default().as_ref());
        command
            .args(words)
            .arg("--file")
            .arg(file)
            .arg("--project-directory")
            .arg(self.directory.path())
            .arg("--env-file")
            .arg(self.environment())
            .args(["--project-name", &self.project])
            .args(arguments)
            .kill_on_drop(true);
        let output = timeout(COMPOSE_LIMIT, command.output()).await;
        let output = output
            .with_context(|| format!("{arguments:?}: still running after {COMPOSE_LIMIT:?}"))??;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until webhooks are accepted.
    pub(crate) async fn ready(&self) -> Result<()> {
        eventually("the sidecar is ready and Envoy reaches it", async || {
            let ready = client::get(self.status, "/readyz").await?.status == 200;
            Ok((ready && self.send(&Webhook::job(1)).await?.status == 202).then_some(()))
        })
        .await
    }

    pub(crate) async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        let authority = &self.authority.certificate;
        let stream = tls::connect(self.webhooks, ADDRESS, authority, None, "http/1.1").await?;
        client::send_over(stream, webhook.request()?).await
    }

    /// The containers of Envoy and the sidecar.
    pub(crate) async fn containers(&self) -> Result<Vec<ContainerSummary>> {
        labelled(self.runners.docker(), &self.label()).await
    }
}
