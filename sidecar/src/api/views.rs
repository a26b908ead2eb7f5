//! Views: jobs and runners of the store as JSON. The API, the status page and the command
//! line share them. Times are milliseconds since the Unix epoch.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::{JobRecord, RunnerHistory};
use edgerunner_scheduler::model::{JobKey, JobState, UnixMs};

/// A job's state only moves forward, in the order of this list.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobState)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobStateView {
    Queued,
    InProgress,
    Completed,
}

impl From<JobState> for JobStateView {
    fn from(state: JobState) -> Self {
        match state {
            JobState::Queued => Self::Queued,
            JobState::InProgress => Self::InProgress,
            JobState::Completed => Self::Completed,
        }
    }
}

impl From<JobStateView> for JobState {
    fn from(state: JobStateView) -> Self {
        match state {
            JobStateView::Queued => Self::Queued,
            JobStateView::InProgress => Self::InProgress,
            JobStateView::Completed => Self::Completed,
        }
    }
}

/// A job ID and the attempt of its workflow run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobKey)]
pub(crate) struct JobKeyView {
    pub id: u64,
    pub run_attempt: u32,
}

impl From<JobKey> for JobKeyView {
    fn from(JobKey { id, run_attempt }: JobKey) -> Self {
        Self { id, run_attempt }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobRecord)]
pub(crate) struct JobView {
    pub id: u64,
    pub run_attempt: u32,
    pub state: JobStateView,
    pub run_id: u64,
    pub repository: String,
    pub organization: String,
    pub enterprise: String,
    pub name: String,
    pub workflow_name: String,
    pub head_branch: String,
    pub html_url: String,
    pub labels: Vec<String>,
    pub conclusion: String,
    pub runner_name: String,
    /// ID of the first delivery about the job.
    pub delivery: String,
    /// When GitHub queued the job, by GitHub's clock.
    pub created_ms: Option<UnixMs>,
    /// When the job was stored.
    pub queued_ms: UnixMs,
    pub started_ms: Option<UnixMs>,
    pub completed_ms: Option<UnixMs>,
    /// Why the job is still queued: the stable name of the reason.
    pub waiting: Option<String>,
    /// The same reason in words.
    pub waiting_message: Option<String>,
}

impl From<JobRecord> for JobView {
    fn from(record: JobRecord) -> Self {
        let JobRecord { job, details, .. } = record;
        Self {
            id: job.key.id,
            run_attempt: job.key.run_attempt,
            state: record.state.into(),
            run_id: details.run_id,
            repository: job.repository,
            organization: job.organization,
            enterprise: job.enterprise,
            name: details.name,
            workflow_name: details.workflow_name,
            head_branch: details.head_branch,
            html_url: details.html_url,
            labels: job.labels,
            conclusion: record.conclusion,
            runner_name: record.runner_name,
            delivery: job.delivery,
            created_ms: details.created_at,
            queued_ms: job.queued_at,
            started_ms: record.started_at,
            completed_ms: record.completed_at,
            waiting: record.waiting,
            waiting_message: record.waiting_message,
        }
    }
}

/// A runner, including runners that are gone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RunnerRecord)]
pub(crate) struct RunnerHistoryView {
    pub name: String,
    pub pool: String,
    pub target: String,
    pub phase: String,
    pub created_ms: UnixMs,
    /// When its container started.
    pub started_ms: Option<UnixMs>,
    pub registration_id: Option<u64>,
    pub job: Option<JobKeyView>,
    /// Why it was removed.
    pub why: Option<String>,
    /// It was removed for a reason that someone should investigate.
    pub failed: bool,
    /// The last lines of its log, if it failed.
    pub log: Option<String>,
    pub gone_ms: Option<UnixMs>,
}

impl From<RunnerHistory> for RunnerHistoryView {
    fn from(RunnerHistory { runner, log }: RunnerHistory) -> Self {
        Self {
            name: runner.name,
            pool: runner.pool,
            target: runner.target,
            phase: runner.phase,
            created_ms: runner.created_at,
            started_ms: runner.started_at,
            registration_id: runner.registration_id,
            job: runner.job.map(JobKeyView::from),
            why: runner.why,
            failed: runner.failed,
            log,
            gone_ms: runner.gone_at,
        }
    }
}
