use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_certificates::Authority;
use edgerunner_sandbox::{Faults, Job, JobRequest, JobStatus, Sandbox, Settings, WebhookKind};
use futures_util::FutureExt as _;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::answer::Answer;
use crate::containers::Containers;
use crate::docker_gate::DockerGate;
use crate::engine::Engine;
use crate::envoy::{Edge, Envoy, SIDECAR_NAME, Sidecars};
use crate::eventually::eventually;
use crate::programs::{Programs, dind_image};
use crate::sidecar::Sidecar;
use crate::webhook::{self, Webhook};

/// Of the webhook. Like the token, a word that occurs nowhere else, so that it
/// can be looked for where it must not be.
pub const SECRET: &str = "webhook-secret-sesame";
/// GitHub's, which the sidecar uses.
pub const TOKEN: &str = "github-token-sesame";
/// Another that GitHub accepts, for a credential of its own.
pub const OTHER_TOKEN: &str = "another-token-sesame";

/// How much of each log a failed test prints.
const LOG_LINES: usize = 300;

/// What differs from test to test.
#[derive(Default)]
pub struct Options {
    sidecar: Vec<(String, String)>,
    envoy: Vec<(String, String)>,
    envoy_configuration: Vec<(String, String)>,
    file: Option<String>,
    enterprise: Option<String>,
    hook: WebhookKind,
    docker_gate: bool,
    engine: Option<String>,
    edge: Edge,
    own_envoy: Option<String>,
    github: Option<IpAddr>,
}

impl Options {
    /// A variable for the sidecar.
    pub fn sidecar(mut self, name: &str, value: &str) -> Self {
        self.sidecar.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The sidecar's configuration file, beside its variables.
    pub fn file(self, text: &str) -> Self {
        Self { file: Some(text.to_owned()), ..self }
    }

    /// A variable for Envoy.
    pub fn envoy(mut self, name: &str, value: &str) -> Self {
        self.envoy.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another text in the place of one in Envoy's configuration.
    pub fn envoy_configuration(mut self, from: &str, to: &str) -> Self {
        self.envoy_configuration.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Makes the organizations part of this enterprise.
    pub fn enterprise(self, slug: &str) -> Self {
        Self { enterprise: Some(slug.to_owned()), ..self }
    }

    /// Webhooks come from one of this kind.
    pub fn hook(self, hook: WebhookKind) -> Self {
        Self { hook, ..self }
    }

    /// Puts a [`DockerGate`] between the sidecar and the Docker Engine.
    pub fn docker_gate(self) -> Self {
        Self { docker_gate: true, ..self }
    }

    /// Starts Envoy with this configuration.
    pub fn edge(self, edge: Edge) -> Self {
        Self { edge, ..self }
    }

    /// Starts Envoy with a configuration that does not ship, but has the ports of
    /// `envoy.yaml`.
    pub fn own_envoy(self, configuration: String) -> Self {
        Self { own_envoy: Some(configuration), ..self }
    }

    /// Has runners reach GitHub in a network of their own, and gives them an Engine each.
    pub fn dind(self, engine: &Engine) -> Self {
        let image = dind_image().expect("an image");
        let dind = Self { github: Some(engine.gateway()), ..self.engine(engine) };
        dind.sidecar("DOCKER_NETWORK", "")
            .sidecar("DOCKER_DOCKER", "dind")
            .sidecar("DOCKER_DIND_IMAGE", &image)
    }

    /// Runs the containers on this Engine.
    pub fn engine(self, engine: &Engine) -> Self {
        Self { engine: Some(engine.host()), ..self }
    }
}

/// Everything that runs together for one test.
pub struct Stack {
    pub sandbox: Sandbox,
    pub sidecar: Sidecar,
    /// Serves while the first does not, where the configuration has two.
    pub standby: Option<Sidecar>,
    pub envoy: Envoy,
    pub containers: Containers,
    docker_gate: Option<DockerGate>,
}

impl Stack {
    /// Starts everything, runs the test, ends everything. The test fails as
    /// well if it leaves a container or a registration behind, if the filter
    /// trapped, or if a secret got into a log.
    pub async fn run<T>(options: Options, test: impl AsyncFnOnce(&mut Self) -> Result<T>) -> T {
        let directory = TempDir::new().expect("a temporary directory");
        let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        let engine = options.engine.clone();
        let watch = || Containers::watch(engine.as_deref(), &instance);
        let containers = watch().expect("Docker answers");
        let done = AssertUnwindSafe(async {
            let mut stack = Self::start(options, directory.path(), &instance, containers).await?;
            let tested = AssertUnwindSafe(test(&mut stack)).catch_unwind().await;
            Ok((stack, tested))
        })
        .catch_unwind()
        .await;
        let failure = match done {
            Ok(Ok((stack, Ok(Ok(value))))) => match stack.end(directory.path()).await {
                Ok(()) => return value,
                Err(error) => Failure::Error(error),
            },
            Ok(Ok((_, Ok(Err(error))))) | Ok(Err(error)) => Failure::Error(error),
            Ok(Ok((_, Err(panic)))) | Err(panic) => Failure::Panic(panic),
        };
        // The processes are gone by now, killed: nothing creates containers.
        for name in ["sidecar", "envoy"] {
            print_log(name, &directory.path().join(format!("{name}.log")));
        }
        let removed = match watch() {
            Ok(containers) => containers.remove_all().await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            eprintln!("containers of {instance} stay: {error:#}");
        }
        match failure {
            Failure::Error(error) => panic!("{error:#}"),
            Failure::Panic(panic) => std::panic::resume_unwind(panic),
        }
    }

    async fn start(
        options: Options,
        directory: &Path,
        instance: &str,
        containers: Containers,
    ) -> Result<Self> {
        let programs = Programs::from_environment()?;
        let settings = Settings {
            tokens: vec![TOKEN.to_owned(), OTHER_TOKEN.to_owned()],
            webhook_secret: SECRET.to_owned(),
            enterprise: options.enterprise,
            webhook_kind: options.hook,
            runner_lost_after: Duration::from_secs(2),
            ..Settings::default()
        };
        let address = options.github.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let sandbox = Sandbox::start(TcpListener::bind((address, 0)).await?, settings)?;
        let docker_gate = match options.docker_gate {
            true => Some(DockerGate::open(directory)?),
            false => None,
        };
        let mut environment = vec![
            ("GITHUB_API_URL".to_owned(), sandbox.url()),
            ("GITHUB_WEB_URL".to_owned(), sandbox.url()),
            ("GITHUB_TOKEN".to_owned(), TOKEN.to_owned()),
            ("SCHEDULER_INSTANCE".to_owned(), instance.to_owned()),
        ];
        if let Some(host) = options.engine.or(docker_gate.as_ref().map(DockerGate::host)) {
            environment.push(("DOCKER_HOST".to_owned(), host));
        }
        if let Some(text) = options.file {
            let path = directory.join("edgerunner.toml");
            std::fs::write(&path, text)?;
            environment.push(("EDGERUNNER_CONFIG".to_owned(), path.display().to_string()));
        }
        environment.extend(options.sidecar);
        let mut standby = None;
        let authority = Authority::new()?;
        let socket = directory.join("grpc.sock");
        match options.edge {
            Edge::Plain => {}
            Edge::UnixSocket => environment
                .push(("SERVER_GRPC_ADDRESS".to_owned(), format!("unix:{}", socket.display()))),
            Edge::Production => {
                let tls = directory.join("etc/tls/sidecar");
                authority.issue(SIDECAR_NAME)?.install(&tls, &authority)?;
                for (name, file) in [
                    ("SERVER_GRPC_CERTIFICATE_FILE", "tls.crt"),
                    ("SERVER_GRPC_KEY_FILE", "tls.key"),
                    ("SERVER_GRPC_CLIENT_CA_FILE", "ca.crt"),
                ] {
                    environment.push((name.to_owned(), tls.join(file).display().to_string()));
                }
                let own = directory.join("standby");
                std::fs::create_dir(&own)?;
                let mut other = environment.clone();
                other.push(("SCHEDULER_INSTANCE".to_owned(), format!("{instance}-2")));
                let sidecar = standby.insert(Sidecar::new(&programs, &own, other)?);
                sidecar.start().await?;
            }
        }
        let mut sidecar = Sidecar::new(&programs, directory, environment)?;
        sidecar.start().await?;
        let sidecars = match &standby {
            Some(standby) => Sidecars::MutualTls([sidecar.grpc_address(), standby.grpc_address()]),
            None if options.edge == Edge::UnixSocket => Sidecars::UnixSocket(socket),
            None => Sidecars::Plain(sidecar.grpc_address()),
        };
        let mut environment = vec![("GITHUB_WEBHOOK_SECRET".to_owned(), SECRET.to_owned())];
        environment.extend(options.envoy);
        let envoy = Envoy::start(
            &programs,
            directory,
            &sidecars,
            options.own_envoy.as_deref(),
            &environment,
            &options.envoy_configuration,
        )
        .await?;
        if options.edge == Edge::Plain {
            sandbox.set_webhook_url(format!("http://{}{}", envoy.address(), webhook::PATH));
        }
        Ok(Self { sandbox, sidecar, standby, envoy, containers, docker_gate })
    }

    async fn end(mut self, directory: &Path) -> Result<()> {
        self.sandbox.set_faults(Faults::default());
        self.settled().await?;
        self.envoy.check_filter().await?;
        for sidecar in [Some(&mut self.sidecar), self.standby.as_mut()].into_iter().flatten() {
            if sidecar.is_running() {
                sidecar.terminate().await?;
            }
        }
        self.envoy.stop().await?;
        ensure!(self.containers.list().await?.is_empty(), "the sidecar left a container behind");
        self.sandbox.shutdown().await;
        for name in ["sidecar", "envoy"] {
            let log = std::fs::read_to_string(directory.join(format!("{name}.log")))?;
            for word in [SECRET, TOKEN, OTHER_TOKEN, "panicked"] {
                ensure!(!log.contains(word), "the log of {name} has the word {word}");
            }
        }
        Ok(())
    }

    /// Nothing is left of any runner: no container, network or volume, no registration.
    pub async fn settled(&self) -> Result<()> {
        eventually("nothing is left of any runner", async || {
            self.containers.nothing_else_is_left().await?;
            let containers = self.containers.list().await?;
            let left = self.sandbox.runners();
            ensure!(
                containers.is_empty() && left.is_empty(),
                "containers: {:?}; registrations: {:?}",
                containers.iter().map(|container| &container.names).collect::<Vec<_>>(),
                left.iter().map(|runner| &runner.name).collect::<Vec<_>>(),
            );
            Ok(Some(()))
        })
        .await
    }

    pub fn docker_gate(&self) -> &DockerGate {
        self.docker_gate.as_ref().expect("the options ask for a gate")
    }

    pub async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        self.envoy.send(webhook).await
    }

    /// Sends again what failed, as GitHub does when it is asked to.
    pub async fn redeliver(&self) -> Result<()> {
        let failed = eventually("deliveries have failed", async || {
            let mut deliveries = self.sandbox.deliveries();
            deliveries.retain(|delivery| !delivery.succeeded());
            Ok((!deliveries.is_empty()).then_some(deliveries))
        })
        .await?;
        for delivery in failed {
            let webhook = Webhook::new("workflow_job", delivery.payload().clone())
                .header("x-github-delivery", &delivery.guid);
            eventually("the delivery is accepted", async || {
                Ok((self.send(&webhook).await?.status == 202).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Queues one job for runners with this label, which works for a moment.
    pub fn queue_for(&self, label: &str) -> u64 {
        let labels = vec!["self-hosted".to_owned(), label.to_owned()];
        self.sandbox.queue_job(&JobRequest { labels, seconds: 0.1, ..JobRequest::default() })
    }

    /// Queues one job that works for so many seconds.
    pub fn queue(&self, seconds: f64) -> u64 {
        self.sandbox.queue_job(&JobRequest { seconds, ..JobRequest::default() })
    }

    /// Queues a job that ends only if it is cancelled, and waits until the sidecar
    /// knows that a runner is at work on it.
    pub async fn at_work(&self) -> Result<u64> {
        let id = self.queue(600.0);
        self.in_progress(id).await?;
        self.busy(id).await?;
        Ok(id)
    }

    /// Waits until the sidecar knows which runner has the job.
    pub async fn busy(&self, id: u64) -> Result<()> {
        eventually("the runner is known to be busy", async || {
            let status = self.sidecar.status().await?;
            let runners = status["runners"].as_array().context("no runners")?;
            Ok(runners.iter().any(|it| it["phase"] == "busy" && it["job_id"] == id).then_some(()))
        })
        .await
    }

    /// Cancels the job, and waits for its end.
    pub async fn cancel(&self, id: u64) -> Result<()> {
        self.sandbox.cancel_job(id)?;
        self.completed(id).await?;
        Ok(())
    }

    /// Waits until the job is running, and a container with it.
    pub async fn in_progress(&self, job: u64) -> Result<Job> {
        self.reached(job, JobStatus::InProgress).await
    }

    /// Waits until the job has written so many lines to its log.
    pub async fn log(&self, id: u64, lines: usize) -> Result<Vec<String>> {
        eventually(&format!("job {id} writes to its log"), async || {
            let job = self.sandbox.job(id).context("no such job")?;
            ensure!(job.log.len() >= lines, "{job:?}");
            Ok(Some(job.log))
        })
        .await
    }

    /// Waits until the job waits for this reason, and returns it in words.
    pub async fn waits_for(&self, id: u64, reason: &str) -> Result<String> {
        eventually(&format!("job {id} waits: {reason}"), async || {
            let waiting = self.sidecar.waiting(id).await?;
            Ok(waiting.filter(|(other, _)| other == reason).map(|(_, message)| message))
        })
        .await
    }

    pub async fn completed(&self, job: u64) -> Result<Job> {
        self.reached(job, JobStatus::Completed).await
    }

    async fn reached(&self, id: u64, status: JobStatus) -> Result<Job> {
        eventually(&format!("job {id} is {status:?}"), async || {
            let job = self.sandbox.job(id).context("no such job")?;
            ensure!(job.status == status, "it is {:?}", job.status);
            Ok(Some(job))
        })
        .await
    }

    /// Requests for runner credentials that GitHub has seen.
    pub fn launches(&self) -> usize {
        let calls = self.sandbox.calls();
        calls.iter().filter(|call| call.path.ends_with("/generate-jitconfig")).count()
    }
}

enum Failure {
    Error(anyhow::Error),
    Panic(Box<dyn std::any::Any + Send>),
}

fn print_log(name: &str, path: &Path) {
    let log = std::fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
    eprintln!("--- {name}\n{}", end.join("\n"));
}
