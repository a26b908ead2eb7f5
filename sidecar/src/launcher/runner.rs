//! Waits for the end of a runner that has started, and removes it.

use std::time::Duration;

use backon::{ConstantBuilder, Retryable as _};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::Launcher;
use crate::provider::{Error, ErrorKind, Instance, InstanceState, Report};
use edgerunner_scheduler::plan::ExitStatus;

/// Docker's answer to a wait may be lost.
const POLL_EVERY: Duration = Duration::from_secs(30);
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// For calls whose failure ends the task.
const RETRIES_MAX: usize = 60;
const LOG_LINES: usize = 100;
/// After a signal little time is left, and a log may take long.
const LOG_LIMIT_STOPPED: Duration = Duration::from_secs(5);

impl Launcher<'_> {
    /// Waits until the runner has ended, or ends it after a signal, removes it and reports it.
    pub(super) async fn attend(&self, runner: &str, grace: Duration) {
        let status = tokio::select! {
            status = self.exit_status(runner) => status,
            () = self.stop.cancelled() => self.stop(runner, grace).await,
        };
        let log = match status {
            Some(_) => self.log(runner).await,
            None => String::new(),
        };
        self.remove(runner, grace).await;
        info!(runner, exit_code = status.map(|status| status.code), "the runner has ended");
        (self.report)(&Report::ended(status, log));
    }

    /// Waits for it, for as long as it takes. `None` if the container is gone, or never started.
    async fn exit_status(&self, runner: &str) -> Option<ExitStatus> {
        let mut is_away = false;
        loop {
            let waited = match self.docker.find(runner).await {
                Ok(found) => match found?.state {
                    InstanceState::Exited(status) => return Some(status),
                    InstanceState::Created | InstanceState::Removing => return None,
                    InstanceState::Running | InstanceState::Unreachable => {
                        self.docker.wait(runner, POLL_EVERY).await
                    }
                },
                Err(error) => Err(error),
            };
            match waited {
                Ok(Some(status)) => return Some(status),
                Ok(None) => is_away = false,
                Err(error) => {
                    if !is_away {
                        warn!(error = error.message, "waiting for Docker Engine");
                    }
                    is_away = true;
                    sleep(RETRY_EVERY).await;
                }
            }
        }
    }

    /// Ends the runner within `grace`. `None` if its exit status is not known.
    async fn stop(&self, runner: &str, grace: Duration) -> Option<ExitStatus> {
        if let Err(error) = self.docker.stop(runner, grace).await {
            warn!(error = error.message, "the runner is removed without being stopped first");
        }
        match self.docker.find(runner).await {
            Ok(Some(Instance { state: InstanceState::Exited(status), .. })) => Some(status),
            _ => None,
        }
    }

    /// Empty if it cannot be read.
    async fn log(&self, runner: &str) -> String {
        let limit = if self.stop.is_cancelled() { LOG_LIMIT_STOPPED } else { Duration::MAX };
        let problem = match timeout(limit, self.docker.log(runner, LOG_LINES)).await {
            Ok(Ok(log)) => return log,
            Ok(Err(Error { kind: ErrorKind::Gone, .. })) => return String::new(),
            Ok(Err(error)) => error.message,
            Err(_) => "no answer in time".to_owned(),
        };
        warn!(error = problem, "the runner's log is lost");
        String::new()
    }

    /// Repeated for a while if it fails.
    pub(super) async fn find(&self, runner: &str) -> Result<Option<Instance>, Error> {
        (|| self.docker.find(runner)).retry(retries()).await
    }

    /// Removes the runner with everything that belongs to it. Repeated for a while if it fails;
    /// what is left then is removed by a later sweep.
    pub(super) async fn remove(&self, runner: &str, grace: Duration) {
        if let Err(error) = self.try_remove(runner, grace).await {
            error!(runner, error = error.message, "the runner is not removed yet");
        }
    }

    pub(super) async fn try_remove(&self, runner: &str, grace: Duration) -> Result<(), Error> {
        (|| self.docker.remove(runner, grace)).retry(retries()).await
    }
}

fn retries() -> ConstantBuilder {
    ConstantBuilder::new().with_delay(RETRY_EVERY).with_max_times(RETRIES_MAX)
}
