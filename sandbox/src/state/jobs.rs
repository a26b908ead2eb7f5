//! The lifecycle of a job: queued, assigned to a runner, completed.

use jiff::Timestamp;

use super::State;
use crate::job::{AssignedRunner, Conclusion, Job, JobRequest, JobStatus};
use crate::payload::{
    ACTOR, Enterprise, InstallationRef, Organization, Repository, SimpleUser, WorkflowJob,
    WorkflowJobEvent,
};
use crate::registration::Runner;
use crate::settings::WebhookKind;

const RUN_ID: &str = "${{ github.run_id }}";
/// What is usual, for [`State::forget_old`].
const DELIVERIES_OF_A_JOB: usize = 3;
const CALLS_FOR_A_JOB: usize = 6;

#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error("job {0} does not exist")]
    Unknown(u64),
    #[error("job {0} is already completed")]
    Completed(u64),
    #[error("job {0} is not completed, so it cannot be rerun")]
    NotCompleted(u64),
}

impl State {
    /// Forgets the oldest completed jobs, and deliveries, beyond this many jobs.
    pub(crate) fn forget_old(&mut self, jobs: usize) {
        let completed = |job: &Job| job.status == JobStatus::Completed;
        let count = self.jobs.values().filter(|job| completed(job)).count();
        let mut forget = count.saturating_sub(jobs);
        self.jobs.retain(|_, job| {
            let forgotten = forget > 0 && completed(job);
            forget -= usize::from(forgotten);
            !forgotten
        });
        let deliveries = self.deliveries.len().saturating_sub(jobs * DELIVERIES_OF_A_JOB);
        self.deliveries.drain(..deliveries);
        let calls = self.calls.len().saturating_sub(jobs * CALLS_FOR_A_JOB);
        self.calls.drain(..calls);
        if self.configuration_users.len() > jobs {
            self.forget_configurations();
        }
    }

    /// Queues the jobs of one workflow run, and returns their ids, oldest first.
    pub(crate) fn queue_jobs(&mut self, request: &JobRequest) -> Vec<u64> {
        let (run_id, run_number) = self.ids.run();
        let labels = request.labels.iter().map(|it| it.replace(RUN_ID, &run_id.to_string()));
        let labels: Vec<String> = labels.collect();
        let repository = self.current_name(&request.repository);
        let now = Timestamp::now();
        (1..=request.count)
            .map(|number| {
                let job = Job {
                    id: self.ids.job(),
                    run_id,
                    run_number,
                    run_attempt: 1,
                    repository: repository.clone(),
                    name: match request.count {
                        1 => request.name.clone(),
                        _ => format!("{} ({number})", request.name),
                    },
                    labels: labels.clone(),
                    seconds: request.seconds,
                    planned_conclusion: request.conclusion,
                    steps: request.steps.clone(),
                    max_parallel: request.max_parallel,
                    from_fork: request.from_fork,
                    log: Vec::new(),
                    status: JobStatus::Queued,
                    conclusion: None,
                    cancel_requested: false,
                    offered: false,
                    created_at: now,
                    started_at: now,
                    completed_at: None,
                    runner: None,
                };
                self.add(job)
            })
            .collect()
    }

    fn add(&mut self, job: Job) -> u64 {
        let id = job.id;
        self.jobs.insert(id, job);
        self.send_job_event(id, JobStatus::Queued.as_str());
        id
    }

    /// The runner's job, or else the oldest queued one that it may run.
    pub(crate) fn job_for(&self, runner: &Runner) -> Option<&Job> {
        match runner.job_id.or(runner.offered_job_id) {
            Some(id) => self.jobs.get(&id),
            None => self.jobs.values().find(|job| {
                job.status == JobStatus::Queued
                    && !job.offered
                    && runner.scope.covers(&job.repository)
                    && runner.has_labels(&job.labels)
                    && !self.held_back(job)
            }),
        }
    }

    /// Whether as many jobs of the run are with runners as may be.
    fn held_back(&self, job: &Job) -> bool {
        let with_runners = || {
            let of_run = self.jobs.values().filter(|other| other.run_id == job.run_id);
            of_run.filter(|other| other.status != JobStatus::Completed && other.offered).count()
        };
        job.max_parallel.is_some_and(|max| with_runners() >= max as usize)
    }

    /// Lifts the limit on the jobs of the job's run.
    pub(crate) fn release(&mut self, id: u64) -> Result<(), JobError> {
        let run = self.jobs.get(&id).ok_or(JobError::Unknown(id))?.run_id;
        for job in self.jobs.values_mut().filter(|job| job.run_id == run) {
            job.max_parallel = None;
        }
        Ok(())
    }

    /// The runner's job, or else its next one, which no other runner is offered from now on.
    pub(crate) fn offer_job(&mut self, runner_id: u64) -> Option<&Job> {
        let runner = self.runners.get(&runner_id)?;
        let id = self.job_for(runner)?.id;
        let runner = self.runners.get_mut(&runner_id)?;
        let job = self.jobs.get_mut(&id)?;
        if runner.job_id.is_none() {
            runner.offered_job_id = Some(id);
            job.offered = true;
        }
        Some(job)
    }

    /// Starts the job that the runner was offered.
    pub(crate) fn start_job(&mut self, runner_id: u64) {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return;
        };
        let Some(id) = runner.offered_job_id.take() else {
            return;
        };
        runner.job_id = Some(id);
        let assigned_to = AssignedRunner {
            runner_id,
            runner_name: runner.name.clone(),
            runner_group_id: runner.group_id,
            runner_group_name: runner.group_name.clone(),
        };
        if let Some(job) = self.jobs.get_mut(&id) {
            job.status = JobStatus::InProgress;
            job.started_at = Timestamp::now();
            job.runner = Some(assigned_to);
            self.send_job_event(id, JobStatus::InProgress.as_str());
        }
    }

    /// Lets another runner have the job that this one was offered.
    pub(crate) fn withdraw_job(&mut self, runner_id: u64) {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return;
        };
        let Some(id) = runner.offered_job_id.take() else {
            return;
        };
        if let Some(session) = &mut runner.session {
            session.end_job();
        }
        if let Some(job) = self.jobs.get_mut(&id) {
            job.offered = false;
        }
    }

    /// Completes the runner's job, and removes the runner if it is ephemeral.
    pub(crate) fn finish_job(&mut self, runner_id: u64, conclusion: Conclusion) {
        let Some(runner) = self.runners.get_mut(&runner_id) else {
            return;
        };
        let job_id = runner.job_id.take();
        if let Some(session) = &mut runner.session {
            session.end_job();
        }
        if runner.ephemeral && job_id.is_some() {
            self.runners.remove(&runner_id);
        }
        if let Some(job_id) = job_id {
            self.complete(job_id, conclusion);
        }
    }

    /// A queued job is cancelled at once. The runner of a running one is notified, and the job
    /// is completed when the runner reports it.
    pub(crate) fn cancel(&mut self, id: u64) -> Result<(), JobError> {
        let job = self.jobs.get_mut(&id).ok_or(JobError::Unknown(id))?;
        match job.status {
            JobStatus::Completed => return Err(JobError::Completed(id)),
            JobStatus::InProgress => job.cancel_requested = true,
            JobStatus::Queued => {
                job.cancel_requested = true;
                let offered =
                    self.runners.values().find(|runner| runner.offered_job_id == Some(id));
                if let Some(runner) = offered.map(|runner| runner.id) {
                    self.withdraw_job(runner);
                }
                self.complete(id, Conclusion::Cancelled);
            }
        }
        Ok(())
    }

    /// Queues the job again, as a new job of the run's next attempt, and returns its id. As
    /// GitHub does, this also resends `completed` for the run's earlier jobs.
    pub(crate) fn rerun(&mut self, id: u64) -> Result<u64, JobError> {
        let old = self.jobs.get(&id).ok_or(JobError::Unknown(id))?.clone();
        if old.status != JobStatus::Completed {
            return Err(JobError::NotCompleted(id));
        }
        let old_ids: Vec<u64> = self
            .jobs
            .values()
            .filter(|job| job.run_id == old.run_id && job.status == JobStatus::Completed)
            .map(|job| job.id)
            .collect();
        let run_attempt = self
            .jobs
            .values()
            .filter(|job| job.run_id == old.run_id)
            .map(|job| job.run_attempt)
            .max()
            .unwrap_or(old.run_attempt)
            + 1;
        let now = Timestamp::now();
        let new = Job {
            id: self.ids.job(),
            run_attempt,
            log: Vec::new(),
            status: JobStatus::Queued,
            conclusion: None,
            cancel_requested: false,
            offered: false,
            created_at: now,
            started_at: now,
            completed_at: None,
            runner: None,
            ..old
        };
        let new_id = self.add(new);
        for old_id in old_ids {
            self.send_job_event(old_id, JobStatus::Completed.as_str());
        }
        Ok(new_id)
    }

    fn complete(&mut self, id: u64, conclusion: Conclusion) {
        let Some(job) = self.jobs.get_mut(&id) else {
            return;
        };
        job.status = JobStatus::Completed;
        job.conclusion = Some(conclusion);
        job.completed_at = Some(Timestamp::now());
        self.send_job_event(id, JobStatus::Completed.as_str());
    }

    fn send_job_event(&mut self, id: u64, action: &'static str) {
        let Some(job) = self.jobs.get(&id) else {
            return;
        };
        let repository = job.repository.clone();
        let mut workflow_job = WorkflowJob::new(job, &self.urls);
        if self.faults.get().unnamed_runners {
            workflow_job.remove_runner();
        }
        let event = WorkflowJobEvent {
            action,
            workflow_job,
            repository: Repository::in_webhook(&self.repository(&repository), &self.urls),
            organization: Organization::new(&repository.owner, &self.urls),
            enterprise: (self.settings.enterprise.as_ref())
                .map(|slug| Enterprise::new(slug, &self.urls)),
            sender: SimpleUser::user(ACTOR, &self.urls),
            installation: (self.settings.webhook_kind == WebhookKind::Integration)
                .then(|| InstallationRef::new(self.installation_id(&repository.owner))),
        };
        if let Err(error) =
            self.send_event("workflow_job", Some(action), &repository, Some(id), &event)
        {
            tracing::error!(%error, job = id, "failed to serialize the webhook");
        }
    }
}
