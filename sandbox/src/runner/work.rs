use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::client::{Client, ClientError};
use super::{container, hook, limits, patiently};
use crate::jitconfig::RunnerFile;
use crate::job::{Conclusion, Step};
use crate::protocol::JobMessage;

/// One job of one runner.
pub(super) struct Work<'a> {
    pub(super) client: &'a Client,
    pub(super) session: &'a str,
    pub(super) runner: &'a RunnerFile,
    pub(super) job: &'a JobMessage,
}

impl Work<'_> {
    /// Takes as long as the job takes, and less if it is cancelled.
    pub(super) async fn run(&self, stop: &CancellationToken) -> Result<Conclusion, ClientError> {
        let cancelled = async {
            loop {
                match patiently(stop, || self.client.renew(self.session)).await {
                    // The real runner, too, cancels its job when it must stop.
                    None => return Ok(Conclusion::Cancelled),
                    Some(Ok(renewal)) if renewal.cancelled => return Ok(Conclusion::Cancelled),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error),
                }
            }
        };
        let conclusion = tokio::select! {
            cancelled = cancelled => cancelled?,
            done = Box::pin(self.steps()) => done?,
        };
        // As GitHub's, it runs whatever became of the steps.
        match self.log(hook::run(hook::COMPLETED, self).await).await? {
            true => Ok(conclusion),
            false => Ok(Conclusion::Failure),
        }
    }

    async fn steps(&self) -> Result<Conclusion, ClientError> {
        if !self.log(hook::run(hook::STARTED, self).await).await? {
            return Ok(Conclusion::Failure);
        }
        for step in &self.job.steps {
            let done = match step {
                Step::Container => container::start(self.folder()).await,
                Step::Limits => limits::look(),
            };
            if !self.log(done.map(|line| vec![line])).await? {
                return Ok(Conclusion::Failure);
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(self.job.seconds)).await;
        Ok(self.job.conclusion)
    }

    /// Tells GitHub what was written, and the caller whether all went well.
    async fn log(&self, done: anyhow::Result<Vec<String>>) -> Result<bool, ClientError> {
        let (lines, well) = match done {
            Ok(lines) => (lines, true),
            Err(error) => (vec![format!("##[error]{error:#}")], false),
        };
        if !lines.is_empty() {
            lines.iter().for_each(|line| println!("{line}"));
            self.client.log(self.session, self.job.job_id, lines).await?;
        }
        Ok(well)
    }

    /// Where the repository's files would be.
    pub(super) fn folder(&self) -> PathBuf {
        let name = &self.job.repository.name;
        // An absolute one stays as it is.
        std::env::current_dir()
            .unwrap_or_default()
            .join(&self.runner.work_folder)
            .join(name)
            .join(name)
    }
}
