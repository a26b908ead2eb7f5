//! Requests as GitHub makes them, ready to be written to a connection.

use anyhow::{Context, Result};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

use crate::programs::WEBHOOK_PATH;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A job that is queued, whose labels no pool has: it is verified and stored,
    /// and nothing is launched for it.
    Queued,
    /// The same, but of an action that no scheduler needs: nothing is stored.
    Ignored,
    /// The first, signed with another secret.
    WronglySigned,
    /// Without a body, since Envoy closes a connection on which it answers before
    /// the body is there.
    Unsigned,
    /// Signed with another secret, and almost as large as may be.
    Large,
}

pub(super) const LARGE_BYTES: usize = 20 << 20;

pub(super) struct Factory {
    template: Value,
    key: Hmac<Sha256>,
    wrong_key: Hmac<Sha256>,
    next_job: u64,
}

impl Factory {
    pub(super) fn new(secret: &str) -> Result<Self> {
        let template = serde_json::from_str(include_str!("../../bench/workflow_job.json"))
            .context("bench/workflow_job.json is not JSON")?;
        let key = |secret: &str| {
            Hmac::new_from_slice(secret.as_bytes()).context("a secret that cannot be used")
        };
        Ok(Self {
            template,
            key: key(secret)?,
            wrong_key: key(&format!("not {secret}"))?,
            next_job: 54_000_000_000,
        })
    }

    /// Each of an event of its own where that makes a difference.
    pub(super) fn make(&mut self, kind: Kind, count: usize) -> Vec<Bytes> {
        match kind {
            Kind::Queued => (0..count).map(|_| self.one(kind)).collect(),
            _ => vec![self.one(kind); count],
        }
    }

    /// One that is stored, of so many bytes.
    pub(super) fn padded(&mut self, bytes: usize) -> Bytes {
        let room = bytes.saturating_sub(self.template.to_string().len());
        self.template["padding"] = "x".repeat(room).into();
        let delivery = self.one(Kind::Queued);
        if let Some(template) = self.template.as_object_mut() {
            template.remove("padding");
        }
        delivery
    }

    fn one(&mut self, kind: Kind) -> Bytes {
        self.next_job += 1;
        self.template["workflow_job"]["id"] = self.next_job.into();
        self.template["action"] = if kind == Kind::Ignored { "waiting" } else { "queued" }.into();
        let body = match kind {
            Kind::Unsigned => String::new(),
            Kind::Large => "x".repeat(LARGE_BYTES),
            _ => self.template.to_string(),
        };
        let signature = match kind {
            Kind::Unsigned => None,
            Kind::Queued | Kind::Ignored => Some(&self.key),
            Kind::WronglySigned | Kind::Large => Some(&self.wrong_key),
        };
        let signature = signature.map_or_else(String::new, |key| {
            let mac = key.clone().chain_update(&body).finalize().into_bytes();
            format!("x-hub-signature-256: sha256={}\r\n", hex::encode(mac))
        });
        format!(
            "POST {WEBHOOK_PATH} HTTP/1.1\r\n\
             host: localhost\r\n\
             user-agent: GitHub-Hookshot/0000000\r\n\
             accept: */*\r\n\
             content-type: application/json\r\n\
             content-length: {}\r\n\
             x-github-event: workflow_job\r\n\
             x-github-delivery: {}\r\n\
             x-github-hook-id: 480105223\r\n\
             x-github-hook-installation-target-id: 671234567\r\n\
             x-github-hook-installation-target-type: repository\r\n\
             {signature}\r\n{body}",
            body.len(),
            uuid::Uuid::new_v4(),
        )
        .into()
    }
}
