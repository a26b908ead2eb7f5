//! Running completed jobs again.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, GitHub, path};
use edgerunner_scheduler::model::Target;

/// What is run again, with the jobs that depend on it, as the next attempt of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RerunOf {
    Job(u64),
    /// All jobs of a run that failed.
    FailedJobs {
        run: u64,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RerunAnswer {
    Accepted,
    /// Other jobs of the run are not completed.
    StillRunning,
}

impl GitHub {
    /// Needs the permission *Actions: write*. After an error without a response, the jobs may run
    /// again anyway.
    pub(crate) async fn rerun(
        &self,
        owner: &str,
        repository: &str,
        what: RerunOf,
    ) -> Result<RerunAnswer, Error> {
        #[derive(Default, Deserialize)]
        struct Refusal {
            message: String,
        }
        let path = path::repository(owner, repository);
        let (call, path) = match what {
            RerunOf::Job(job) => (
                format!("running job {job} of {owner}/{repository} again"),
                format!("{path}/actions/jobs/{job}/rerun"),
            ),
            RerunOf::FailedJobs { run } => (
                format!("running the failed jobs of run {run} of {owner}/{repository} again"),
                format!("{path}/actions/runs/{run}/rerun-failed-jobs"),
            ),
        };
        let target = &Target::Repository { owner: owner.into(), name: repository.into() };
        let response = self.send(&call, Method::POST, &path, None, target).await?;
        if response.status == StatusCode::CREATED {
            return Ok(RerunAnswer::Accepted);
        }
        // GitHub has no other sign of it than the text.
        let refusal: Refusal = serde_json::from_slice(&response.body).unwrap_or_default();
        match refusal.message.contains("already running") {
            true => Ok(RerunAnswer::StillRunning),
            false => Err(self.client.error(&call, &response)),
        }
    }
}
