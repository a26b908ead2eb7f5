//! Sandbox, sidecar and Envoy as `cargo xtask up` and the benchmarks run them: each is
//! a separate process.

use std::net::{IpAddr, SocketAddr};
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

pub struct Settings {
    pub ports: Ports,
    /// For logs, the database and Envoy's files.
    pub directory: PathBuf,
    pub instance: String,
    /// Starts `production.yaml` instead of `envoy.yaml`.
    pub tls: bool,
    pub envoy_workers: u32,
    /// Address that the sandbox listens on, where runners reach it.
    pub github: IpAddr,
}

pub struct Deployment {
    pub settings: Settings,
    pub programs: Programs,
    pub containers: Containers,
    sidecar: Option<Sidecar>,
    envoy: Option<Envoy>,
    /// The sandbox and the caller's programs, in the order in which they were started.
    others: Vec<Process>,
}

/// The secrets that sandbox, sidecar and Envoy share.
pub struct Secrets {
    /// The token for GitHub's API.
    pub token: String,
    pub webhook: String,
    /// The sidecar's `server.api_token`.
    pub api_token: String,
}

impl Secrets {
    pub fn random() -> Self {
        Self {
            token: format!("sandbox-{}", uuid::Uuid::new_v4().simple()),
            webhook: uuid::Uuid::new_v4().simple().to_string(),
            api_token: uuid::Uuid::new_v4().simple().to_string(),
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
        let secret = ("GITHUB_WEBHOOK_SECRET".to_owned(), secrets.webhook.clone());
        let (envoy, tls) = self.envoy_settings(vec![secret])?;
        let listen = SocketAddr::new(self.settings.github, self.settings.ports.sandbox);
        let mut sandbox = self.programs.command(&self.programs.sandbox);
        sandbox
            .arg("serve")
            .args(["--listen", &listen.to_string(), "--webhook-url", &self.webhook_url()])
            .env("GITHUB_TOKEN", &secrets.token)
            .env("GITHUB_WEBHOOK_SECRET", &secrets.webhook);
        if let Some(ca) = envoy.ca() {
            sandbox.arg("--webhook-ca").arg(ca);
        }
        self.start("sandbox", sandbox, (listen, "/_sandbox/")).await?;

        let github = format!("http://{listen}");
        let variables = [
            ("GITHUB_API_URL", &*github),
            ("GITHUB_WEB_URL", &github),
            ("GITHUB_TOKEN", &secrets.token),
            ("GITHUB_WEBHOOK_SECRET", &secrets.webhook),
            ("SERVER_API_TOKEN", &secrets.api_token),
            ("SCHEDULER_INSTANCE", &self.settings.instance),
            ("SCHEDULER_SHUTDOWN_GRACE_SECONDS", "5"),
            ("LOG_FORMAT", "human"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let more = sidecar.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let sidecar = self.new_sidecar(variables.into_iter().chain(tls).chain(more));
        self.start_sidecar_and_envoy(sidecar.with_sandbox_runners(), envoy).await
    }

    /// Starts everything with GitHub's credentials from the environment.
    pub async fn start_with_github(&mut self) -> Result<()> {
        let variable = |name: &str| Some((name.to_owned(), std::env::var(name).ok()?));
        let secrets = ["GITHUB_WEBHOOK_SECRET", "GITHUB_WEBHOOK_SECRET_PREVIOUS"];
        let secrets = secrets.into_iter().filter_map(variable).collect();
        let (envoy, tls) = self.envoy_settings(secrets)?;
        let Settings { ports, directory, instance, .. } = &self.settings;
        let defaults = [
            ("SCHEDULER_INSTANCE", instance.clone()),
            ("STORE_PATH", directory.join("edgerunner.db").display().to_string()),
        ];
        let listen = [
            ("SERVER_GRPC_ADDRESS", local(ports.grpc).to_string()),
            ("SERVER_HTTP_ADDRESS", local(ports.http).to_string()),
        ];
        let named = |(name, value): (&str, String)| (name.to_owned(), value);
        let inherited = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let environment = defaults.map(named).into_iter().chain(inherited);
        let sidecar = self.new_sidecar(environment.chain(listen.map(named)).chain(tls));
        // The checkout may have a configuration file.
        self.start_sidecar_and_envoy(sidecar.runs_in(workspace::root()), envoy).await
    }

    /// Returns the sidecar's variables for TLS as well.
    fn envoy_settings(
        &self,
        environment: Vec<(String, String)>,
    ) -> Result<(envoy::Settings, Vec<(String, String)>)> {
        let Settings { ports, directory, tls, envoy_workers, .. } = &self.settings;
        let sidecar = vec![local(ports.grpc)];
        let (sidecars, variables) = match tls {
            true => (Sidecars::MutualTls(sidecar), envoy::mutual_tls(directory)?),
            false => (Sidecars::Plain(sidecar), Vec::new()),
        };
        let settings = envoy::Settings {
            listener: local(ports.envoy),
            admin: local(ports.envoy_admin),
            environment,
            arguments: envoy_arguments(*envoy_workers),
            ..envoy::Settings::new(directory, sidecars)?
        };
        Ok((settings, variables))
    }

    fn new_sidecar(&self, environment: impl IntoIterator<Item = (String, String)>) -> Sidecar {
        let Settings { ports, directory, .. } = &self.settings;
        let addresses = (local(ports.grpc), local(ports.http));
        Sidecar::new(&self.programs, directory, addresses, environment)
    }

    /// One after the other: Envoy's first health check must find the sidecar.
    async fn start_sidecar_and_envoy(
        &mut self,
        sidecar: Sidecar,
        envoy: envoy::Settings,
    ) -> Result<()> {
        self.remove_file("sidecar.log")?;
        self.sidecar.insert(sidecar).start().await?;
        self.remove_file("envoy.log")?;
        self.envoy.insert(Envoy::spawn(&self.programs, envoy)?).ready().await
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

    /// Ends a further program.
    pub async fn stop_other(&mut self, name: &str) -> Result<()> {
        let at = self.others.iter().position(|process| process.name() == name);
        let process = self.others.remove(at.with_context(|| format!("no {name}"))?);
        process.stop(STOP_GRACE).await;
        Ok(())
    }

    /// Ends the sidecar, and starts it after a while.
    pub async fn restart_sidecar(&mut self, away: Duration) -> Result<()> {
        let sidecar = self.sidecar.as_mut().context("no sidecar")?;
        sidecar.terminate().await?;
        tokio::time::sleep(away).await;
        sidecar.start().await
    }

    /// Ends the sidecar, and starts it with these variables changed.
    pub async fn reconfigure_sidecar(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let sidecar = self.sidecar.as_mut().context("no sidecar")?;
        sidecar.terminate().await?;
        for (name, value) in variables {
            sidecar.configure(name, value);
        }
        sidecar.start().await
    }

    pub fn sidecar(&self) -> Result<&Sidecar> {
        self.sidecar.as_ref().context("no sidecar")
    }

    pub fn envoy(&self) -> Result<&Envoy> {
        self.envoy.as_ref().context("no Envoy")
    }

    pub fn sandbox(&self) -> SandboxClient {
        let Settings { github, ports, .. } = &self.settings;
        SandboxClient::new(SocketAddr::new(*github, ports.sandbox))
    }

    pub fn webhook_url(&self) -> String {
        let scheme = if self.settings.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", local(self.settings.ports.envoy), webhook::PATH)
    }

    /// The file with the CA of Envoy's certificate, if it speaks TLS.
    pub fn ca(&self) -> Option<&Path> {
        self.envoy.as_ref()?.ca()
    }

    /// In the order in which they were started.
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

/// Limits the log to the access log and the filter's messages.
pub fn envoy_arguments(workers: u32) -> Vec<String> {
    let workers = workers.to_string();
    ["--concurrency", &workers, "--log-level", "warning", "--component-log-level", "wasm:info"]
        .map(str::to_owned)
        .into()
}
