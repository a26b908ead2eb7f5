//! Workflow runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::ApiError;
use super::extract::{Id, repository};
use super::jobs::is_latest;
use super::page::{Page, PageOf};
use crate::app::App;
use crate::job::{Conclusion, Job, JobStatus};
use crate::payload::{
    ACTOR, BRANCH, Repository, SimpleUser, Urls, WORKFLOW_NAME, WholeSeconds, head_sha, id_of,
    node_id,
};
use crate::repository::Repository as Record;
use crate::scope::{RepositoryName, Scope};
use crate::state::State;

const WORKFLOW_PATH: &str = ".github/workflows/ci.yml";
/// Whose fork a pull request comes from.
const CONTRIBUTOR: &str = "contributor";
const TITLE: &str = "Change something";

#[derive(Debug, Serialize)]
pub(super) struct RunView {
    id: u64,
    name: &'static str,
    node_id: String,
    head_branch: &'static str,
    head_sha: String,
    path: &'static str,
    display_title: &'static str,
    run_number: u64,
    run_attempt: u32,
    event: &'static str,
    status: JobStatus,
    conclusion: Option<Conclusion>,
    workflow_id: u64,
    check_suite_id: u64,
    check_suite_node_id: String,
    url: String,
    html_url: String,
    pull_requests: Vec<()>,
    created_at: WholeSeconds,
    updated_at: WholeSeconds,
    run_started_at: WholeSeconds,
    actor: SimpleUser,
    triggering_actor: SimpleUser,
    referenced_workflows: Vec<()>,
    jobs_url: String,
    logs_url: String,
    check_suite_url: String,
    artifacts_url: String,
    cancel_url: String,
    rerun_url: String,
    previous_attempt_url: Option<String>,
    workflow_url: String,
    head_commit: Commit,
    repository: Repository,
    head_repository: Option<Repository>,
}

#[derive(Debug, Serialize)]
struct Commit {
    id: String,
    tree_id: String,
    message: &'static str,
    timestamp: WholeSeconds,
    author: Person,
    committer: Person,
}

#[derive(Clone, Debug, Serialize)]
struct Person {
    name: &'static str,
    email: &'static str,
}

const AUTHOR: Person = Person { name: "The Octocat", email: "octocat@example.com" };

impl RunView {
    /// Derives a run from its jobs; `None` if there are none.
    fn new(record: &Record, all: &[&Job], urls: &Urls) -> Option<Self> {
        let repository = &record.name;
        let first = all.first()?;
        let jobs: Vec<&Job> = all.iter().copied().filter(|job| is_latest(all, job)).collect();
        let has = |status| jobs.iter().any(|job| job.status == status);
        let status = if has(JobStatus::InProgress)
            || (has(JobStatus::Queued) && has(JobStatus::Completed))
        {
            JobStatus::InProgress
        } else if has(JobStatus::Queued) {
            JobStatus::Queued
        } else {
            JobStatus::Completed
        };
        let conclusion = (status == JobStatus::Completed).then(|| {
            jobs.iter()
                .filter_map(|job| job.conclusion)
                .find(|conclusion| *conclusion != Conclusion::Success)
                .unwrap_or(Conclusion::Success)
        });
        let head_repository = match first.from_fork {
            true => {
                let name = repository.name.clone();
                let fork = RepositoryName { owner: CONTRIBUTOR.to_owned(), name };
                Repository::new(&Record::new(fork), urls)
            }
            false => Repository::new(record, urls),
        };
        let attempt = all.iter().map(|job| job.run_attempt).max().unwrap_or(1);
        let started = jobs.iter().map(|job| job.created_at).min().unwrap_or(first.created_at);
        let updated = jobs
            .iter()
            .map(|job| job.completed_at.unwrap_or(job.started_at))
            .max()
            .unwrap_or(started);
        let api = format!("repos/{repository}");
        let url = urls.to(&format!("{api}/actions/runs/{}", first.run_id));
        let (suite, workflow) = (first.run_id + 1, id_of(&format!("{api} {WORKFLOW_PATH}")));
        Some(Self {
            id: first.run_id,
            name: WORKFLOW_NAME,
            node_id: node_id("WFR", first.run_id),
            head_branch: BRANCH,
            head_sha: head_sha(repository),
            path: WORKFLOW_PATH,
            display_title: TITLE,
            run_number: first.run_number,
            run_attempt: attempt,
            event: if first.from_fork { "pull_request" } else { "push" },
            status,
            conclusion,
            workflow_id: workflow,
            check_suite_id: suite,
            check_suite_node_id: node_id("CS", suite),
            html_url: urls.page(&format!("{repository}/actions/runs/{}", first.run_id)),
            pull_requests: Vec::new(),
            created_at: WholeSeconds(first.created_at),
            updated_at: WholeSeconds(updated),
            run_started_at: WholeSeconds(started),
            actor: SimpleUser::user(ACTOR, urls),
            triggering_actor: SimpleUser::user(ACTOR, urls),
            referenced_workflows: Vec::new(),
            jobs_url: format!("{url}/jobs"),
            logs_url: format!("{url}/logs"),
            check_suite_url: urls.to(&format!("{api}/check-suites/{suite}")),
            artifacts_url: format!("{url}/artifacts"),
            cancel_url: format!("{url}/cancel"),
            rerun_url: format!("{url}/rerun"),
            previous_attempt_url: (attempt > 1).then(|| format!("{url}/attempts/{}", attempt - 1)),
            workflow_url: urls.to(&format!("{api}/actions/workflows/{workflow}")),
            head_commit: Commit {
                id: head_sha(repository),
                tree_id: head_sha(repository),
                message: TITLE,
                timestamp: WholeSeconds(first.created_at),
                author: AUTHOR,
                committer: AUTHOR,
            },
            repository: Repository::new(record, urls),
            head_repository: Some(head_repository),
            url,
        })
    }

    /// The `status` parameter matches either.
    fn matches(&self, status_or_conclusion: &str) -> bool {
        let conclusion = self.conclusion.map(Conclusion::as_str);
        self.status.as_str() == status_or_conclusion || conclusion == Some(status_or_conclusion)
    }
}

/// Newest first.
fn runs(state: &State, repository: &RepositoryName) -> Vec<RunView> {
    let mut runs: BTreeMap<u64, Vec<&Job>> = BTreeMap::new();
    for job in state.jobs.values().filter(|job| job.repository == *repository) {
        runs.entry(job.run_id).or_default().push(job);
    }
    let record = state.repository(repository);
    runs.values().rev().filter_map(|jobs| RunView::new(&record, jobs, &state.urls)).collect()
}

#[derive(Serialize)]
struct RunList {
    total_count: usize,
    workflow_runs: Vec<RunView>,
}

pub(super) async fn list(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    page: Page,
) -> Result<Response, ApiError> {
    let repository = repository(scope)?;
    let mut all = app.read(|state| runs(state, &repository));
    if let Some(status) = page.parameter("status") {
        all.retain(|run| run.matches(status));
    }
    let PageOf { total, items, links } = page.of(all);
    let list = RunList { total_count: total, workflow_runs: items };
    Ok((links, Json(list)).into_response())
}

pub(super) async fn get(
    Shared(app): Shared<Arc<App>>,
    scope: Scope,
    Id(id): Id,
) -> Result<Json<RunView>, ApiError> {
    let repository = repository(scope)?;
    app.read(|state| runs(state, &repository))
        .into_iter()
        .find(|run| run.id == id)
        .map(Json)
        .ok_or_else(ApiError::not_found)
}
