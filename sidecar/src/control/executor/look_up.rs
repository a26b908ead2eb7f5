//! Looks up runners and jobs at GitHub.

use std::time::Duration;

use tracing::{error, info, warn};

use super::{Executor, launch::Failure};
use crate::{
    control::clock,
    github::{self, ErrorKind, GitHub, Purpose},
    store::JobUpdate,
};
use edgerunner_scheduler::{
    model::{Host, JobKey, JobState, RunOrigin, ServerTarget},
    plan::{Event, LookUpFailure, Registration},
};

impl Executor {
    /// Reports the runners that GitHub lists at a target.
    pub(crate) async fn look_up(self, target: ServerTarget) {
        let requested_at = clock::now().instant;
        let list = |github: GitHub| {
            let target = &target.target;
            async move { github.runners(target).await }
        };
        match self.shared.clients.call(&target, Purpose::LookUps, list).await {
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
        let event = match self.try_look_up_job(job, &repository, &target).await {
            Ok((state, runner)) => Event::JobFound { job, state, runner },
            Err(failure) => Event::JobLookUpFailed { job, failure },
        };
        self.send(event).await;
    }

    async fn try_look_up_job(
        &self,
        job: JobKey,
        repository: &str,
        target: &ServerTarget,
    ) -> Result<(JobState, String), LookUpFailure> {
        let Some((owner, name)) = repository.split_once('/') else {
            return Err(LookUpFailure::Refused);
        };
        // With a credential that registers its runners: another may not see the job, which would
        // then appear to be gone.
        let clients = &self.shared.clients;
        if let Some(retry_after) = clients.reserved_for_launches(target, owner, name) {
            return Err(LookUpFailure::Unavailable { retry_after });
        }
        let look_up = |github: GitHub| async move { github.job(owner, name, job.id).await };
        let found = clients.call(target, Purpose::LookUps, look_up).await;
        let delivery = self.delivery(job).await;
        let found = found.map_err(|error| {
            warn!(%job, host = %job.host, delivery, %error, "cannot look up the job");
            failure(&error)
        })?;
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
            self.advance(job, state, runner.clone(), conclusion).await;
        }
        Ok((state, runner))
    }

    /// Reports where the code of a run comes from.
    pub(crate) async fn look_up_run(
        self,
        host: Host,
        run_id: u64,
        repository: String,
        target: ServerTarget,
    ) {
        let event = match self.try_look_up_run(run_id, &repository, &target).await {
            Ok(origin) => Event::RunFound { host, run_id, repository, origin },
            Err(failure) => Event::RunLookUpFailed { host, run_id, repository, failure },
        };
        self.send(event).await;
    }

    async fn try_look_up_run(
        &self,
        run: u64,
        repository: &str,
        target: &ServerTarget,
    ) -> Result<Option<RunOrigin>, LookUpFailure> {
        let Some((owner, name)) = repository.split_once('/') else {
            return Err(LookUpFailure::Refused);
        };
        let clients = &self.shared.clients;
        if let Some(retry_after) = clients.reserved_for_launches(target, owner, name) {
            return Err(LookUpFailure::Unavailable { retry_after });
        }
        let look_up = |github: GitHub| async move { github.run_origin(owner, name, run).await };
        let found = clients.call(target, Purpose::LookUps, look_up).await;
        found.map_err(|error| {
            warn!(run, repository, host = %target.host, %error, "cannot look up where the code of a run comes from: its jobs wait");
            failure(&error)
        })
    }

    /// Stores that a job is over whose end GitHub will not report.
    pub(crate) async fn give_up_job(self, job: JobKey, why: String) {
        let (host, delivery) = (job.host, self.delivery(job).await);
        warn!(%job, %host, delivery, error = why, "gave up on a job: it is recorded as completed, its conclusion as unknown");
        self.advance(job, JobState::Completed, String::new(), "unknown".into()).await;
    }

    async fn advance(&self, job: JobKey, state: JobState, runner_name: String, conclusion: String) {
        let (host, delivery) = (job.host, self.delivery(job).await);
        let stored = self.shared.store.job(job).await;
        if !matches!(&stored, Ok(Some(known)) if known.state >= state) {
            info!(%job, %host, delivery, state = state.as_str(), conclusion, "a webhook for this job was lost");
        }
        let found_at = clock::now().wall;
        let update = JobUpdate { key: job, state, runner_name, conclusion, found_at };
        if let Err(error) = self.shared.store.advance_job(update).await {
            error!(%job, %host, delivery, %error, "the job's record is out of date");
        }
    }

    /// The delivery that announced a job, for the log; empty if it cannot be read.
    async fn delivery(&self, job: JobKey) -> String {
        let record = self.shared.store.job(job).await.ok().flatten();
        record.map(|record| record.job.delivery).unwrap_or_default()
    }
}

fn failure(error: &github::Error) -> LookUpFailure {
    match error.kind {
        ErrorKind::Forbidden | ErrorKind::NotFound => LookUpFailure::Refused,
        ErrorKind::UnexpectedResponse | ErrorKind::Invalid | ErrorKind::NameTaken => {
            LookUpFailure::Unexpected
        }
        ErrorKind::Unauthorized
        | ErrorKind::RateLimited
        | ErrorKind::Server
        | ErrorKind::Unreachable
        | ErrorKind::TimedOut => {
            LookUpFailure::Unavailable { retry_after: error.retry_after.unwrap_or(Duration::ZERO) }
        }
    }
}
