//! The objects that GitHub's REST API and webhooks share: accounts, repositories, jobs, webhooks.

mod account;
mod ids;
mod repository;
mod time;
mod urls;
mod webhook;
mod workflow_job;

pub use ids::APP_ID;

pub(crate) use account::{Enterprise, Organization, SimpleUser};
pub(crate) use ids::{ACTOR, CREATED_AT, head_sha, id_of, node_id};
pub(crate) use repository::Repository;
pub(crate) use time::WholeSeconds;
pub(crate) use urls::Urls;
pub(crate) use webhook::{
    InstallationRef, LastResponse, PingEvent, Webhook, WebhookConfig, WorkflowJobEvent,
};
pub(crate) use workflow_job::{BRANCH, WORKFLOW_NAME, WorkflowJob};
