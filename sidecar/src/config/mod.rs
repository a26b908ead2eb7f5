//! The configuration: one TOML file, and environment variables that override it.
//!
//! Both are merged into one tree, from which the sections are read. An invalid value is
//! reported and removed from the tree, and reading goes on, so that users see all errors at
//! once. The JSON schema of the sections says which settings and variables exist, which type
//! they have, and what to write instead of an invalid value.

mod check;
mod credential;
mod database;
mod devices;
mod dind;
mod document;
mod egress;
mod engine_address;
mod environment;
mod error;
mod file;
mod fingerprints;
mod job_script;
mod kubernetes;
mod label_parameters;
mod listen_address;
mod network;
mod notifications;
mod pod_template;
mod pool;
mod provider_name;
mod proxy;
#[cfg(test)]
mod reference;
mod registry;
mod reserves;
mod restart_required;
mod schedule;
mod schema;
mod sections;
mod server;
mod swarm;
#[cfg(test)]
mod tests;
mod tool_cache;
mod warnings;
mod webhook;

use std::{path::Path, time::Duration};

use anyhow::{Result, anyhow};

pub(crate) use self::check::{is_loopback, ulimit_of, url_problem};
pub(crate) use self::{
    credential::{CredentialConfig, Identity, private_key_problem, token_problem},
    database::{Database, DatabaseUrl, SslMode},
    devices::{Device, Gpus, is_cdi},
    egress::EgressHost,
    engine_address::EngineAddress,
    error::{ConfigError, ConfigErrors},
    fingerprints::Fingerprints,
    kubernetes::{KubernetesConfig, pod_user, tmpfs_size},
    listen_address::{ListenAddress, TlsFiles},
    network::{Certificates, read_ca},
    notifications::NotificationsConfig,
    pod_template::PodTemplate,
    pool::{PoolConfig, RunnerGroup},
    provider_name::ProviderName,
    proxy::Proxy,
    reserves::Reserves,
    restart_required::RestartRequired,
    sections::{
        Container, DockerAccess, EgressMode, GitHub, Log, LogFormat, MissedWebhooks,
        NotificationFormat, PullPolicy, RegistrationMethod, Registry, Scheduler, Store, Traces,
        Webhook,
    },
    server::Server,
    swarm::SwarmConfig,
    tool_cache::{TOOL_CACHE_VARIABLE, ToolCache},
};
use self::{document::Document, sections::Runner};
use edgerunner_scheduler::{model::Host, plan};

/// A valid configuration.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub server: Server,
    pub store: Store,
    /// `None` if the store is in SQLite.
    pub database: Option<Database>,
    pub github: GitHub,
    pub missed_webhooks: MissedWebhooks,
    /// The Docker Engine that runs the runners.
    pub engine: EngineAddress,
    /// The GPUs of its machine that runners get for themselves.
    pub host_gpus: Vec<String>,
    /// What runners leave to everything else there.
    pub reserves: Reserves,
    /// `None` without a `[swarm]` section.
    pub swarm: Option<SwarmConfig>,
    /// `None` without a `[kubernetes]` section.
    pub kubernetes: Option<KubernetesConfig>,
    pub scheduler: Scheduler,
    pub log: Log,
    pub traces: Traces,
    /// `None` if no messages are to be sent.
    pub notifications: Option<NotificationsConfig>,
    /// In their order in the file; the credential of `[github]`, if it has one, is the last.
    pub credentials: Vec<CredentialConfig>,
    pub webhooks: Vec<Webhook>,
    pub registries: Vec<Registry>,
    /// Never empty.
    pub pools: Vec<PoolConfig>,
    pub restart_required: RestartRequired,
    /// To compare sidecars.
    pub fingerprints: Fingerprints,
}

impl Config {
    /// For commands that do not need a token.
    pub(crate) fn load(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let (document, config) = Self::read(file, env);
        document.into_result(config)
    }

    /// Like `load`, but a missing token is an error.
    pub(crate) fn load_to_serve(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigErrors> {
        let (mut document, config) = Self::read(file, env);
        document.check_tokens(&config);
        document.check_docker_variables(env);
        document.into_result(config)
    }

    /// Like `load_to_serve`, but what `serve` would stumble over on this machine is an error as
    /// well. `variables` are the names of all environment variables.
    pub(crate) fn load_on_this_machine(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
        variables: &[String],
    ) -> Result<Self, ConfigErrors> {
        let (mut document, config) = Self::read(file, env);
        document.check_tokens(&config);
        document.check_docker_variables(env);
        document.check_store(&config);
        document.check_variables(variables);
        document.into_result(config)
    }

    fn read(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> (Document, Self) {
        let mut document = Document::new();
        if let Some(file) = file {
            document.read_file(file);
        }
        document.check_names();
        document.read_environment(env);
        let restart_required = RestartRequired::new(&document.tree);
        let fingerprints = Fingerprints::new(&document.tree);
        document.read_secret_files();
        document.check_ranges();
        let mut config = Self {
            server: document.read("/server"),
            store: document.read("/store"),
            database: None,
            github: document.read("/github"),
            missed_webhooks: document.read("/missed_webhooks"),
            engine: document.read_engine(env),
            host_gpus: Vec::new(),
            reserves: document.read_reserves(),
            swarm: None,
            kubernetes: None,
            scheduler: document.read("/scheduler"),
            log: document.read("/log"),
            traces: document.read("/traces"),
            notifications: None,
            credentials: Vec::new(),
            webhooks: document.read_webhooks(),
            registries: document.read_registries(),
            pools: Vec::new(),
            restart_required,
            fingerprints,
        };
        // For their errors, which no pool would report if all pools override the value.
        let _: (Runner, Container) = (document.read("/runner"), document.read("/docker"));
        document.check_sections(&config);
        config.notifications = document.read_notifications();
        config.database = document.read_database(&config.store);
        config.credentials = document.read_credentials(&config.github, env);
        config.pools = document.read_pools();
        config.host_gpus = document.read_host_gpus(&config.pools);
        config.swarm = document.read_swarm(env, &config);
        config.kubernetes = document.read_kubernetes(&config);
        let providers = config.providers();
        for pool in &mut config.pools {
            // Where its provider is not configured, that is an error already.
            pool.place = providers.iter().position(|it| *it == pool.provider).unwrap_or_default();
        }
        (document, config)
    }

    pub(crate) fn planner_settings(&self) -> plan::Settings {
        plan::Settings {
            pools: self.pools.iter().map(PoolConfig::planner_pool).collect(),
            credentials: self.planner_credentials(),
            providers: self.providers().into_iter().map(|it| it.as_str().to_owned()).collect(),
            devices: self.host_gpus.clone(),
            max: self.scheduler.max.unwrap_or(usize::MAX),
            max_per_repository: self.scheduler.max_per_repository.unwrap_or(usize::MAX),
            order: self.scheduler.order,
            instance: self.scheduler.instance.clone(),
            term: None,
        }
    }

    /// The providers, in the order of [`plan::Pool::provider`] and of [`PoolConfig::place`]. A reload
    /// may give a pool another one.
    pub(crate) fn providers(&self) -> Vec<ProviderName> {
        let swarm = self.swarm.as_ref().map(|_| ProviderName::Swarm);
        let kubernetes = self.kubernetes.as_ref().map(|_| ProviderName::Kubernetes);
        [ProviderName::Docker].into_iter().chain(swarm).chain(kubernetes).collect()
    }

    /// The server of what does not say on which server it is.
    pub(crate) fn default_host(&self) -> Host {
        plan::default_host(&self.planner_credentials())
    }

    pub(crate) fn planner_credentials(&self) -> Vec<plan::Credential> {
        self.credentials.iter().map(CredentialConfig::planner_credential).collect()
    }
}

impl Log {
    /// The filter of log lines, in which `warning` is `warn`.
    pub(crate) fn filter(&self) -> String {
        let directive = |text: &str| match text.rsplit_once('=') {
            Some((target, level)) if is_warning(level) => format!("{target}=warn"),
            None if is_warning(text) => "warn".to_owned(),
            _ => text.to_owned(),
        };
        self.level.split(',').map(directive).collect::<Vec<_>>().join(",")
    }
}

fn is_warning(level: &str) -> bool {
    level.trim().eq_ignore_ascii_case("warning")
}

impl GitHub {
    /// CA certificates to trust in addition to the system's.
    pub(crate) fn certificates(&self) -> Result<Certificates> {
        match &self.ca_file {
            Some(file) => read_ca(file).map_err(|error| anyhow!("github.ca_file: {error}")),
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
