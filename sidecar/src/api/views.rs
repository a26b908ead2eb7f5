//! Views: jobs and runners of the store as JSON. The API, the status page and the command
//! line share them. Times are milliseconds since the Unix epoch.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::{JobHistory, JobRecord, RunnerHistory};
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
    fn from(JobKey { id, run_attempt, .. }: JobKey) -> Self {
        Self { id, run_attempt }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = JobRecord)]
pub(crate) struct JobView {
    pub id: u64,
    pub run_attempt: u32,
    /// Host of the GitHub server, on which the id is unique.
    pub host: String,
    pub state: JobStateView,
    pub run_id: u64,
    pub repository: String,
    pub organization: String,
    pub enterprise: String,
    /// Who can see the repository: `public`, `private` or `internal`; `null` if GitHub did not
    /// report it.
    pub visibility: Option<String>,
    /// Whether the run is of a pull request from a fork; `null` unless GitHub was asked.
    pub from_fork: Option<bool>,
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
            host: job.key.host.to_string(),
            state: record.state.into(),
            run_id: job.run_id,
            repository: job.repository,
            organization: job.organization,
            enterprise: job.enterprise,
            visibility: Some(job.visibility.as_str().to_owned()).filter(|it| !it.is_empty()),
            from_fork: job.from_fork,
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

/// A job and the runner that took it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Job)]
pub(crate) struct JobHistoryView {
    #[serde(flatten)]
    pub job: JobView,
    /// The pool of its runner or, while it is queued, the pool that it waits for; `null` if
    /// there is none.
    pub pool: Option<String>,
    /// Name of the machine that ran it; `null` unless the runner is one of ours, on a Docker Swarm.
    #[serde(default)]
    pub node: Option<String>,
    /// When its runner was launched; `null` unless the runner is one of ours.
    pub launched_ms: Option<UnixMs>,
    /// When the runner's container started.
    pub container_ms: Option<UnixMs>,
}

impl From<JobHistory> for JobHistoryView {
    fn from(history: JobHistory) -> Self {
        let JobHistory { record, pool, node, launched_at, container_at } = history;
        let job = JobView::from(record);
        Self { job, pool, node, launched_ms: launched_at, container_ms: container_at }
    }
}

/// A runner, including runners that are gone.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RunnerRecord)]
pub(crate) struct RunnerHistoryView {
    pub name: String,
    pub pool: String,
    /// Name of the machine that ran it, if its provider has several.
    pub node: Option<String>,
    /// Host of the GitHub server that the target is on.
    pub host: String,
    pub target: String,
    pub phase: String,
    pub created_ms: UnixMs,
    /// When its container started.
    pub started_ms: Option<UnixMs>,
    /// When GitHub first listed it as online without a job; `null` if it took one before that.
    #[serde(default)]
    pub online_ms: Option<UnixMs>,
    /// Name of the credential that it was launched with; `null` if an earlier version did.
    #[serde(default)]
    pub credential: Option<String>,
    pub registration_id: Option<u64>,
    pub job: Option<JobKeyView>,
    /// Why it was removed, is being removed, or waits.
    pub why: Option<String>,
    /// Since when its machine does not answer; `null` while it does. It may run all the same.
    #[serde(default)]
    pub unreachable_ms: Option<UnixMs>,
    /// Stable name of the reason why it was removed; `null` while it is not, and if an earlier
    /// version removed it.
    #[serde(default)]
    pub end: Option<String>,
    /// It was removed for a reason that someone should investigate.
    pub failed: bool,
    /// The most memory that it used at a time; `null` if it was not measured.
    #[serde(default)]
    pub memory_peak_bytes: Option<u64>,
    /// The most of the processors that it used at a time, in thousandths of one; `null` if it was
    /// not measured.
    #[serde(default)]
    pub cpu_peak_millis: Option<u64>,
    /// The last lines of its log, if it failed.
    pub log: Option<String>,
    pub gone_ms: Option<UnixMs>,
}

impl From<RunnerHistory> for RunnerHistoryView {
    fn from(RunnerHistory { runner, log }: RunnerHistory) -> Self {
        Self {
            name: runner.name,
            pool: runner.pool,
            node: runner.node,
            host: runner.host.to_string(),
            target: runner.target,
            phase: runner.phase,
            created_ms: runner.created_at,
            started_ms: runner.started_at,
            online_ms: runner.online_at,
            credential: runner.credential,
            registration_id: runner.registration_id,
            job: runner.job.map(JobKeyView::from),
            why: runner.why,
            unreachable_ms: None,
            end: runner.end,
            failed: runner.failed,
            memory_peak_bytes: runner.peak.memory_bytes,
            cpu_peak_millis: runner.peak.cpu_millis,
            log,
            gone_ms: runner.gone_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::store::{JobDetails, Peak, RunnerRecord};
    use edgerunner_scheduler::model::{Host, Job, Visibility};

    #[test]
    fn a_job_has_these_fields() {
        let record = JobRecord {
            job: Job {
                key: JobKey { id: 7, run_attempt: 2, host: Host::new("github.com") },
                repository: "acme/app".into(),
                organization: "acme".into(),
                enterprise: String::new(),
                visibility: Visibility::Public,
                run_id: 9,
                from_fork: Some(true),
                labels: vec!["self-hosted".into()],
                queued_at: 3,
                delivery: "guid".into(),
            },
            state: JobState::InProgress,
            details: JobDetails {
                name: "build".into(),
                workflow_name: "CI".into(),
                head_branch: "main".into(),
                html_url: "https://github.com/acme/app".into(),
                created_at: Some(1),
            },
            conclusion: String::new(),
            runner_name: "r".into(),
            started_at: Some(4),
            completed_at: None,
            waiting: None,
            waiting_message: None,
        };
        let expected = json!({
            "id": 7, "run_attempt": 2, "host": "github.com", "state": "in_progress", "run_id": 9,
            "repository": "acme/app", "organization": "acme", "enterprise": "",
            "visibility": "public", "from_fork": true, "name": "build",
            "workflow_name": "CI", "head_branch": "main",
            "html_url": "https://github.com/acme/app", "labels": ["self-hosted"],
            "conclusion": "", "runner_name": "r", "delivery": "guid", "created_ms": 1,
            "queued_ms": 3, "started_ms": 4, "completed_ms": null, "waiting": null,
            "waiting_message": null,
        });
        assert_eq!(to_value(JobView::from(record)).unwrap(), expected);
    }

    #[test]
    fn a_runner_has_these_fields() {
        let runner = RunnerRecord {
            name: "r".into(),
            pool: "default".into(),
            provider: String::new(),
            node: None,
            host: Host::new("github.com"),
            target: "org:acme".into(),
            phase: "gone".into(),
            created_at: 1,
            started_at: Some(2),
            online_at: Some(2),
            credential: Some("github".into()),
            registration_id: Some(5),
            job: Some(JobKey { id: 7, run_attempt: 2, host: Host::new("github.com") }),
            why: None,
            end: Some("exited".into()),
            failed: true,
            gone_at: Some(3),
            peak: Peak { memory_bytes: Some(4_096), cpu_millis: None },
        };
        let history = RunnerHistory { runner, log: Some("it broke".into()) };
        let expected = json!({
            "name": "r", "pool": "default", "node": null, "host": "github.com", "target": "org:acme", "phase": "gone",
            "created_ms": 1, "started_ms": 2, "online_ms": 2, "credential": "github", "registration_id": 5,
            "job": { "id": 7, "run_attempt": 2 }, "why": null, "unreachable_ms": null,
            "end": "exited", "failed": true, "memory_peak_bytes": 4_096, "cpu_peak_millis": null, "log": "it broke", "gone_ms": 3,
        });
        assert_eq!(to_value(RunnerHistoryView::from(history)).unwrap(), expected);
    }
}
