//! Everything that runs for one test.

use std::net::{Ipv4Addr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use edgerunner_sandbox::{Faults, Job, JobRequest, JobStatus, Sandbox, Settings};
use edgerunner_testkit::envoy::{self, Envoy};
use edgerunner_testkit::envoy_config::Sidecars;
use edgerunner_testkit::programs::LAUNCHER_IMAGE;
use edgerunner_testkit::swarm::Swarm;
use edgerunner_testkit::webhook::{self, SECRET};
use edgerunner_testkit::{
    Answer, Containers, Programs, Sidecar, Webhook, eventually, json_log, ports,
};
use futures_util::FutureExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::docker_proxy::DockerProxy;
use crate::engine::Engine;
use crate::options::{Edge, OTHER_TOKEN, Options, TOKEN};
use crate::shared_envoy::SharedEnvoy;

/// How much of each log a failed test prints.
const LOG_LINES: usize = 300;

pub struct Stack {
    pub sandbox: Sandbox,
    pub sidecar: Sidecar,
    /// Further ones behind the same Envoy, with [`Options::sidecars`].
    pub others: Vec<Sidecar>,
    pub envoy: Envoy,
    pub containers: Containers,
    docker_proxy: Option<DockerProxy>,
    jit_reuses: usize,
    _shared_engine: Option<Arc<Engine>>,
}

impl Stack {
    /// Starts everything, runs the test, stops everything. The test also fails if a
    /// container or registration is left, if the filter trapped, or if a secret was
    /// logged.
    pub async fn run<T>(mut options: Options, test: impl AsyncFnOnce(&mut Self) -> Result<T>) -> T {
        let directory = TempDir::new().expect("a temporary directory");
        let instance = format!("e2e-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
        if options.swarm.is_none() && options.engine.is_none() {
            options.swarm = Swarm::from_environment().expect("a Swarm");
        }
        let (engine, swarm) = (options.engine.clone(), options.swarm.clone());
        let watch = || match &swarm {
            Some(swarm) => Containers::watch_swarm(&swarm.engines, &instance),
            None => Containers::watch(engine.as_deref(), &instance),
        };
        let containers = watch().expect("Docker answers");
        let shared_envoy = options.shares_envoy().then(SharedEnvoy::take);
        let mut shared_envoy = shared_envoy.transpose().expect("a directory and a port for Envoy");
        let of_envoy = shared_envoy.as_ref().map_or(directory.path(), SharedEnvoy::directory);
        let directories =
            Directories { own: directory.path().to_owned(), of_envoy: of_envoy.to_owned() };
        let done = AssertUnwindSafe(async {
            let shared = shared_envoy.as_mut();
            let started = Self::start(options, &directories, &instance, containers, shared);
            let mut stack = Box::pin(started).await?;
            let tested = AssertUnwindSafe(Box::pin(test(&mut stack))).catch_unwind().await;
            Ok((stack, tested))
        })
        .catch_unwind()
        .await;
        let failure = match done {
            Ok(Ok((stack, tested))) => match tested {
                Ok(Ok(value)) => match Box::pin(stack.end(&directories, shared_envoy)).await {
                    Ok(()) => return value,
                    Err(error) => Failure::Error(error),
                },
                Ok(Err(error)) => Failure::Error(error),
                Err(panic) => Failure::Panic(panic),
            },
            Ok(Err(error)) => Failure::Error(error),
            Err(panic) => Failure::Panic(panic),
        };
        // The processes were killed, so nothing creates containers any more.
        for log in directories.logs() {
            print_log(&log);
        }
        let removed = match watch() {
            Ok(containers) => containers.remove_all().await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            eprintln!("cannot remove the containers of {instance}: {error:#}");
        }
        match failure {
            Failure::Error(error) => panic!("{error:#}"),
            Failure::Panic(panic) => std::panic::resume_unwind(panic),
        }
    }

    async fn start(
        options: Options,
        directories: &Directories,
        instance: &str,
        containers: Containers,
        shared_envoy: Option<&mut SharedEnvoy>,
    ) -> Result<Self> {
        let directory = &*directories.own;
        let mut programs = Programs::from_environment()?;
        if let Some(program) = options.sidecar_program {
            programs.sidecar = program;
        }
        let mut settings = Settings {
            tokens: vec![TOKEN.to_owned(), OTHER_TOKEN.to_owned()],
            webhook_secret: SECRET.to_owned(),
            enterprise: options.enterprise,
            webhook_kind: options.hook,
            runner_lost_after: Duration::from_secs(2),
            ..Settings::default()
        };
        if let Some(requests) = options.requests_per_hour {
            settings.requests_per_hour = requests;
        }
        let gateway = options.swarm.as_ref().map(|swarm| swarm.gateway);
        let address = options.github.or(gateway).unwrap_or(Ipv4Addr::LOCALHOST.into());
        let sandbox = Sandbox::start(TcpListener::bind((address, 0)).await?, settings)?;
        let docker_proxy = match (options.docker_proxy, &options.swarm) {
            (true, None) => Some(DockerProxy::start(directory, None)?),
            (true, Some(swarm)) => Some(DockerProxy::start(directory, swarm.engines.first())?),
            (false, _) => None,
        };
        let mut environment = vec![
            ("GITHUB_API_URL".to_owned(), sandbox.url()),
            // It may listen where containers with a network of their own reach it.
            ("GITHUB_ALLOW_HTTP".to_owned(), "true".to_owned()),
            ("GITHUB_WEB_URL".to_owned(), sandbox.url()),
            ("GITHUB_TOKEN".to_owned(), TOKEN.to_owned()),
            ("SCHEDULER_INSTANCE".to_owned(), instance.to_owned()),
            ("RUNNER_IDLE_TIMEOUT_SECONDS".to_owned(), "1".to_owned()),
            // Tests lose webhooks to see what happens without them.
            ("MISSED_WEBHOOKS_ENABLED".to_owned(), "false".to_owned()),
            ("LOG_FORMAT".to_owned(), "json".to_owned()),
            ("LOG_LEVEL".to_owned(), "info,edgerunner=debug".to_owned()),
        ];
        let proxy = docker_proxy.as_ref().map(DockerProxy::host);
        if let Some(swarm) = &options.swarm {
            let managers = proxy.unwrap_or_else(|| swarm.managers().join(","));
            environment.extend([
                ("SWARM_MANAGERS".to_owned(), managers),
                ("SWARM_LAUNCHER_IMAGE".to_owned(), LAUNCHER_IMAGE.to_owned()),
                ("RUNNER_PROVIDER".to_owned(), "swarm".to_owned()),
            ]);
        } else if let Some(host) = options.engine.or(proxy) {
            environment.push(("DOCKER_HOST".to_owned(), host));
        }
        if let Some(text) = options.file {
            let path = directory.join("edgerunner.toml");
            std::fs::write(&path, text)?;
            environment.push(("EDGERUNNER_CONFIG".to_owned(), path.display().to_string()));
        }
        if let Some(url) = &options.store_url {
            environment.push(("STORE_URL".to_owned(), url.clone()));
        }
        environment.extend(options.sidecar);
        let socket = directory.join("grpc.sock");
        match options.edge {
            Edge::Plain => {}
            Edge::UnixSocket => environment
                .push(("SERVER_GRPC_ADDRESS".to_owned(), format!("unix:{}", socket.display()))),
            Edge::Production => environment.extend(envoy::mutual_tls(directory)?),
        }
        let mut others = Vec::new();
        for number in 2..2 + options.other_sidecars {
            let own = directory.join(format!("sidecar-{number}"));
            std::fs::create_dir(&own)?;
            let mut environment = environment.clone();
            if options.store_url.is_none() {
                let instance = format!("{instance}-{number}");
                environment.push(("SCHEDULER_INSTANCE".to_owned(), instance));
            }
            others.push(sidecar(&programs, &own, ports::free()?, environment)?);
        }
        let (used_envoy, grpc) = match shared_envoy {
            Some(shared) => (shared.envoy.take(), shared.sidecar()),
            None => (None, ports::free()?),
        };
        let mut sidecar = sidecar(&programs, directory, grpc, environment)?;
        for sidecar in [&mut sidecar].into_iter().chain(&mut others) {
            sidecar.start().await?;
        }
        let all = [&sidecar].into_iter().chain(&others);
        let addresses: Vec<SocketAddr> = all.map(Sidecar::grpc_address).collect();
        let sidecars = match options.edge {
            Edge::Plain => Sidecars::Plain(addresses),
            Edge::Production => Sidecars::MutualTls(addresses),
            Edge::UnixSocket => {
                ensure!(others.is_empty(), "a Unix socket is for one sidecar");
                Sidecars::UnixSocket(socket)
            }
        };
        let envoy = match used_envoy {
            Some(envoy) => {
                envoy.forget().await?;
                envoy
            }
            None => {
                let mut environment = vec![("GITHUB_WEBHOOK_SECRET".to_owned(), SECRET.to_owned())];
                environment.extend(options.envoy);
                let settings = envoy::Settings {
                    configuration: options.own_envoy,
                    changes: options.envoy_configuration,
                    environment,
                    // By default a line of the access log may wait for 10 s.
                    arguments: ["--concurrency", "1", "--file-flush-interval-msec", "50"]
                        .map(str::to_owned)
                        .into(),
                    ..envoy::Settings::new(&directories.of_envoy, sidecars)?
                };
                Envoy::spawn(&programs, settings)?
            }
        };
        envoy.ready_with_sidecars().await?;
        if options.edge == Edge::Plain {
            sandbox.set_webhook_url(format!("http://{}{}", envoy.address(), webhook::PATH));
        }
        let (jit_reuses, _shared_engine) = (options.jit_reuses, options.shared_engine);
        Ok(Self {
            sandbox,
            sidecar,
            others,
            envoy,
            containers,
            docker_proxy,
            jit_reuses,
            _shared_engine,
        })
    }

    async fn end(
        mut self,
        directories: &Directories,
        shared_envoy: Option<SharedEnvoy>,
    ) -> Result<()> {
        self.sandbox.set_faults(Faults::default());
        self.knows_what_ended().await?;
        self.settled().await?;
        self.envoy.check_filter().await?;
        for sidecar in self.sidecars_mut() {
            if sidecar.is_running() {
                sidecar.terminate().await?;
            }
        }
        let shared = match shared_envoy {
            Some(shared) => Some((shared, self.envoy)),
            None => {
                self.envoy.stop().await?;
                None
            }
        };
        ensure!(self.containers.list().await?.is_empty(), "the sidecar left a container behind");
        let reuses = self.sandbox.jit_reuses();
        ensure!(reuses <= self.jit_reuses, "{reuses} runners were started a second time");
        self.sandbox.shutdown().await;
        for path in directories.logs() {
            let log = std::fs::read_to_string(&path)?;
            for word in [SECRET, TOKEN, OTHER_TOKEN, "panicked"] {
                ensure!(!log.contains(word), "{} contains {word}", path.display());
            }
        }
        for sidecar in [&self.sidecar].into_iter().chain(&self.others) {
            json_log::check(&sidecar.log()?)?;
        }
        if let Some((shared, envoy)) = shared {
            shared.leave(envoy);
        }
        Ok(())
    }

    /// All sidecars, those that do not run included.
    pub fn sidecars(&self) -> impl Iterator<Item = &Sidecar> {
        [&self.sidecar].into_iter().chain(&self.others)
    }

    pub fn sidecars_mut(&mut self) -> impl Iterator<Item = &mut Sidecar> {
        [&mut self.sidecar].into_iter().chain(&mut self.others)
    }

    /// Waits until no job that is over still waits for a runner: for one whose webhook is on its
    /// way, a runner may be launched at any moment, also after [`Self::settled`].
    async fn knows_what_ended(&self) -> Result<()> {
        // The sandbox does not know jobs that a test has made up, and which nothing serves.
        let over =
            |id: &u64| self.sandbox.job(*id).is_some_and(|job| job.status == JobStatus::Completed);
        for sidecar in self.sidecars().filter(|sidecar| sidecar.is_running()) {
            eventually("the sidecar knows which jobs are over", async || {
                let status = sidecar.status().await?;
                let waiting = status["waiting"].as_array().context("no waiting jobs")?;
                let over: Vec<u64> =
                    waiting.iter().filter_map(|job| job["job_id"].as_u64()).filter(over).collect();
                ensure!(over.is_empty(), "these wait and are over: {over:?}");
                Ok(Some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until no runner has left a container, network, volume or registration.
    pub async fn settled(&self) -> Result<()> {
        eventually("all runners are gone", async || {
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

    pub fn docker_proxy(&self) -> &DockerProxy {
        self.docker_proxy.as_ref().expect("Options::docker_proxy")
    }

    pub async fn send(&self, webhook: &Webhook) -> Result<Answer> {
        self.envoy.send(webhook).await
    }

    /// Redelivers what has failed, once the job's `in_progress` is answered: whether the filter
    /// has waited long enough for the sidecar depends on how busy the machine is.
    pub async fn redeliver(&self, job: u64) -> Result<()> {
        let deliveries = eventually("the job's webhook is answered", async || {
            let deliveries = self.sandbox.deliveries();
            let answered = deliveries
                .iter()
                .any(|it| it.job_id == Some(job) && it.action.as_deref() == Some("in_progress"));
            Ok(answered.then_some(deliveries))
        })
        .await?;
        for delivery in deliveries.into_iter().filter(|it| !it.succeeded()) {
            let webhook = Webhook::new("workflow_job", delivery.payload().clone())
                .header("x-github-delivery", &delivery.guid);
            eventually("the delivery is accepted", async || {
                Ok((self.send(&webhook).await?.status == 202).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Queues one short job for runners with this label.
    pub fn queue_for(&self, label: &str) -> u64 {
        let labels = vec!["self-hosted".to_owned(), label.to_owned()];
        self.sandbox.queue_job(&JobRequest { labels, seconds: 0.1, ..JobRequest::default() })
    }

    /// Queues one job of this duration.
    pub fn queue(&self, seconds: f64) -> u64 {
        self.sandbox.queue_job(&JobRequest { seconds, ..JobRequest::default() })
    }

    /// Queues a job that ends only if it is cancelled, and waits until the sidecar knows
    /// its runner.
    pub async fn at_work(&self) -> Result<u64> {
        let id = self.queue(600.0);
        self.in_progress(id).await?;
        self.busy(id).await?;
        Ok(id)
    }

    /// Waits until the sidecar knows the job's runner.
    pub async fn busy(&self, id: u64) -> Result<()> {
        eventually("the runner is known to be busy", async || {
            let status = self.sidecar.status().await?;
            let runners = status["runners"].as_array().context("no runners")?;
            Ok(runners.iter().any(|it| it["phase"] == "busy" && it["job_id"] == id).then_some(()))
        })
        .await
    }

    /// Cancels the job and waits until it is completed.
    pub async fn cancel(&self, id: u64) -> Result<()> {
        self.sandbox.cancel_job(id)?;
        self.completed(id).await?;
        Ok(())
    }

    /// Waits until the job is running in a container.
    pub async fn in_progress(&self, job: u64) -> Result<Job> {
        self.reached(job, JobStatus::InProgress).await
    }

    /// Waits until the job's log has this many lines.
    pub async fn log(&self, id: u64, lines: usize) -> Result<Vec<String>> {
        eventually(&format!("job {id} writes to its log"), async || {
            let job = self.sandbox.job(id).context("no such job")?;
            ensure!(job.log.len() >= lines, "{job:?}");
            Ok(Some(job.log))
        })
        .await
    }

    /// Waits until the job waits for this reason, and returns the message.
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

    /// Waits until the sidecar knows that the job is completed. Returns it as the API does.
    pub async fn known_as_completed(&self, job: u64) -> Result<Value> {
        eventually("the sidecar knows that the job is completed", async || {
            let job = self.sidecar.job(job).await?;
            Ok((job["state"] == "completed").then_some(job))
        })
        .await
    }

    async fn reached(&self, id: u64, status: JobStatus) -> Result<Job> {
        eventually(&format!("job {id} is {status:?}"), async || {
            let job = self.sandbox.job(id).context("no such job")?;
            ensure!(job.status == status, "it is {:?}", job.status);
            Ok(Some(job))
        })
        .await
    }

    /// Counts the requests for runner credentials.
    pub fn launches(&self) -> usize {
        let calls = self.sandbox.calls();
        calls.iter().filter(|call| call.path.ends_with("/generate-jitconfig")).count()
    }
}

fn sidecar(
    programs: &Programs,
    directory: &Path,
    grpc: SocketAddr,
    environment: Vec<(String, String)>,
) -> Result<Sidecar> {
    let addresses = (grpc, ports::free()?);
    Ok(Sidecar::new(programs, directory, addresses, environment).with_sandbox_runners())
}

enum Failure {
    Error(anyhow::Error),
    Panic(Box<dyn std::any::Any + Send>),
}

struct Directories {
    own: PathBuf,
    of_envoy: PathBuf,
}

impl Directories {
    /// The logs of the sidecars and of Envoy.
    fn logs(&self) -> Vec<PathBuf> {
        let of_others = (2..).map(|number| self.own.join(format!("sidecar-{number}/sidecar.log")));
        let of_others = of_others.take_while(|path| path.exists());
        let first = [self.own.join("sidecar.log"), envoy::log_path(&self.of_envoy)];
        first.into_iter().chain(of_others).collect()
    }
}

fn print_log(path: &Path) {
    let log = std::fs::read(path).unwrap_or_default();
    let log = String::from_utf8_lossy(&log);
    let lines: Vec<&str> = log.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES)..];
    eprintln!("--- {}\n{}", path.display(), end.join("\n"));
}
