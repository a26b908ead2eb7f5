//! Looks up runners and jobs at GitHub.

use tracing::{error, info, warn};

use super::{Executor, launch::Failure};
use crate::{control::clock, store::JobUpdate};
use edgerunner_scheduler::{
    model::{JobKey, JobState, ServerTarget, Target},
    plan::{Event, Registration},
};

impl Executor {
    /// Reports the runners that GitHub lists at a target.
    pub(crate) async fn look_up(self, target: ServerTarget) {
        let requested_at = clock::now().instant;
        let listed = match self.shared.clients.for_target(&target) {
            Ok(client) => client.github.runners(&target.target).await,
            Err(error) => Err(error),
        };
        match listed {
            Ok(listed) => {
                let runners = listed
                    .into_iter()
                    .map(|runner| Registration {
                        name: runner.name,
                        id: runner.id,
                        online: runner.online,
                        busy: runner.busy,
                    })
                    .collect();
                self.send(Event::Registrations { target, runners, requested_at }).await;
            }
            Err(error) => {
                warn!(%target, host = %target.host, %error, "cannot list runners at GitHub");
                self.look_up_failed(target, error.into()).await;
            }
        }
    }

    pub(super) async fn look_up_failed(&self, target: ServerTarget, failure: Failure) {
        let retry_after_ms = failure.retry_after_ms();
        let Failure { cause, message, .. } = failure;
        self.send(Event::LookUpFailed { target, cause, message, retry_after_ms }).await;
    }

    /// Reports a job's state at GitHub, and stores it if it has advanced.
    pub(crate) async fn look_up_job(self, job: JobKey, repository: String, target: ServerTarget) {
        let Some((owner, name)) = repository.split_once('/') else { return };
        // With the credential that registers its runners: another may not see the job, which
        // would then appear to be gone.
        let found = match self.shared.clients.for_target(&target) {
            Ok(client) => client.github.job(owner, name, job.id).await,
            Err(error) => Err(error),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                warn!(%job, host = %job.host, %error, "cannot look up the job");
                // At an organization it may be about this repository alone.
                if let Target::Repository { .. } = target.target {
                    self.look_up_failed(target, error.into()).await;
                }
                return;
            }
        };
        let (state, runner, conclusion) = match found {
            Some(found) => {
                let runner = found.runner_name.unwrap_or_default();
                let conclusion = found.conclusion.unwrap_or_default();
                // A job that GitHub holds back needs no runner yet, and is not over either.
                let state = found.state.unwrap_or(JobState::Queued);
                (state, runner, conclusion)
            }
            None => (JobState::Completed, String::new(), "gone".into()),
        };
        if state != JobState::Queued {
            let host = job.host;
            info!(%job, %host, state = state.as_str(), conclusion, "a webhook for this job was lost");
            let saved = self.shared.store.advance_job(JobUpdate {
                key: job,
                state,
                runner_name: runner.clone(),
                conclusion,
                found_at: clock::now().wall,
            });
            if let Err(error) = saved.await {
                error!(%job, %host, %error, "the job's record is out of date");
            }
        }
        self.send(Event::JobFound { job, state, runner }).await;
    }
}
