//! Workflow jobs.

use serde::Serialize;

use super::ids::{head_sha, node_id};
use super::time::WholeSeconds;
use super::urls::Urls;
use crate::job::{Conclusion, Job, JobStatus};

pub(crate) const WORKFLOW_NAME: &str = "CI";
pub(crate) const BRANCH: &str = "main";

#[derive(Clone, Debug, Serialize)]
struct Step {
    name: &'static str,
    status: JobStatus,
    conclusion: Option<Conclusion>,
    number: u32,
    started_at: WholeSeconds,
    completed_at: Option<WholeSeconds>,
}

/// A job in the response of `GET …/actions/jobs/{id}` and in `workflow_job` webhooks.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WorkflowJob {
    id: u64,
    run_id: u64,
    workflow_name: &'static str,
    head_branch: &'static str,
    run_url: String,
    run_attempt: u32,
    node_id: String,
    head_sha: String,
    url: String,
    html_url: String,
    status: JobStatus,
    conclusion: Option<Conclusion>,
    created_at: WholeSeconds,
    started_at: WholeSeconds,
    completed_at: Option<WholeSeconds>,
    name: String,
    steps: Vec<Step>,
    check_run_url: String,
    labels: Vec<String>,
    runner_id: Option<u64>,
    runner_name: Option<String>,
    runner_group_id: Option<u64>,
    runner_group_name: Option<String>,
}

impl WorkflowJob {
    pub(crate) fn new(job: &Job, urls: &Urls) -> Self {
        let repository = &job.repository;
        let (id, run_id) = (job.id, job.run_id);
        let runner = job.runner.as_ref();
        let step = |name, number| Step {
            name,
            status: job.status,
            conclusion: job.conclusion,
            number,
            started_at: WholeSeconds(job.started_at),
            completed_at: job.completed_at.map(WholeSeconds),
        };
        Self {
            id,
            run_id,
            workflow_name: WORKFLOW_NAME,
            head_branch: BRANCH,
            run_url: urls.to(&format!("repos/{repository}/actions/runs/{run_id}")),
            run_attempt: job.run_attempt,
            node_id: node_id("CR", id),
            head_sha: head_sha(repository),
            url: urls.to(&format!("repos/{repository}/actions/jobs/{id}")),
            html_url: urls.page(&format!("{repository}/actions/runs/{run_id}/job/{id}")),
            status: job.status,
            conclusion: job.conclusion,
            created_at: WholeSeconds(job.created_at),
            started_at: WholeSeconds(job.started_at),
            completed_at: job.completed_at.map(WholeSeconds),
            name: job.name.clone(),
            steps: match runner {
                Some(_) => vec![step("Set up job", 1), step("Work", 2)],
                None => Vec::new(),
            },
            check_run_url: urls.to(&format!("repos/{repository}/check-runs/{id}")),
            labels: job.labels.clone(),
            runner_id: runner.map(|runner| runner.runner_id),
            runner_name: runner.map(|runner| runner.runner_name.clone()),
            runner_group_id: runner.map(|runner| runner.runner_group_id),
            runner_group_name: runner.map(|runner| runner.runner_group_name.clone()),
        }
    }

    /// Replaces the runner, if there is one, in the way in which GitHub leaves it out.
    pub(crate) fn remove_runner(&mut self) {
        if self.runner_id.is_some() {
            self.runner_id = Some(0);
            self.runner_name = Some(String::new());
            self.runner_group_id = Some(0);
            self.runner_group_name = Some(String::new());
        }
    }
}
