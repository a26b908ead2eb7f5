//! Workflow runs that have not completed, and jobs.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, page, path, response::Response};
use edgerunner_scheduler::{
    missed::{Page, Run, RunStatus},
    model::{JobState, RunOrigin, Target, UnixMs, Visibility},
};

/// The state of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WorkflowJob {
    /// `None` if GitHub holds the job back (`waiting`, `pending`, `requested`): it needs no
    /// runner yet.
    pub state: Option<JobState>,
    pub conclusion: Option<String>,
    pub runner_name: Option<String>,
}

/// A job in the list of a run's jobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedJob {
    pub id: u64,
    pub run_id: u64,
    pub run_attempt: u32,
    /// As in [`WorkflowJob`].
    pub state: Option<JobState>,
    pub created_at: UnixMs,
    pub name: String,
    pub workflow_name: String,
    pub head_branch: String,
    pub html_url: String,
    pub labels: Vec<String>,
}

/// A workflow run, as GitHub lists and shows it.
#[derive(Deserialize)]
struct ShownRun {
    id: u64,
    repository: Option<Repository>,
    /// `None` if it was deleted: that of the run itself is still there.
    head_repository: Option<HeadRepository>,
}

#[derive(Deserialize)]
struct Repository {
    id: u64,
    private: Option<bool>,
    visibility: Option<String>,
}

#[derive(Deserialize)]
struct HeadRepository {
    id: u64,
}

impl ShownRun {
    fn read(self) -> Run {
        let origin = self.repository.map(|Repository { id, private, visibility }| RunOrigin {
            visibility: Visibility::reported(visibility.as_deref(), private),
            from_fork: self.head_repository.is_none_or(|head| head.id != id),
        });
        Run { id: self.id, origin }
    }
}

impl GitHub {
    /// Where the code of a run comes from. `None` if GitHub no longer has the run. GitHub responds
    /// in the same way if the token may not read the repository's Actions; that is an error.
    pub(crate) async fn run_origin(
        &self,
        owner: &str,
        repository: &str,
        run: u64,
    ) -> Result<Option<RunOrigin>, Error> {
        let call = format!("reading run {run} of {owner}/{repository}");
        let path = format!("{}/actions/runs/{run}", path::repository(owner, repository));
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let response = self.send(&call, Method::GET, &path, None, target).await?;
        if self.is_gone(&call, &response, owner, repository).await? {
            return Ok(None);
        }
        let shown: ShownRun = self.client.read(&call, &response, StatusCode::OK)?;
        let Some(origin) = shown.read().origin else {
            return Err(Error::unexpected(&call, "a run without its repository"));
        };
        Ok(Some(origin))
    }

    /// Whether GitHub no longer has what it was asked for. An error if it may only hide it: if it
    /// does not list the repository's runs either.
    async fn is_gone(
        &self,
        call: &str,
        response: &Response,
        owner: &str,
        repository: &str,
    ) -> Result<bool, Error> {
        if !matches!(response.status, StatusCode::NOT_FOUND | StatusCode::GONE) {
            return Ok(false);
        }
        let runs = format!("{}/actions/runs?per_page=1", path::repository(owner, repository));
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let readable = self.send(call, Method::GET, &runs, None, target).await?;
        match readable.status {
            StatusCode::OK => Ok(true),
            _ => Err(self.client.error(call, response)),
        }
    }

    /// Runs, newest first. `page` is the `next` of the page before.
    pub(crate) async fn runs(
        &self,
        owner: &str,
        repository: &str,
        status: RunStatus,
        page: Option<&str>,
    ) -> Result<Page<Run>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            workflow_runs: Vec<ShownRun>,
        }
        let status = match status {
            RunStatus::Queued => "queued",
            RunStatus::InProgress => "in_progress",
        };
        let call = format!("listing the {status} runs of {owner}/{repository}");
        let first = format!(
            "{}/actions/runs?status={status}&per_page=100",
            path::repository(owner, repository)
        );
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let path = page.unwrap_or(&first);
        let response = self.send(&call, Method::GET, path, None, target).await?;
        page::read(&self.client, &call, &response, |reply: Reply| {
            Ok(reply.workflow_runs.into_iter().map(ShownRun::read).collect())
        })
    }

    /// The jobs of a run's latest attempt.
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
            status: String,
            created_at: String,
            name: String,
            workflow_name: Option<String>,
            head_branch: Option<String>,
            html_url: Option<String>,
            labels: Vec<String>,
        }
        let call = format!("listing the jobs of run {run} of {owner}/{repository}");
        let first = format!(
            "{}/actions/runs/{run}/jobs?filter=latest&per_page=100",
            path::repository(owner, repository)
        );
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let path = page.unwrap_or(&first);
        let response = self.send(&call, Method::GET, path, None, target).await?;
        page::read(&self.client, &call, &response, |reply: Reply| {
            let jobs = reply.jobs.into_iter().map(|job| {
                Ok(ListedJob {
                    created_at: unix_ms(&call, &job.created_at)?,
                    id: job.id,
                    run_id: job.run_id,
                    run_attempt: job.run_attempt,
                    state: job_state(&job.status),
                    name: job.name,
                    workflow_name: job.workflow_name.unwrap_or_default(),
                    head_branch: job.head_branch.unwrap_or_default(),
                    html_url: job.html_url.unwrap_or_default(),
                    labels: job.labels,
                })
            });
            jobs.collect()
        })
    }

    /// `None` if GitHub no longer has the job. GitHub responds in the same way if the token may
    /// not read the repository's Actions; that is an error.
    pub(crate) async fn job(
        &self,
        owner: &str,
        repository: &str,
        job_id: u64,
    ) -> Result<Option<WorkflowJob>, Error> {
        #[derive(Deserialize)]
        struct Reply {
            status: String,
            conclusion: Option<String>,
            runner_name: Option<String>,
        }
        let call = format!("reading job {job_id} of {owner}/{repository}");
        let path = format!("{}/actions/jobs/{job_id}", path::repository(owner, repository));
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let response = self.send(&call, Method::GET, &path, None, target).await?;
        if self.is_gone(&call, &response, owner, repository).await? {
            return Ok(None);
        }
        let Reply { status, conclusion, runner_name } =
            self.client.read(&call, &response, StatusCode::OK)?;
        Ok(Some(WorkflowJob { state: job_state(&status), conclusion, runner_name }))
    }
}

fn job_state(status: &str) -> Option<JobState> {
    match status {
        "queued" => Some(JobState::Queued),
        "in_progress" => Some(JobState::InProgress),
        "completed" => Some(JobState::Completed),
        _ => None,
    }
}

/// An Enterprise Server may leave the number out.
fn first_attempt() -> u32 {
    1
}

/// Parses a time in RFC 3339.
pub(super) fn unix_ms(call: &str, text: &str) -> Result<UnixMs, Error> {
    let time: Option<jiff::Timestamp> = text.parse().ok();
    time.and_then(|time| UnixMs::try_from(time.as_millisecond()).ok())
        .ok_or_else(|| Error::unexpected(call, "a time that is not as in RFC 3339"))
}
