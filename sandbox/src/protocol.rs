//! The protocol between the stand-in runner and the sandbox, under `/_sandbox/runner/`. GitHub's
//! own protocol is not public; this one has the same parts: a session, a long-polling request for
//! a job, renewal, completion.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::job::{Conclusion, Step};
use crate::scope::RepositoryName;

/// How long the sandbox holds a request for a job open.
pub(crate) const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a runner renews its session while it runs a job.
pub(crate) const RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

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

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpenSession {
    pub os: String,
    pub version: String,
}

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct SessionOpened {
    pub session_id: String,
}

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

#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Renewal {
    pub cancelled: bool,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Completion {
    pub job_id: u64,
    pub conclusion: Conclusion,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LogLines {
    pub job_id: u64,
    pub lines: Vec<String>,
}

/// The body of every error response.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct ErrorResponse {
    pub error: String,
}
