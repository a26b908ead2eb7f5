//! Workflow runs that are not over, and their jobs.

use http::Method;
use serde::Deserialize;

use super::{Error, GitHub, JobProgress, Page, first_attempt, repository_path};
use edgerunner_scheduler::model::{Target, UnixMs};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunStatus {
    Queued,
    InProgress,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedJob {
    pub id: u64,
    pub run_id: u64,
    pub run_attempt: u32,
    pub status: JobProgress,
    pub created_at: UnixMs,
    pub name: String,
    pub workflow_name: String,
    pub head_branch: String,
    pub html_url: String,
    pub labels: Vec<String>,
}

impl GitHub {
    /// Ids, newest first. `page` is what an earlier page named as the next.
    pub(crate) async fn runs(
        &self,
        owner: &str,
        repository: &str,
        status: RunStatus,
        page: Option<&str>,
    ) -> Result<Page<u64>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            workflow_runs: Vec<Run>,
        }
        #[derive(Deserialize)]
        struct Run {
            id: u64,
        }
        let status = match status {
            RunStatus::Queued => "queued",
            RunStatus::InProgress => "in_progress",
        };
        let call = format!("list of the {status} runs of {owner}/{repository}");
        let first = format!(
            "{}/actions/runs?status={status}&per_page=100",
            repository_path(owner, repository)
        );
        let ids = |reply: Reply| reply.workflow_runs.into_iter().map(|run| run.id).collect();
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let path = page.unwrap_or(&first);
        let answer = self.client.send(&call, Method::GET, path, None, target).await?;
        self.page(&call, &answer, ids)
    }

    /// Those of the latest attempt.
    pub(crate) async fn jobs_of_run(
        &self,
        owner: &str,
        repository: &str,
        run: u64,
        page: Option<&str>,
    ) -> Result<Page<ListedJob>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            jobs: Vec<Listed>,
        }
        #[derive(Deserialize)]
        struct Listed {
            id: u64,
            run_id: u64,
            #[serde(default = "first_attempt")]
            run_attempt: u32,
            status: JobProgress,
            created_at: String,
            name: String,
            workflow_name: Option<String>,
            head_branch: Option<String>,
            html_url: Option<String>,
            labels: Vec<String>,
        }
        let call = format!("jobs of run {run} of {owner}/{repository}");
        let first = format!(
            "{}/actions/runs/{run}/jobs?filter=latest&per_page=100",
            repository_path(owner, repository)
        );
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let path = page.unwrap_or(&first);
        let answer = self.client.send(&call, Method::GET, path, None, target).await?;
        let page = self.page(&call, &answer, |reply: Reply| reply.jobs)?;
        let items = page.items.into_iter().map(|job| {
            Ok(ListedJob {
                created_at: unix_ms(&call, &job.created_at)?,
                id: job.id,
                run_id: job.run_id,
                run_attempt: job.run_attempt,
                status: job.status,
                name: job.name,
                workflow_name: job.workflow_name.unwrap_or_default(),
                head_branch: job.head_branch.unwrap_or_default(),
                html_url: job.html_url.unwrap_or_default(),
                labels: job.labels,
            })
        });
        let items = items.collect::<Result<_, Error>>()?;
        Ok(Page { items, next: page.next, unchanged: page.unchanged })
    }
}

/// RFC 3339.
pub(super) fn unix_ms(call: &str, text: &str) -> Result<UnixMs, Error> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    time.and_then(|time| UnixMs::try_from(time.as_millisecond()).ok())
        .ok_or_else(|| Error::unexpected(call, "a time that is not as in RFC 3339"))
}
