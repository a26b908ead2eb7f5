//! Workflow jobs, and the request that queues them.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::scope::RepositoryName;

#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    Queued,
    InProgress,
    Completed,
}

impl JobStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Conclusion {
    Success,
    Failure,
    Neutral,
    Cancelled,
    Skipped,
    TimedOut,
    ActionRequired,
}

/// A request to queue jobs. Every field has a default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobRequest {
    pub repository: RepositoryName,
    /// `${{ github.run_id }}` in them stands for the ID of the run, as in workflows.
    pub labels: Vec<String>,
    /// How long each job takes after its steps.
    pub seconds: f64,
    /// How each job ends.
    pub conclusion: Conclusion,
    /// The steps that the runner runs first.
    pub steps: Vec<Step>,
    /// The number of jobs, all of one workflow run.
    pub count: u32,
    /// How many jobs of the run may be assigned to runners at a time, although all are announced
    /// as queued; no limit if absent. With 0 none is, as while an approval is pending or the runner
    /// group excludes the repository.
    pub max_parallel: Option<u32>,
    /// Whether the run is of a pull request from a fork.
    pub from_fork: bool,
    pub name: String,
}

/// A step, which writes its result to the job's log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Starts a container that mounts a folder of the work folder, and leaves it running.
    Container,
    /// Starts a container that takes memory until it is killed, and reports its exit code.
    TakeMemory,
    /// Reports the resource limits that apply to the runner.
    Limits,
}

impl Default for JobRequest {
    fn default() -> Self {
        Self {
            repository: RepositoryName { owner: "acme".to_owned(), name: "app".to_owned() },
            labels: vec!["self-hosted".to_owned()],
            seconds: 2.0,
            conclusion: Conclusion::Success,
            steps: Vec::new(),
            count: 1,
            max_parallel: None,
            from_fork: false,
            name: "build".to_owned(),
        }
    }
}

/// The runner that a job was assigned to. GitHub still returns it after the runner is removed.
#[derive(Clone, Debug, Serialize)]
pub struct AssignedRunner {
    pub runner_id: u64,
    pub runner_name: String,
    pub runner_group_id: u64,
    pub runner_group_name: String,
}

#[derive(Clone, Debug, Serialize)]
pub struct Job {
    pub id: u64,
    pub run_id: u64,
    pub run_number: u64,
    pub run_attempt: u32,
    pub repository: RepositoryName,
    pub name: String,
    pub labels: Vec<String>,
    pub seconds: f64,
    /// How the job will end unless it is cancelled or its runner fails.
    pub planned_conclusion: Conclusion,
    pub steps: Vec<Step>,
    pub max_parallel: Option<u32>,
    pub from_fork: bool,
    /// The output of scripts and steps, a line each.
    pub log: Vec<String>,
    pub status: JobStatus,
    pub conclusion: Option<Conclusion>,
    pub cancel_requested: bool,
    /// Whether a runner was offered it.
    #[serde(skip)]
    pub(crate) offered: bool,
    pub created_at: Timestamp,
    pub started_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    pub runner: Option<AssignedRunner>,
}

impl JobRequest {
    /// Checks the ranges that types cannot express.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !(0.0..=86_400.0).contains(&self.seconds) {
            return Err("`seconds` must be between 0 and 86400");
        }
        if !(1..=10_000).contains(&self.count) {
            return Err("`count` must be between 1 and 10000");
        }
        Ok(())
    }
}

impl Conclusion {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Neutral => "neutral",
            Self::Cancelled => "cancelled",
            Self::Skipped => "skipped",
            Self::TimedOut => "timed_out",
            Self::ActionRequired => "action_required",
        }
    }
}
