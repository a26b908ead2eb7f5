//! The sandbox's settings.

use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;

/// The target type of the webhook, which GitHub sends in `X-GitHub-Hook-Installation-Target-Type`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum WebhookKind {
    #[default]
    Repository,
    Organization,
    /// A GitHub App; payloads name the installation.
    Integration,
}

#[derive(Clone, Debug)]
pub struct Settings {
    /// Without a URL, no webhooks are sent or recorded.
    pub webhook_url: Option<String>,
    pub webhook_secret: String,
    /// The certificate authorities that are trusted for an `https` webhook URL.
    pub webhook_roots: RootCertStore,
    /// The valid personal access tokens.
    pub tokens: Vec<String>,
    /// The URL at which runners reach the sandbox; by default the listener's address.
    pub public_url: Option<String>,
    /// The URL at which a browser reaches the sandbox, for links to its pages; by default the same.
    pub web_url: Option<String>,
    pub webhook_kind: WebhookKind,
    /// The organizations and users that exist. If empty, all do.
    pub owners: Vec<String>,
    /// The only enterprise that exists, to which every organization belongs; webhooks name it.
    /// If absent, all enterprises exist.
    pub enterprise: Option<String>,
    /// Ids are derived from this time; by default, the time of the start. Two sandboxes with the
    /// same time assign the same ids, as two servers may.
    pub ids_since: Option<Timestamp>,
    pub requests_per_hour: u32,
    pub delivery_timeout: Duration,
    /// Queues a job this often, the first one at the start; by default, none. Not zero.
    pub job_every: Option<Duration>,
    /// A session ends when it has not been renewed for this long.
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
            web_url: None,
            webhook_kind: WebhookKind::default(),
            owners: Vec::new(),
            enterprise: None,
            ids_since: None,
            requests_per_hour: 5_000,
            delivery_timeout: Duration::from_secs(10),
            job_every: None,
            runner_lost_after: Duration::from_secs(5),
        }
    }
}
