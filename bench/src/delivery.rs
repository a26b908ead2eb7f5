//! Deliveries as GitHub sends them, ready to be written to a connection.

use anyhow::{Context, Result};
use bytes::Bytes;
use edgerunner_testkit::Webhook;
use serde_json::Value;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A queued job with labels of no pool: it is verified and stored, and no runner is
    /// launched.
    Queued,
    /// The same, signed with another secret.
    WronglySigned,
    /// Signed with another secret, and almost of the maximum size.
    Large,
}

pub(crate) const LARGE_BYTES: usize = 20 << 20;

pub(crate) struct Factory {
    template: Value,
    secret: String,
    next_job: u64,
}

impl Factory {
    pub(crate) fn new(secret: &str) -> Result<Self> {
        let template = serde_json::from_str(include_str!("../workflow_job.json"))
            .context("workflow_job.json is not JSON")?;
        Ok(Self { template, secret: secret.to_owned(), next_job: 54_000_000_000 })
    }

    /// Each is of another event, if they are accepted.
    pub(crate) fn make(&mut self, kind: Kind, count: usize) -> Vec<Bytes> {
        match kind {
            Kind::Queued => (0..count).map(|_| self.one(kind)).collect(),
            Kind::WronglySigned | Kind::Large => vec![self.one(kind); count],
        }
    }

    fn one(&mut self, kind: Kind) -> Bytes {
        self.next_job += 1;
        self.template["workflow_job"]["id"] = self.next_job.into();
        let body = match kind {
            Kind::Large => "x".repeat(LARGE_BYTES),
            Kind::Queued | Kind::WronglySigned => self.template.to_string(),
        };
        let webhook = Webhook::new("workflow_job", body)
            .header("accept", "*/*")
            .header("x-github-hook-id", "480105223")
            .header("x-github-hook-installation-target-id", "671234567")
            .header("x-github-hook-installation-target-type", "repository");
        let webhook = match kind {
            Kind::Queued => webhook.signed_with(&self.secret),
            Kind::WronglySigned | Kind::Large => webhook,
        };
        webhook.http1().into()
    }
}
