use std::time::Duration;

use rustls::RootCertStore;
use serde::Serialize;

/// Where the webhook is set up, which GitHub tells in the target headers.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    #[default]
    Repository,
    Organization,
    /// A GitHub App's hook; its payloads name the installation.
    Integration,
}

#[derive(Clone, Debug)]
pub struct RunnerGroup {
    pub id: u64,
    pub name: String,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Nothing is sent or recorded while there is none.
    pub webhook_url: Option<String>,
    pub webhook_secret: String,
    /// Who may sign the certificate of a webhook URL with `https`.
    pub webhook_roots: RootCertStore,
    /// The personal access tokens that are accepted.
    pub tokens: Vec<String>,
    /// How runners reach the sandbox; the listener's own address if not given.
    pub public_url: Option<String>,
    pub hook: HookKind,
    /// Only these organizations and users exist; all do while this is empty.
    pub owners: Vec<String>,
    /// The one that every organization is part of, and that webhooks then name; while
    /// this is absent every enterprise exists.
    pub enterprise: Option<String>,
    /// Group 1 is `Default` on GitHub.
    pub runner_groups: Vec<RunnerGroup>,
    pub requests_per_hour: u32,
    pub installation_token_lifetime: Duration,
    pub delivery_timeout: Duration,
    /// How long a runner's request for a job is held open.
    pub poll_timeout: Duration,
    /// A session not renewed for so long has ended.
    pub runner_lost_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            webhook_url: None,
            webhook_secret: "sandbox-secret".to_owned(),
            webhook_roots: RootCertStore::empty(),
            tokens: vec!["sandbox-token".to_owned()],
            public_url: None,
            hook: HookKind::default(),
            owners: Vec::new(),
            enterprise: None,
            runner_groups: vec![
                RunnerGroup { id: 1, name: "Default".to_owned() },
                RunnerGroup { id: 2, name: "large".to_owned() },
            ],
            requests_per_hour: 5_000,
            installation_token_lifetime: Duration::from_secs(3_600),
            delivery_timeout: Duration::from_secs(10),
            poll_timeout: Duration::from_secs(30),
            runner_lost_after: Duration::from_secs(5),
        }
    }
}
