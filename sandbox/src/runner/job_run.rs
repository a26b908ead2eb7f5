//! The run of one job: its scripts, its steps, its conclusion.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::client::{AcquiredJob, Client, ClientError};
use super::job_script::{JobScript, ScriptContext};
use super::retry::with_retries;
use super::{container, limits};
use crate::jit_config::RunnerFile;
use crate::job::{Conclusion, Step};
use crate::protocol::{MessageType, RENEWAL_INTERVAL};

pub(super) struct JobRun<'a> {
    pub(super) client: &'a Client<'a>,
    pub(super) runner: &'a RunnerFile,
    pub(super) acquired: &'a AcquiredJob,
}

/// Waits until GitHub cancels the job, or the runner must stop. The open-source runner also asks
/// for messages while it runs a job; GitHub takes it to be lost when it no longer does.
pub(super) async fn cancellation(
    client: &Client<'_>,
    session: &str,
    stop: &CancellationToken,
) -> Result<(), ClientError> {
    loop {
        match with_retries(stop, || client.message(session, true)).await {
            // The real runner also cancels its job when it must stop.
            None => return Ok(()),
            Some(Ok(Some(message))) if message.message_type == MessageType::JobCancellation => {
                return Ok(());
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(error),
        }
    }
}

impl JobRun<'_> {
    /// Returns when the job is done, or earlier if it is cancelled.
    pub(super) async fn run(
        &self,
        cancelled: impl Future<Output = Result<(), ClientError>>,
    ) -> Result<Conclusion, ClientError> {
        let conclusion = tokio::select! {
            cancelled = cancelled => cancelled.map(|()| Conclusion::Cancelled)?,
            error = self.keep_locked() => return Err(error),
            done = Box::pin(self.run_steps()) => done?,
        };
        // As in the real runner, this script runs no matter how the steps ended.
        match self.run_script(JobScript::Completed).await? {
            true => Ok(conclusion),
            false => Ok(Conclusion::Failure),
        }
    }

    /// Renews the lock on the job. Ends only with an error.
    async fn keep_locked(&self) -> ClientError {
        let mut renewals = tokio::time::interval(RENEWAL_INTERVAL);
        loop {
            renewals.tick().await;
            match self.client.renew(self.acquired).await {
                Ok(()) | Err(ClientError::Unavailable(_)) => {}
                Err(error) => return error,
            }
        }
    }

    async fn run_steps(&self) -> Result<Conclusion, ClientError> {
        if !self.run_script(JobScript::Started).await? {
            return Ok(Conclusion::Failure);
        }
        for step in &self.acquired.job.steps {
            let result = match step {
                Step::Container => container::start(self.workspace()).await,
                Step::TakeMemory => container::take_memory_inside().await,
                Step::Limits => limits::report(),
            };
            if !self.log(result.map(|line| vec![line])).await? {
                return Ok(Conclusion::Failure);
            }
        }
        tokio::time::sleep(Duration::from_secs_f64(self.acquired.job.seconds)).await;
        Ok(self.acquired.job.conclusion)
    }

    async fn run_script(&self, script: JobScript) -> Result<bool, ClientError> {
        let workspace = self.workspace();
        let context = ScriptContext {
            job: &self.acquired.job,
            runner_name: &self.runner.agent_name,
            workspace: &workspace,
        };
        self.log(script.run(&context).await).await
    }

    /// Sends the output or the error to the job's log. Returns whether there was no error.
    async fn log(&self, result: anyhow::Result<Vec<String>>) -> Result<bool, ClientError> {
        let (lines, succeeded) = match result {
            Ok(lines) => (lines, true),
            Err(error) => (vec![format!("##[error]{}", format!("{error:#}").trim_end())], false),
        };
        if !lines.is_empty() {
            lines.iter().for_each(|line| println!("{line}"));
            self.client.log(self.acquired, &lines).await?;
        }
        Ok(succeeded)
    }

    /// The folder into which a checkout would put the repository's files.
    fn workspace(&self) -> PathBuf {
        let name = &self.acquired.job.repository.name;
        // Joining leaves an absolute work folder as it is.
        std::env::current_dir()
            .unwrap_or_default()
            .join(&self.runner.work_folder)
            .join(name)
            .join(name)
    }
}
