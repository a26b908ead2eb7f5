//! The configuration: one TOML file, and environment variables that beat it.
//!
//! Both are brought into one tree, from which the sections are read. Whatever
//! is wrong is recorded, taken out, and reading goes on: people get all their
//! errors at once. The JSON schema of the sections says which variables
//! there are, of which type, and what to write instead of a mistake.

mod check;
mod credential;
mod document;
mod environment;
mod error;
mod file;
mod grpc_address;
mod job_script;
mod network;
mod pool;
mod proxy;
#[cfg(test)]
mod reference;
mod registry;
mod restart_required;
mod schedule;
mod schema;
mod sections;
#[cfg(test)]
mod tests;
mod webhook;

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow};
use schemars::JsonSchema;

pub(crate) use self::check::ulimit_of;
pub(crate) use self::{
    credential::{CredentialConfig, Identity, private_key_problem},
    error::{ConfigError, ConfigErrors},
    grpc_address::{GrpcAddress, TlsFiles},
    network::Certificates,
    pool::{PoolConfig, RunnerGroup},
    proxy::Proxy,
    restart_required::RestartRequired,
    sections::{
        Container, Docker, DockerAccess, GitHub, Log, LogFormat, MissedWebhooks, PullPolicy,
        RegistrationMethod, Registry, Runner, Scheduler, Server, Store, Traces, Webhook,
    },
};
use self::{document::Document, network::read_ca, schema::Schema};
use edgerunner_scheduler::plan;

#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("required" = []))]
pub(crate) struct Config {
    pub server: Server,
    pub store: Store,
    pub github: GitHub,
    pub missed_webhooks: MissedWebhooks,
    pub docker: Docker,
    #[schemars(extend("additionalProperties" = false))]
    pub runner: Runner,
    pub scheduler: Scheduler,
    pub log: Log,
    pub traces: Traces,
    /// Credentials for some targets each; the first that matches a target serves it, and
    /// `github.token` those that none matches, as the last of these.
    #[schemars(
        with = "Vec<sections::Credential>",
        extend("x-write" = "[[credentials]] above each credential's own fields")
    )]
    pub credentials: Vec<CredentialConfig>,
    /// Webhooks whose secrets the filter is told over gRPC, which must then be open to
    /// nobody else.
    #[schemars(extend("x-write" = "[[webhooks]] above each webhook's own fields"))]
    pub webhooks: Vec<Webhook>,
    /// Credentials of registries that images are pulled from.
    #[schemars(extend("x-write" = "[[registries]] above each registry's own fields"))]
    pub registries: Vec<Registry>,
    /// Runners that differ from `[runner]` and `[docker]`. Without any there is
    /// one pool, named `default`; so this is never empty.
    #[schemars(
        with = "Vec<sections::Pool>",
        extend("x-write" = "[[pools]] above each pool's own fields")
    )]
    pub pools: Vec<PoolConfig>,
    /// Nothing that is written.
    #[schemars(skip)]
    pub restart_required: RestartRequired,
}

impl Config {
    /// For commands that may do without a token.
    pub(crate) fn load(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let (document, config) = Self::read(file, env);
        document.into_result(config)
    }

    /// As `load`, and a missing token is a mistake among the others.
    pub(crate) fn load_to_serve(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let (mut document, config) = Self::read(file, env);
        document.check_tokens(&config);
        document.into_result(config)
    }

    fn read(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> (Document, Self) {
        let mut document = Document::new();
        if let Some(file) = file {
            document.read_file(file);
        }
        document.check_names();
        document.read_environment(env);
        let restart_required = RestartRequired::of(&document.tree);
        document.read_secret_files();
        document.check_ranges();
        let mut config = Self {
            server: document.read("/server"),
            store: document.read("/store"),
            github: document.read("/github"),
            missed_webhooks: document.read("/missed_webhooks"),
            docker: Docker {
                host: document.read("/docker/host"),
                container: document.read("/docker"),
            },
            runner: document.read("/runner"),
            scheduler: document.read("/scheduler"),
            log: document.read("/log"),
            traces: document.read("/traces"),
            credentials: Vec::new(),
            webhooks: document.read_webhooks(),
            registries: document.read_registries(),
            pools: Vec::new(),
            restart_required,
        };
        document.check_sections(&config);
        config.credentials = document.read_credentials(&config.github, env);
        config.pools = document.read_pools();
        (document, config)
    }

    /// The JSON schema of the file.
    pub(crate) fn schema() -> serde_json::Value {
        Schema::of_config().0
    }

    pub(crate) fn planner_settings(&self) -> plan::Settings {
        plan::Settings {
            pools: self.pools.iter().map(PoolConfig::planner_pool).cloned().collect(),
            credentials: self.planned_credentials(),
            providers: vec!["Docker".into()],
            max: self.scheduler.max.unwrap_or(usize::MAX),
            max_per_repository: self.scheduler.max_per_repository.unwrap_or(usize::MAX),
            instance: self.scheduler.instance.clone(),
        }
    }

    pub(crate) fn planned_credentials(&self) -> Vec<plan::Credential> {
        self.credentials.iter().map(CredentialConfig::planned).collect()
    }
}

impl GitHub {
    /// CAs that are trusted beside the system's.
    pub(crate) fn certificates(&self) -> Result<Certificates> {
        match &self.ca_file {
            Some(file) => read_ca(file).map_err(|why| anyhow!("github.ca_file: {why}")),
            None => Ok(Certificates::new()),
        }
    }

    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    fn web_url(&self) -> String {
        self.web_url.clone().unwrap_or_else(|| credential::web_url_of(&self.api_url))
    }
}
