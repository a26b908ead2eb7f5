//! The protocol between runners and GitHub, as the open-source runner speaks it: an access token for
//! a signed assertion, a session with the broker, messages, and the run service, which hands out
//! jobs. Registration with a token is the stand-in runner's own.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::{Conclusion, Step};
use crate::scope::RepositoryName;

/// How long the broker holds a request for a message open.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a job stays with its runner without a renewal.
pub(crate) const JOB_LOCK: Duration = Duration::from_secs(120);
/// How often a runner renews the lock on its job.
pub(crate) const RENEWAL_INTERVAL: Duration = Duration::from_secs(60);
/// The `source` of the broker's errors.
pub(crate) const BROKER: &str = "actions-broker-listener";
/// The `source` of the run service's errors.
pub(crate) const RUN_SERVICE: &str = "actions-run-service";
pub(crate) const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// The variable of a job message with a [`JobMessage`] for the stand-in runner.
pub(crate) const SANDBOX_VARIABLE: &str = "sandbox.job";

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistrationRequest {
    /// The web page of the repository, organization or enterprise.
    pub url: String,
    pub name: String,
    pub labels: Vec<String>,
    /// Leaves out `self-hosted`, the operating system and the architecture.
    #[serde(default)]
    pub no_default_labels: bool,
    pub ephemeral: bool,
    #[serde(default)]
    pub group: Option<String>,
    #[serde(default)]
    pub work_folder: Option<String>,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct RegistrationResponse {
    pub encoded_jit_config: String,
}

/// The form that a runner posts to its authorization URL.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenRequest {
    pub grant_type: String,
    pub client_assertion_type: String,
    pub client_assertion: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TokenResponse {
    pub access_token: String,
    pub token_type: String,
    /// In seconds.
    pub expires_in: u64,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct TokenError {
    pub error: String,
    pub error_description: String,
}

/// A session, as the broker returns it and the stand-in runner asks for it.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BrokerSession {
    #[serde(default)]
    pub session_id: String,
    pub owner_name: String,
    pub agent: Agent,
    #[serde(default)]
    pub use_fips_encryption: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Agent {
    pub id: u64,
    pub name: String,
    pub version: String,
    pub os_description: String,
    pub ephemeral: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Message {
    pub message_id: u64,
    pub message_type: MessageType,
    /// JSON: a [`JobReference`] or a [`JobCancellation`].
    pub body: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) enum MessageType {
    RunnerJobRequest,
    JobCancellation,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct JobReference {
    pub id: String,
    pub runner_request_id: String,
    pub should_acknowledge: bool,
    pub run_service_url: String,
    pub billing_owner_id: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobCancellation {
    pub job_id: String,
    /// `hh:mm:ss`, after which the runner gives up waiting for the job to end.
    pub timeout: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Acknowledgement {
    pub runner_request_id: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AcquireJob {
    pub job_message_id: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RenewJob {
    pub plan_id: String,
    pub job_id: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobRenewed {
    /// RFC 3339.
    pub locked_until: String,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CompleteJob {
    pub plan_id: String,
    pub job_id: String,
    pub conclusion: serde_json::Value,
}

/// An error of the broker or the run service.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServiceError {
    pub source: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ErrorKind>,
    pub status_code: u16,
    pub error_message: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub(crate) enum ErrorKind {
    AcknowledgeJobNotFound,
    RunnerNotFound,
    RunnerVersionTooOld,
    RunnerSessionInvalid,
}

/// What the stand-in runner does for a job, in the variable [`SANDBOX_VARIABLE`] of the job message.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct JobMessage {
    pub job_id: u64,
    pub name: String,
    pub repository: RepositoryName,
    pub run_id: u64,
    pub run_number: u64,
    pub run_attempt: u32,
    pub steps: Vec<Step>,
    pub seconds: f64,
    pub conclusion: Conclusion,
}

/// The body of an error of the control API.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ErrorResponse {
    pub error: String,
}
