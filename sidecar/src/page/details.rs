//! One job or runner in full, found by its ID or name.

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};

use super::Page;
use crate::{
    api::views::{JobHistoryView, JobStateView, RunnerHistoryView},
    store::{self, JobDelivery, JobHistory},
};
use edgerunner_scheduler::model::UnixMs;

/// Everything that is known of one attempt of a job.
#[derive(Serialize)]
pub(super) struct JobDetails {
    #[serde(flatten)]
    job: JobHistoryView,
    /// All attempts of the job, this one among them, the newest first.
    attempts: Vec<RunJob>,
    deliveries: Vec<DeliveryView>,
    /// `null` unless it is one of ours.
    runner: Option<RunnerHistoryView>,
    /// The other jobs of its run, in the same attempt.
    run: Vec<RunJob>,
}

#[derive(Serialize)]
struct DeliveryView {
    id: String,
    received_ms: UnixMs,
    hook: String,
    state: JobStateView,
}

/// A job of a run, to open it.
#[derive(Serialize)]
pub(super) struct RunJob {
    id: u64,
    run_attempt: u32,
    name: String,
    state: JobStateView,
    conclusion: String,
}

impl From<JobDelivery> for DeliveryView {
    fn from(JobDelivery { id, received_at, hook, state }: JobDelivery) -> Self {
        Self { id, received_ms: received_at, hook, state: state.into() }
    }
}

impl From<&JobHistory> for RunJob {
    fn from(JobHistory { record, .. }: &JobHistory) -> Self {
        Self {
            id: record.job.key.id,
            run_attempt: record.job.key.run_attempt,
            name: record.details.name.clone(),
            state: record.state.into(),
            conclusion: record.conclusion.clone(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Attempt {
    /// The newest one if left out.
    attempt: Option<u32>,
}

/// `null` if there is no such job.
pub(super) async fn job(
    State(page): State<Page>,
    Path(id): Path<u64>,
    Query(Attempt { attempt }): Query<Attempt>,
) -> Result<Json<Option<JobDetails>>, Failure> {
    let mut found = page.store.job_attempts(id).await?;
    let attempts = found.iter().map(RunJob::from).collect();
    let is_wanted =
        |it: &JobHistory| attempt.is_none_or(|attempt| it.record.job.key.run_attempt == attempt);
    let Some(job) = found.extract_if(.., |it| is_wanted(it)).next() else {
        return Ok(Json(None));
    };
    let (key, run) = (job.record.job.key, job.record.job.run_id);
    let deliveries = page.store.deliveries_of(key).await?;
    let runner = match job.record.runner_name.as_str() {
        "" => None,
        name => page.store.runner(name.to_owned()).await?,
    };
    let mut jobs = if run == 0 { Vec::new() } else { page.store.jobs_of_run(run).await? };
    jobs.retain(|JobHistory { record, .. }| {
        let other = record.job.key;
        other.id != key.id && other.host == key.host && other.run_attempt == key.run_attempt
    });
    Ok(Json(Some(JobDetails {
        job: job.into(),
        attempts,
        deliveries: deliveries.into_iter().map(DeliveryView::from).collect(),
        runner: runner.map(RunnerHistoryView::from),
        run: jobs.iter().map(RunJob::from).collect(),
    })))
}

/// An ID that is part of GitHub's URLs.
#[derive(Deserialize)]
pub(super) struct RunQuery {
    run: u64,
}

/// The jobs of a run; empty if it is not known.
pub(super) async fn jobs(
    State(page): State<Page>,
    Query(RunQuery { run }): Query<RunQuery>,
) -> Result<Json<Vec<RunJob>>, Failure> {
    let jobs = page.store.jobs_of_run(run).await?;
    Ok(Json(jobs.iter().map(RunJob::from).collect()))
}

/// `null` if there is no runner of that name.
pub(super) async fn runner(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Json<Option<RunnerHistoryView>>, Failure> {
    let found = page.store.runner(name).await?;
    Ok(Json(found.map(RunnerHistoryView::from)))
}

/// A failed read of the store, answered with 503.
pub(super) struct Failure(store::Error);

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", self.0)).into_response()
    }
}
