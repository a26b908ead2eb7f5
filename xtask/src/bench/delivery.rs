//! Signed deliveries, each of an event of its own.

use anyhow::{Context, Result};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;

pub(super) struct Delivery {
    pub(super) guid: String,
    pub(super) signature: String,
    pub(super) body: Bytes,
}

/// Makes deliveries of `queued` whose labels no pool has: they are verified
/// and stored, and nothing is launched for them.
pub(super) struct Factory {
    template: Value,
    key: Hmac<Sha256>,
    next_job: u64,
}

impl Factory {
    pub(super) fn new(secret: &str) -> Result<Self> {
        let template = serde_json::from_str(include_str!("../../bench/workflow_job.json"))
            .context("bench/workflow_job.json is not JSON")?;
        let key = Hmac::new_from_slice(secret.as_bytes()).context("unusable secret")?;
        Ok(Self { template, key, next_job: 54_000_000_000 })
    }

    pub(super) fn make(&mut self, count: usize) -> Vec<Delivery> {
        (0..count).map(|_| self.one()).collect()
    }

    /// Of so many bytes.
    pub(super) fn padded(&mut self, bytes: usize) -> Delivery {
        let room = bytes.saturating_sub(self.template.to_string().len());
        self.template["padding"] = "x".repeat(room).into();
        let delivery = self.one();
        if let Some(template) = self.template.as_object_mut() {
            template.remove("padding");
        }
        delivery
    }

    fn one(&mut self) -> Delivery {
        self.next_job += 1;
        self.template["workflow_job"]["id"] = self.next_job.into();
        let body = Bytes::from(self.template.to_string());
        let mut mac = self.key.clone();
        mac.update(&body);
        let signature = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
        Delivery { guid: uuid::Uuid::new_v4().to_string(), signature, body }
    }
}
