//! The configuration: one TOML file, and environment variables that beat it.
//!
//! Both are brought into one tree, from which the sections are read. Whatever
//! is wrong is recorded, taken out, and reading goes on: people get all their
//! mistakes at once. The JSON schema of the sections says which variables
//! there are, of which type, and what to write instead of a mistake.

mod check;
mod credential;
mod draft;
mod environment;
mod file;
mod fixed;
mod hook;
mod mistake;
mod network;
mod pool;
#[cfg(test)]
mod reference;
mod registry;
mod schedule;
mod schema;
mod sections;
#[cfg(test)]
mod tests;
mod webhook;

use std::{path::Path, time::Duration};

use anyhow::{Context as _, Result, anyhow};
use schemars::JsonSchema;

pub(crate) use self::{check::ulimit_of, environment::read_secret};
pub use self::{
    credential::CredentialConfig,
    fixed::Fixed,
    hook::Hook,
    mistake::{Mistake, Mistakes},
    pool::PoolConfig,
    sections::{
        Container, Contract, Docker, DockerAccess, GitHub, Log, LogFormat, MissedWebhooks,
        PullPolicy, Registry, Runner, Scheduler, Server, Store, Traces, Webhook,
    },
};
use self::{draft::Draft, schema::Schema};
use crate::{
    github::{self, Certificates, Identity, read_ca},
    model::Target,
    plan,
};

#[derive(Clone, Debug, JsonSchema)]
#[schemars(deny_unknown_fields, extend("required" = []))]
pub struct Config {
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
    pub fixed: Fixed,
}

impl Config {
    /// For commands that may do without a token.
    pub fn load(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let (draft, config) = Self::read(file, env);
        draft.into_result(config)
    }

    /// As `load`, and a missing token is a mistake among the others.
    pub fn load_to_serve(
        file: Option<&Path>,
        env: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Mistakes> {
        let (mut draft, config) = Self::read(file, env);
        draft.check_tokens(&config);
        draft.into_result(config)
    }

    fn read(file: Option<&Path>, env: &dyn Fn(&str) -> Option<String>) -> (Draft, Self) {
        let mut draft = Draft::new();
        if let Some(file) = file {
            draft.read_file(file);
        }
        draft.check_names();
        draft.read_environment(env);
        let fixed = Fixed::of(&draft.tree);
        draft.read_secret_files();
        draft.check_ranges();
        let mut config = Self {
            server: draft.read("/server"),
            store: draft.read("/store"),
            github: draft.read("/github"),
            missed_webhooks: draft.read("/missed_webhooks"),
            docker: Docker { host: draft.read("/docker/host"), container: draft.read("/docker") },
            runner: draft.read("/runner"),
            scheduler: draft.read("/scheduler"),
            log: draft.read("/log"),
            traces: draft.read("/traces"),
            credentials: Vec::new(),
            webhooks: draft.read_webhooks(),
            registries: draft.read_registries(),
            pools: Vec::new(),
            fixed,
        };
        draft.check_sections(&config);
        config.credentials = draft.read_credentials(&config.github, env);
        config.pools = draft.read_pools();
        (draft, config)
    }

    /// The JSON schema of the file.
    pub fn schema() -> serde_json::Value {
        Schema::of_config().0
    }

    /// The way to a repository, organization or enterprise. Call it inside a Tokio runtime.
    pub fn github_for(&self, target: &Target) -> Result<github::GitHub> {
        let found = plan::credential_for(&self.planned_credentials(), target);
        let index = found.with_context(|| {
            format!(
                "no credential serves {target}: set GITHUB_TOKEN, or name it among the targets of \
                 [[credentials]]"
            )
        })?;
        Ok(self.credentials[index].github(self.github.timeout())?)
    }

    /// The way to what only a GitHub App may see of itself.
    pub fn github_of_app(&self) -> Result<github::GitHub> {
        let is_app = |it: &&CredentialConfig| matches!(it.identity, Identity::App { .. });
        let app = self.credentials.iter().find(is_app);
        let app = app.context("no credential is a GitHub App: set github.app_id and its key")?;
        Ok(app.github(self.github.timeout())?)
    }

    pub fn planner_settings(&self) -> plan::Settings {
        plan::Settings {
            pools: self.pools.iter().map(PoolConfig::planner_pool).collect(),
            credentials: self.planned_credentials(),
            max: self.scheduler.max.unwrap_or(usize::MAX),
            max_per_repository: self.scheduler.max_per_repository.unwrap_or(usize::MAX),
            instance: self.scheduler.instance.clone(),
        }
    }

    fn planned_credentials(&self) -> Vec<plan::Credential> {
        self.credentials.iter().map(CredentialConfig::planned).collect()
    }
}

impl GitHub {
    /// CAs that are trusted beside the system's.
    pub fn certificates(&self) -> Result<Certificates> {
        match &self.ca_file {
            Some(file) => read_ca(file).map_err(|why| anyhow!("github.ca_file: {why}")),
            None => Ok(Certificates::new()),
        }
    }

    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }

    fn web_url(&self) -> String {
        self.web_url.clone().unwrap_or_else(|| credential::web_url_of(&self.api_url))
    }
}
