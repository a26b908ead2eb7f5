//! A webhook's configuration, and the events it sends.

use serde::Serialize;

use super::account::{Enterprise, Organization, SimpleUser};
use super::ids::node_id;
use super::repository::Repository;
use super::workflow_job::WorkflowJob;

#[derive(Debug, Serialize)]
pub(crate) struct InstallationRef {
    pub id: u64,
    pub node_id: String,
}

impl InstallationRef {
    pub(crate) fn new(id: u64) -> Self {
        Self { id, node_id: node_id("MDIz", id) }
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct WorkflowJobEvent {
    pub action: &'static str,
    pub workflow_job: WorkflowJob,
    pub repository: Repository,
    pub organization: Organization,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enterprise: Option<Enterprise>,
    pub sender: SimpleUser,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub installation: Option<InstallationRef>,
}

#[derive(Debug, Serialize)]
pub(crate) struct PingEvent {
    pub zen: &'static str,
    pub hook_id: u64,
    pub hook: Webhook,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<Organization>,
    pub sender: SimpleUser,
}

/// A webhook in the responses of the REST API and in `ping` events. Each kind has fields of its own.
#[derive(Debug, Serialize)]
pub(crate) struct Webhook {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub id: u64,
    pub name: &'static str,
    pub active: bool,
    pub events: Vec<&'static str>,
    pub config: WebhookConfig,
    pub updated_at: &'static str,
    pub created_at: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ping_url: Option<String>,
    pub deliveries_url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_response: Option<LastResponse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app_id: Option<u64>,
}

/// Always that of an unused webhook.
#[derive(Debug, Serialize)]
pub(crate) struct LastResponse {
    code: Option<u16>,
    status: &'static str,
    message: Option<String>,
}

impl LastResponse {
    pub(crate) const UNUSED: Self = Self { code: None, status: "unused", message: None };
}

#[derive(Debug, Serialize)]
pub(crate) struct WebhookConfig {
    pub content_type: &'static str,
    pub url: String,
    pub insecure_ssl: &'static str,
}
