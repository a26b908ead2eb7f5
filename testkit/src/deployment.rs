//! Sandbox, sidecar and Envoy as `cargo xtask up` and the benchmarks run them: each a
//! process of its own, with one set of ports.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::{FutureExt, select_all};
use tokio::process::Command;

use crate::envoy::{self, Envoy};
use crate::envoy_config::Sidecars;
use crate::ports::{Ports, local};
use crate::sandbox::SandboxClient;
use crate::{Containers, Process, Programs, Sidecar, webhook, workspace};

/// Longer than the sidecar waits for launches in progress.
const STOP_GRACE: Duration = Duration::from_secs(40);
/// Nobody listens there: the standby of `production.yaml` is down.
const NO_STANDBY: u16 = 1;

pub struct Settings {
    pub ports: Ports,
    /// For logs, the database and Envoy's files.
    pub directory: PathBuf,
    pub instance: String,
    /// Starts `production.yaml` instead of `envoy.yaml`.
    pub tls: bool,
    pub envoy_workers: u32,
}

pub struct Deployment {
    settings: Settings,
    programs: Programs,
    pub containers: Containers,
    sidecar: Option<Sidecar>,
    envoy: Option<Envoy>,
    /// In the order of their start: the sandbox, and programs of the caller.
    others: Vec<Process>,
}

/// The secrets that sandbox, sidecar and Envoy share.
pub struct Secrets {
    /// Of GitHub's API.
    pub token: String,
    pub webhook: String,
}

impl Secrets {
    pub fn random() -> Self {
        Self {
            token: format!("sandbox-{}", uuid::Uuid::new_v4().simple()),
            webhook: uuid::Uuid::new_v4().simple().to_string(),
        }
    }
}

impl Deployment {
    /// Needs a Docker Engine. Nothing runs yet.
    pub fn new(programs: &Programs, settings: Settings) -> Result<Self> {
        let directory = &settings.directory;
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(Self {
            programs: Programs { own_groups: true, ..programs.clone() },
            containers: Containers::watch(None, &settings.instance)?,
            settings,
            sidecar: None,
            envoy: None,
            others: Vec::new(),
        })
    }

    /// Starts everything with an empty database and the sandbox in GitHub's place.
    pub async fn start_with_sandbox(
        &mut self,
        secrets: &Secrets,
        sidecar: &[(&str, String)],
    ) -> Result<()> {
        // The sandbox has forgotten earlier jobs and runners.
        for suffix in ["", "-wal", "-shm"] {
            self.remove_file(&format!("edgerunner.db{suffix}"))?;
        }
        self.containers.remove_all().await?;
        let tls = self.tls()?;
        let Settings { ports, directory, instance, .. } = &self.settings;
        let github = format!("http://{}", local(ports.sandbox));
        let mut environment: Vec<(String, String)> = [
            ("GITHUB_API_URL", &*github),
            ("GITHUB_WEB_URL", &github),
            ("GITHUB_TOKEN", &secrets.token),
            ("GITHUB_WEBHOOK_SECRET", &secrets.webhook),
            ("SCHEDULER_INSTANCE", instance),
            ("SCHEDULER_SHUTDOWN_GRACE_SECONDS", "5"),
            ("LOG_FORMAT", "human"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        environment.extend(tls);
        environment.extend(sidecar.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let addresses = (local(ports.grpc), local(ports.http));
        let sidecar =
            Sidecar::new(&self.programs, directory, addresses, environment).with_sandbox_runners();
        let webhooks = vec![("GITHUB_WEBHOOK_SECRET".to_owned(), secrets.webhook.clone())];
        self.envoy = Some(self.spawn_envoy(webhooks)?);

        let mut sandbox = self.programs.command(&self.programs.sandbox);
        sandbox
            .arg("serve")
            .args(["--listen", &local(self.settings.ports.sandbox).to_string()])
            .args(["--webhook-url", &self.webhook_url()])
            .env("GITHUB_TOKEN", &secrets.token)
            .env("GITHUB_WEBHOOK_SECRET", &secrets.webhook);
        if let Some(ca) = self.ca() {
            sandbox.arg("--webhook-ca").arg(ca);
        }
        self.start("sandbox", sandbox, (local(self.settings.ports.sandbox), "/_sandbox/")).await?;
        self.start_sidecar(sidecar).await
    }

    /// Starts everything with GitHub's credentials from the environment.
    pub async fn start_with_github(&mut self) -> Result<()> {
        let Settings { ports, directory, instance, .. } = &self.settings;
        let store = directory.join("edgerunner.db").display().to_string();
        let mut environment = vec![
            ("SCHEDULER_INSTANCE".to_owned(), instance.clone()),
            ("STORE_PATH".to_owned(), store),
        ];
        let inherited = std::env::vars_os();
        environment.extend(inherited.filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        }));
        let listen = [("SERVER_GRPC_ADDRESS", ports.grpc), ("SERVER_HTTP_ADDRESS", ports.http)];
        environment.extend(listen.map(|(name, port)| (name.to_owned(), local(port).to_string())));
        environment.extend(self.tls()?);
        let addresses = (local(ports.grpc), local(ports.http));
        // The checkout may have a configuration file.
        let sidecar = Sidecar::new(&self.programs, directory, addresses, environment)
            .runs_in(workspace::root());
        let secrets = ["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_PREVIOUS"];
        let secrets = secrets
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
            .collect();
        self.envoy = Some(self.spawn_envoy(secrets)?);
        self.start_sidecar(sidecar).await
    }

    /// Returns the sidecar's variables.
    fn tls(&self) -> Result<Vec<(String, String)>> {
        match self.settings.tls {
            true => envoy::mutual_tls(&self.settings.directory),
            false => Ok(Vec::new()),
        }
    }

    fn spawn_envoy(&self, environment: Vec<(String, String)>) -> Result<Envoy> {
        self.remove_file("envoy.log")?;
        let Settings { ports, directory, tls, envoy_workers, .. } = &self.settings;
        let sidecars = match tls {
            true => Sidecars::MutualTls([local(ports.grpc), local(NO_STANDBY)]),
            false => Sidecars::Plain(local(ports.grpc)),
        };
        let settings = envoy::Settings {
            listener: local(ports.envoy),
            admin: local(ports.envoy_admin),
            environment,
            arguments: envoy_arguments(*envoy_workers),
            ..envoy::Settings::new(directory, sidecars)?
        };
        Envoy::spawn(&self.programs, settings)
    }

    async fn start_sidecar(&mut self, sidecar: Sidecar) -> Result<()> {
        self.remove_file("sidecar.log")?;
        let sidecar = self.sidecar.insert(sidecar);
        sidecar.start().await?;
        self.envoy()?.ready().await
    }

    /// Starts a further program and waits until it answers with 2xx.
    pub async fn start(
        &mut self,
        name: &'static str,
        mut command: Command,
        (address, path): (SocketAddr, &str),
    ) -> Result<()> {
        let log = format!("{name}.log");
        self.remove_file(&log)?;
        command.process_group(0);
        self.others.push(Process::start(name, command, &self.settings.directory.join(log))?);
        self.other(name)?.answers(address, path).await
    }

    pub fn other(&self, name: &str) -> Result<&Process> {
        let mut others = self.others.iter();
        others.find(|process| process.name() == name).with_context(|| format!("no {name}"))
    }

    pub fn sidecar(&self) -> Result<&Sidecar> {
        self.sidecar.as_ref().context("no sidecar")
    }

    pub fn envoy(&self) -> Result<&Envoy> {
        self.envoy.as_ref().context("no Envoy")
    }

    pub fn sandbox(&self) -> SandboxClient {
        SandboxClient::new(local(self.settings.ports.sandbox))
    }

    pub fn ports(&self) -> &Ports {
        &self.settings.ports
    }

    pub fn directory(&self) -> &Path {
        &self.settings.directory
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn webhook_url(&self) -> String {
        let scheme = if self.settings.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", local(self.settings.ports.envoy), webhook::PATH)
    }

    /// The file with the CA of Envoy's certificate, if it speaks TLS.
    pub fn ca(&self) -> Option<PathBuf> {
        self.envoy.as_ref()?.ca()
    }

    /// In the order of their start.
    fn processes(&self) -> Vec<&Process> {
        let sidecar = self.sidecar.iter().filter_map(|sidecar| sidecar.process().ok());
        let envoy = self.envoy.iter().map(Envoy::process);
        self.others.iter().chain(sidecar).chain(envoy).collect()
    }

    /// Waits until one of them ends unexpectedly.
    pub async fn died(&self) -> anyhow::Error {
        let processes = self.processes();
        match processes.is_empty() {
            true => std::future::pending().await,
            false => select_all(processes.into_iter().map(|it| it.died().boxed())).await.0,
        }
    }

    /// Stops everything, the last one first, and removes the containers.
    pub async fn stop(self) {
        for process in self.processes().into_iter().rev() {
            process.stop(STOP_GRACE).await;
        }
        // After the sidecar, which would replace them.
        match self.containers.remove_all().await {
            Ok(0) => {}
            Ok(count) => eprintln!("removed {count} runner container(s)"),
            Err(error) => eprintln!("{error:#}; check `docker ps -a`"),
        }
    }

    fn remove_file(&self, name: &str) -> Result<()> {
        let path = self.settings.directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The log has only the access log and the filter's lines.
pub fn envoy_arguments(workers: u32) -> Vec<String> {
    let workers = workers.to_string();
    ["--concurrency", &workers, "--log-level", "warning", "--component-log-level", "wasm:info"]
        .map(str::to_owned)
        .into()
}
