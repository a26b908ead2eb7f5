//! A client of the sandbox's own API.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use http::Request;
use serde::Deserialize;
use serde_json::Value;

use crate::client;

#[derive(Clone, Copy)]
pub struct SandboxClient {
    address: SocketAddr,
}

#[derive(Deserialize)]
pub struct Job {
    pub id: u64,
    pub repository: Value,
    pub labels: Vec<String>,
    pub status: String,
    pub conclusion: Option<String>,
    /// When a runner took it, in RFC 3339; the time of its creation before.
    pub started_at: String,
    pub runner: Option<AssignedRunner>,
}

#[derive(Deserialize)]
pub struct AssignedRunner {
    pub runner_name: String,
}

/// A webhook that was sent, and the response.
#[derive(Deserialize)]
pub struct Delivery {
    pub id: u64,
    pub action: Option<String>,
    pub job_id: Option<u64>,
    pub status_code: u16,
    pub response_body: Option<String>,
    /// RFC 3339.
    pub delivered_at: String,
    /// In seconds.
    pub duration: f64,
}

impl SandboxClient {
    pub fn new(address: SocketAddr) -> Self {
        Self { address }
    }

    /// Queues jobs and returns their ids.
    pub async fn queue(&self, request: &Value) -> Result<Vec<u64>> {
        let post = Request::post("/_sandbox/jobs");
        let jobs: Vec<Job> = client::json(self.address, post, Some(request)).await?;
        Ok(jobs.iter().map(|job| job.id).collect())
    }

    pub async fn set_faults(&self, faults: &Value) -> Result<()> {
        let put = Request::put("/_sandbox/faults");
        let _: Value = client::json(self.address, put, Some(faults)).await?;
        Ok(())
    }

    /// Registers a runner as GitHub does, and returns its credentials.
    pub async fn register(&self, token: &str, runner: &Value) -> Result<String> {
        let post = Request::post("/repos/acme/app/actions/runners/generate-jitconfig")
            // GitHub rejects requests without it.
            .header("user-agent", "edgerunner-testkit")
            .header("authorization", format!("Bearer {token}"));
        let answer: Value = client::json(self.address, post, Some(runner)).await?;
        let encoded = answer["encoded_jit_config"].as_str();
        Ok(encoded.context("no credentials in the response")?.to_owned())
    }

    pub async fn jobs(&self) -> Result<Vec<Job>> {
        client::get_json(self.address, "/_sandbox/jobs").await
    }

    pub async fn deliveries(&self) -> Result<Vec<Delivery>> {
        client::get_json(self.address, "/_sandbox/deliveries").await
    }
}
