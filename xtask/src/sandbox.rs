//! The sandbox GitHub, as its own interface shows it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::http;

#[derive(Clone, Copy)]
pub(crate) struct Sandbox {
    address: SocketAddr,
}

#[derive(Deserialize)]
pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) repository: Value,
    pub(crate) labels: Vec<String>,
    pub(crate) status: String,
    pub(crate) conclusion: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Delivery {
    pub(crate) id: u64,
    pub(crate) action: Option<String>,
    pub(crate) job_id: Option<u64>,
    pub(crate) status_code: u16,
    pub(crate) response_body: Option<String>,
    delivered_at: DateTime<Utc>,
    /// In seconds.
    duration: f64,
}

impl Delivery {
    pub(crate) fn answered_at(&self) -> DateTime<Utc> {
        let duration = Duration::try_from_secs_f64(self.duration).unwrap_or_default();
        self.delivered_at + duration
    }
}

impl Sandbox {
    pub(crate) fn at(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Queues one job and returns its id.
    pub(crate) async fn queue(&self, request: &Value) -> Result<u64> {
        self.queue_all(request).await?.first().copied().context("the sandbox queued nothing")
    }

    /// Queues as many jobs as are asked for and returns their ids.
    pub(crate) async fn queue_all(&self, request: &Value) -> Result<Vec<u64>> {
        let answer = http::post_json(self.address, "/_sandbox/jobs", request).await?;
        let jobs: Vec<Job> = serde_json::from_value(answer)?;
        Ok(jobs.iter().map(|job| job.id).collect())
    }

    pub(crate) async fn set_faults(&self, faults: &Value) -> Result<()> {
        http::put_json(self.address, "/_sandbox/faults", faults).await?;
        Ok(())
    }

    /// Registers a runner as GitHub does, and returns what its container needs.
    pub(crate) async fn credentials(&self, token: &str, registration: &Value) -> Result<String> {
        let path = "/repos/acme/app/actions/runners/generate-jitconfig";
        let answer = http::post_json_with_token(self.address, path, token, registration).await?;
        let encoded = answer["encoded_jit_config"].as_str();
        Ok(encoded.context("no credentials in the answer")?.to_owned())
    }

    pub(crate) async fn jobs(&self) -> Result<Vec<Job>> {
        self.list("/_sandbox/jobs").await
    }

    /// The webhooks that were sent, and what was answered.
    pub(crate) async fn deliveries(&self) -> Result<Vec<Delivery>> {
        self.list("/_sandbox/deliveries").await
    }

    async fn list<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>> {
        let answer = http::get_json(self.address, path).await?;
        serde_json::from_value(answer).with_context(|| format!("{path} has another shape by now"))
    }
}
