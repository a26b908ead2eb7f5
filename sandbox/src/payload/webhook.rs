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
    pub repository: Repository,
    pub sender: SimpleUser,
}

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
}

#[derive(Debug, Serialize)]
pub(crate) struct WebhookConfig {
    pub content_type: &'static str,
    pub url: String,
    pub insecure_ssl: &'static str,
}
