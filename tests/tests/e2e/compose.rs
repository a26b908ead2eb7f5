//! `compose.yaml`: its profiles, each in a checkout of its own, with the sandbox in GitHub's place.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum};
use bollard::query_parameters::KillContainerOptionsBuilder;
use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox, Settings};
use edgerunner_testkit::containers::{Containers, labelled};
use edgerunner_testkit::programs::{self, RUNNER_IMAGE};
use edgerunner_testkit::webhook::{self, SECRET};
use edgerunner_testkit::{
    Answer, Authority, Webhook, client, eventually, eventually_within, ports, tls, workspace,
};
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use edgerunner_tests::{TOKEN, gateway, tools};

use crate::documents;

const ADDRESS: &str = "127.0.0.1";
/// Envoy and its health check, the first job and its container.
const DEMO_LIMIT: Duration = Duration::from_secs(90);
const COMPOSE_LIMIT: Duration = Duration::from_secs(120);
const POSTGRES_IMAGE: &str = "edgerunner/postgres:local";
const TUNNEL_IMAGE: &str = "edgerunner/tunnel:local";
/// Where `tests/tunnel` listens.
const TUNNEL_PORT: u16 = 8000;
/// Like a real one, it begins as JSON in Base64.
const TUNNEL_TOKEN: &str = "eyJ0dW5uZWwiOiJzZXNhbWUifQ";
/// The user of the images.
const USER: &str = "65532";

/// A checkout in which `docker-compose --profile PROFILE …` is typed.
struct Checkout {
    directory: TempDir,
    profile: &'static str,
    project: String,
    /// In the shell's environment.
    variables: Vec<(&'static str, String)>,
    /// The sidecar's runners.
    runners: Containers,
}

impl Checkout {
    fn new(profile: &'static str) -> Result<Self> {
        let id = &uuid::Uuid::new_v4().simple().to_string()[..12];
        let project = format!("edgerunner-{id}");
        let runners = Containers::watch(None, &format!("e2e-{id}"))?;
        let directory = TempDir::new()?;
        fs::create_dir(directory.path().join("packaging"))?;
        for file in ["compose.yaml", "packaging/example.env"] {
            fs::copy(workspace::root().join(file), directory.path().join(file))?;
        }
        Ok(Self { directory, profile, project, variables: Vec::new(), runners })
    }

    /// Runs the test, stops the services and removes everything.
    async fn test(&self, test: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        let tested = AssertUnwindSafe(async {
            test().await?;
            self.nothing_restarted().await
        })
        .catch_unwind()
        .await;
        if !matches!(tested, Ok(Ok(()))) {
            let logs = self.logs().await;
            eprintln!("{}", logs.unwrap_or_else(|error| format!("no logs: {error:#}")));
        }
        // First, so that the sidecar can remove its runners.
        self.compose(&["stop"]).await?;
        let runners = self.runners.list().await?;
        // Compose could not remove the network of one that is left.
        self.runners.remove_all().await?;
        self.compose(&["down", "--volumes"]).await?;
        let left = labelled(self.docker(), &self.label()).await?;
        ensure!(left.is_empty(), "left by Compose: {left:?}");
        match tested {
            Ok(Ok(())) => {
                ensure!(runners.is_empty(), "left by the sidecar: {runners:?}");
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    fn write_env(&self, settings: &str) -> Result<()> {
        Ok(fs::write(self.directory.path().join(".env"), settings)?)
    }

    async fn up(&self) -> Result<String> {
        self.compose(&["up", "--detach", "--no-build"]).await
    }

    /// Expects one message with this text, and that no service of these names has started.
    async fn refuses(&self, message: &str, services: &[&str]) -> Result<()> {
        ensure!(self.up().await.is_err(), "Compose started all services: {message}");
        // Compose 1.29 may print no logs at all if it is asked at once.
        eventually("the message is in the logs", async || {
            let logs = self.logs().await?;
            ensure!(logs.matches(message).count() == 1, "not once `{message}` in {logs}");
            Ok(Some(()))
        })
        .await?;
        let containers = self.containers().await?;
        for service in services {
            ensure!(!containers.contains_key(*service), "{service} was created");
        }
        self.nothing_restarted().await
    }

    async fn nothing_restarted(&self) -> Result<()> {
        for (service, container) in self.containers().await? {
            ensure!(container.restart_count == Some(0), "{service}: {container:?}");
            let state = container.state.and_then(|state| state.status);
            ensure!(state != Some(ContainerStateStatusEnum::RESTARTING), "{service}: {state:?}");
        }
        Ok(())
    }

    async fn logs(&self) -> Result<String> {
        self.compose(&["logs", "--no-color"]).await
    }

    async fn compose(&self, arguments: &[&str]) -> Result<String> {
        let words = tools::compose()?;
        let mut words = words.split(' ');
        let mut command = programs::command(words.next().unwrap_or_default().as_ref());
        command
            .args(words)
            .args(["--profile", self.profile])
            .args(arguments)
            .current_dir(&self.directory)
            .env("COMPOSE_PROJECT_NAME", &self.project)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .kill_on_drop(true);
        let output = timeout(COMPOSE_LIMIT, command.output()).await;
        let output = output
            .with_context(|| format!("{arguments:?}: still running after {COMPOSE_LIMIT:?}"))??;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn docker(&self) -> &Docker {
        self.runners.docker()
    }

    fn label(&self) -> String {
        format!("com.docker.compose.project={}", self.project)
    }

    /// By the name of their service.
    async fn containers(&self) -> Result<BTreeMap<String, ContainerInspectResponse>> {
        let mut containers = BTreeMap::new();
        for container in labelled(self.docker(), &self.label()).await? {
            let id = container.id.context("no id")?;
            let labels = container.labels.unwrap_or_default();
            let service = labels.get("com.docker.compose.service").context("no service")?;
            let inspected = self.docker().inspect_container(&id, None).await?;
            containers.insert(service.clone(), inspected);
        }
        Ok(containers)
    }

    /// The sidecar has to become another user than root, with no capabilities.
    async fn is_confined(&self, sidecar: &str) -> Result<()> {
        let containers = self.containers().await?;
        let pid = containers.get(sidecar).and_then(|it| it.state.as_ref()?.pid);
        let path = format!("/proc/{}/status", pid.context("it does not run")?);
        let status = fs::read_to_string(path)?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.with_context(|| format!("no {name} in {status}"))
        };
        ensure!(field("Uid:")?.split_whitespace().all(|id| id == USER), "{status}");
        for name in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            ensure!(field(name)?.trim().trim_matches('0').is_empty(), "{status}");
        }
        ensure!(field("NoNewPrivs:")?.trim() == "1", "{status}");
        Ok(())
    }
}

/// A checkout, and GitHub's stand-in at an address that containers reach.
struct WithSandbox {
    checkout: Checkout,
    sandbox: Sandbox,
    status: SocketAddr,
}

impl WithSandbox {
    async fn new(profile: &'static str, settings: Settings) -> Result<Self> {
        let checkout = Checkout::new(profile)?;
        let host: IpAddr = gateway(checkout.docker(), "bridge").await?;
        let settings = Settings {
            tokens: vec![TOKEN.to_owned()],
            runner_lost_after: Duration::from_secs(2),
            ..settings
        };
        let sandbox = Sandbox::start(TcpListener::bind((host, 0)).await?, settings)?;
        Ok(Self { checkout, sandbox, status: ports::free()? })
    }

    /// Writes what a user fills in; `more` is for the profile.
    fn write_env(&self, token: &str, more: &str) -> Result<()> {
        let github = self.sandbox.url();
        self.checkout.write_env(&format!(
            "EDGERUNNER_ENV_FILE=.env
GITHUB_TOKEN={token}
GITHUB_API_URL={github}
GITHUB_ALLOW_HTTP=true
GITHUB_WEB_URL={github}
EDGERUNNER_STATUS={}
SCHEDULER_INSTANCE={}
DOCKER_RUNNER_IMAGE={RUNNER_IMAGE}
DOCKER_PULL_POLICY=never
RUNNER_IDLE_TIMEOUT_SECONDS=1
{more}
",
            self.status,
            self.checkout.runners.instance(),
        ))
    }

    async fn runs_a_job(&self) -> Result<()> {
        let job = self.sandbox.queue_job(&JobRequest { seconds: 0.1, ..JobRequest::default() });
        eventually("the job is done and its runner is gone", async || {
            let done = self.sandbox.job(job).context("no such job")?.status;
            let gone = self.checkout.runners.list().await?.is_empty();
            Ok((done == JobStatus::Completed && gone).then_some(()))
        })
        .await?;
        ensure!(self.checkout.runners.started() == 1, "more than one runner was started");
        Ok(())
    }
}

#[tokio::test]
async fn the_demo_needs_no_settings_and_runs_a_job() -> Result<()> {
    let (status, sandbox) = (ports::free()?, ports::free()?);
    let mut checkout = Checkout::new("demo")?;
    // Only so that it does not get in the way of other tests.
    checkout.variables = vec![
        ("EDGERUNNER_STATUS", status.to_string()),
        ("EDGERUNNER_SANDBOX", sandbox.to_string()),
        ("EDGERUNNER_DEMO_INSTANCE", checkout.runners.instance().to_owned()),
    ];
    checkout
        .test(async || {
            checkout.up().await?;
            let job = eventually_within(DEMO_LIMIT, "a job is done", async || {
                let jobs = client::get(status, "/api/v1/jobs").await?.json()?;
                let jobs = jobs.as_array().context("no list")?;
                Ok(jobs.iter().find(|job| job["state"] == "completed").cloned())
            })
            .await?;
            ensure!(job["conclusion"] == "success", "{job}");
            ensure!(client::get(status, "/").await?.status == 200);
            let url = job["html_url"].as_str().context("no URL")?;
            let path = url.strip_prefix(&format!("http://{sandbox}"));
            let page = client::get(sandbox, path.with_context(|| url.to_owned())?).await?;
            let text = String::from_utf8_lossy(&page.body);
            ensure!(page.status == 200, "{page:?}");
            for expected in [job["name"].as_str(), job["runner_name"].as_str(), Some("success")] {
                ensure!(text.contains(expected.context("no text")?), "{expected:?}: {text}");
            }
            checkout.is_confined("demo-edgerunner").await?;
            // The sidecar removes none without GitHub, and the next job comes in half a minute.
            eventually_within(DEMO_LIMIT, "the job's runner is gone", async || {
                Ok(checkout.runners.list().await?.is_empty().then_some(()))
            })
            .await
        })
        .await
}

#[tokio::test]
async fn with_a_tunnel_the_secret_and_the_webhook_are_created() -> Result<()> {
    let github = WithSandbox::new("tunnel", Settings::default()).await?;
    let checkout = &github.checkout;
    let address: IpAddr = gateway(checkout.docker(), "bridge").await?;
    let public = TcpListener::bind((address, 0)).await?;
    let address = public.local_addr()?;
    let url = format!("http://{address}{}", webhook::PATH);
    let settings = format!(
        "EDGERUNNER_TUNNEL_IMAGE={TUNNEL_IMAGE}
GITHUB_WEBHOOK_URL={url}
EDGERUNNER_WEBHOOK_TARGET=acme/app
TUNNEL_TOKEN="
    );
    let test = async || {
        github.write_env(TOKEN, &settings)?;
        checkout.refuses("not set: TUNNEL_TOKEN", &["tunnel", "webhook"]).await?;
        github.write_env(TOKEN, &(settings.clone() + "another secret"))?;
        checkout.refuses("TUNNEL_TOKEN does not begin with eyJ", &["tunnel", "webhook"]).await?;
        github.write_env(TOKEN, &(settings + TUNNEL_TOKEN))?;
        checkout.up().await?;
        webhook_is_created(checkout).await?;
        let deliveries = github.sandbox.deliveries();
        ensure!(deliveries.iter().any(|it| it.event == "ping" && it.succeeded()), "{deliveries:?}");
        github.runs_a_job().await?;
        let deliveries = github.sandbox.deliveries();
        ensure!(deliveries.iter().all(|it| it.succeeded()), "{deliveries:?}");
        // The secret is not one that anyone could know.
        let forged = Webhook::job(2).request()?;
        let answer = client::send_over(TcpStream::connect(address).await?, forged).await?;
        ensure!(answer.status == 401, "{answer:?}");
        checkout.is_confined("edgerunner").await?;

        // The same webhook and secret are used again.
        checkout.up().await?;
        webhook_is_created(checkout).await?;
        let logs = checkout.logs().await?;
        ensure!(logs.contains("exists already"), "{logs}");
        for secret in [TOKEN, TUNNEL_TOKEN] {
            ensure!(!logs.contains(secret), "{secret} was logged");
        }
        Ok(())
    };
    tokio::select! {
        tested = checkout.test(test) => tested,
        error = pass_on(public, checkout) => error,
    }
}

/// The service that creates it has ended, with success.
async fn webhook_is_created(checkout: &Checkout) -> Result<()> {
    let state = eventually("the webhook is created", async || {
        let mut containers = checkout.containers().await?;
        let state = containers.remove("webhook").and_then(|it| it.state).context("no container")?;
        Ok((state.status == Some(ContainerStateStatusEnum::EXITED)).then_some(state))
    })
    .await?;
    ensure!(state.exit_code == Some(0), "{state:?}");
    Ok(())
}

/// The public side of the tunnel. Returns only if it fails.
async fn pass_on(public: TcpListener, checkout: &Checkout) -> Result<()> {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut from, _) = public.accept().await?;
        let containers = checkout.containers().await?;
        let settings = containers.get("tunnel").and_then(|it| it.network_settings.as_ref());
        let networks = settings.and_then(|it| it.networks.as_ref());
        let address = networks.and_then(|it| it.values().find_map(|it| it.ip_address.clone()));
        let Some(address) = address.filter(|address| !address.is_empty()) else {
            bail!("a request before the tunnel was there");
        };
        connections.spawn(async move {
            let mut to = TcpStream::connect((address, TUNNEL_PORT)).await?;
            copy_bidirectional(&mut from, &mut to).await
        });
    }
}

#[tokio::test]
async fn with_a_certificate_webhooks_are_accepted_over_tls() -> Result<()> {
    let authority = Authority::new()?;
    let webhooks = ports::free()?;
    let settings = Settings {
        webhook_url: Some(format!("https://{webhooks}{}", webhook::PATH)),
        webhook_secret: SECRET.to_owned(),
        webhook_roots: tls::roots(&authority.certificate)?,
        ..Settings::default()
    };
    let commands = documents::answer("with_a_certificate_webhooks_are_accepted_over_tls", "sh")?;
    let github = WithSandbox::new("tls", settings).await?;
    let checkout = &github.checkout;
    let directory = checkout.directory.path().join("packaging/tls");
    authority.issue(ADDRESS)?.install(&directory, &authority)?;
    let settings = format!("GITHUB_WEBHOOK_SECRET={SECRET}\nEDGERUNNER_WEBHOOKS={webhooks}");
    let send = async |webhook: Webhook| -> Result<Answer> {
        let stream = tls::connect(webhooks, ADDRESS, &authority.certificate, None, "http/1.1");
        client::send_over(stream.await?, webhook.request()?).await
    };
    checkout
        .test(async || {
            github.write_env("", &settings)?;
            checkout.refuses("github.token: no token", &["edgerunner", "envoy-tls"]).await?;
            github.write_env(TOKEN, &settings)?;
            checkout.up().await?;
            eventually("the sidecar is ready and Envoy reaches it", async || {
                let ready = client::get(github.status, "/readyz").await?.status == 200;
                Ok((ready && send(Webhook::job(1)).await?.status == 202).then_some(()))
            })
            .await?;
            let forged = send(Webhook::job(2).signed_with("another secret")).await?;
            ensure!(forged.status == 401, "{forged:?}");
            github.runs_a_job().await?;
            for command in commands.lines() {
                let words = command.strip_prefix("docker compose exec ").context("not exec")?;
                let words: Vec<&str> = ["exec", "-T"].into_iter().chain(words.split(' ')).collect();
                let (expected, shown) = match words.last() {
                    Some(&"status") => ("default", checkout.compose(&words).await?),
                    Some(&"jobs") => ("acme/app", checkout.compose(&words).await?),
                    // It may find something wrong, such as a disk that is nearly full.
                    _ => ("Docker", format!("{:?}", checkout.compose(&words).await)),
                };
                ensure!(shown.contains(expected), "{command}:\n{shown}");
            }
            checkout.is_confined("edgerunner").await
        })
        .await
}

#[tokio::test]
async fn either_of_two_sidecars_with_postgres_may_be_killed() -> Result<()> {
    const SIDECARS: [&str; 2] = ["edgerunner-1", "edgerunner-2"];
    let authority = Authority::new()?;
    let (webhooks, second) = (ports::free()?, ports::free()?);
    let settings = Settings {
        webhook_url: Some(format!("https://{webhooks}{}", webhook::PATH)),
        webhook_secret: SECRET.to_owned(),
        webhook_roots: tls::roots(&authority.certificate)?,
        ..Settings::default()
    };
    let github = WithSandbox::new("high-availability", settings).await?;
    let checkout = &github.checkout;
    let directory = checkout.directory.path().join("packaging/tls");
    authority.issue(ADDRESS)?.install(&directory, &authority)?;
    let settings = format!(
        "GITHUB_WEBHOOK_SECRET={SECRET}\nEDGERUNNER_WEBHOOKS={webhooks}\n\
         EDGERUNNER_STATUS_2={second}\nEDGERUNNER_POSTGRES_IMAGE={POSTGRES_IMAGE}"
    );
    let send = async |job: u64| -> Result<Answer> {
        let stream = tls::connect(webhooks, ADDRESS, &authority.certificate, None, "http/1.1");
        client::send_over(stream.await?, Webhook::job(job).request()?).await
    };
    checkout
        .test(async || {
            github.write_env(TOKEN, &settings)?;
            checkout.up().await?;
            eventually("both sidecars are ready and Envoy reaches one", async || {
                for status in [github.status, second] {
                    let ready = client::get(status, "/readyz").await?;
                    ensure!(ready.status == 200, "{status}: {ready:?}");
                }
                Ok((send(1).await?.status == 202).then_some(()))
            })
            .await?;
            github.runs_a_job().await?;
            let mut job = 1;
            for killed in SIDECARS {
                let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
                let container = checkout.containers().await?.remove(killed);
                let id = container.and_then(|it| it.id).context("no container")?;
                checkout.docker().kill_container(&id, Some(options)).await?;
                for _ in 0..5 {
                    job += 1;
                    let answer = send(job).await?;
                    ensure!(answer.status == 202, "without {killed}: {answer:?}");
                }
                checkout.compose(&["start", killed]).await?;
                eventually("it is ready again", async || {
                    let status = if killed == SIDECARS[0] { github.status } else { second };
                    Ok((client::get(status, "/readyz").await?.status == 200).then_some(()))
                })
                .await?;
            }
            for sidecar in SIDECARS {
                checkout.is_confined(sidecar).await?;
            }
            Ok(())
        })
        .await
}

/// As Compose reads it.
#[tokio::test]
async fn two_sidecars_share_postgres_and_only_envoy_reaches_them() -> Result<()> {
    let checkout = Checkout::new("high-availability")?;
    let read: Value = serde_saphyr::from_str(&checkout.compose(&["config"]).await?)?;
    let service = |name: &str| &read["services"][name];
    let networks = |name: &str| -> Vec<String> {
        let networks = &service(name)["networks"];
        let named = networks.as_object().map(|it| it.keys().cloned().collect());
        named.unwrap_or_else(|| serde_json::from_value(networks.clone()).unwrap_or_default())
    };
    for name in ["edgerunner-1", "edgerunner-2"] {
        ensure!(networks(name) == ["default", "postgres", "sidecars"], "{read:#}");
        // The name in Envoy's configuration.
        let aliases = &service(name)["networks"]["sidecars"]["aliases"];
        ensure!(*aliases == json!(["edgerunner"]), "{aliases}");
        for variable in ["SERVER_GRPC_ADDRESS", "STORE_URL", "STORE_PASSWORD_FILE"] {
            let own = &service(name)["environment"][variable];
            ensure!(*own == service("high-availability-check")["environment"][variable]);
            ensure!(own.is_string(), "{name} has no {variable}");
        }
    }
    ensure!(service("edgerunner-1")["ports"] != service("edgerunner-2")["ports"], "one port twice");
    ensure!(networks("postgres") == ["postgres"], "{read:#}");
    let beside: Vec<&String> = read["services"]
        .as_object()
        .context("no services")?
        .keys()
        .filter(|name| networks(name).contains(&"sidecars".to_owned()))
        .collect();
    ensure!(beside == ["edgerunner-1", "edgerunner-2", "envoy-high-availability"], "{beside:?}");
    for network in ["sidecars", "postgres"] {
        ensure!(read["networks"][network]["internal"] == true, "{network}: {read:#}");
    }
    Ok(())
}
