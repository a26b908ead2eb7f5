//! The gRPC side: stores what the filter submits and tells the driver.

use std::sync::Arc;

use edgerunner_proto::{
    CONTRACT, CONTRACT_METADATA,
    v1::{
        self, Action, JobEvent, Outcome, Receipt, Replies, Reply, SecretsReply, SecretsRequest,
        Submission, intake_server::Intake,
    },
};
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};
use tracing::{error, info};

use crate::{
    config::Webhook,
    control::clock,
    control::driver::Command,
    control::pools::Pools,
    intake,
    intake::webhook_secrets,
    missed::Sources,
    store::{self, Delivery, JobDetails, Store, StoreOutcome},
    telemetry::metrics,
    telemetry::traces::{Deliveries, TRACEPARENT},
};
use edgerunner_scheduler::{
    model::{Job, JobKey, JobState, UnixMs},
    plan::{self, NoMatch},
};

/// Submissions of one stream that are worked on at once; more wait to be read. A
/// worker of Envoy has no more unanswered.
const UNANSWERED_MAX: usize = 1_024;
/// Of these, how many become one write.
const TOGETHER_MAX: usize = 64;

/// Answers as soon as the event is on disk; never waits for Docker or GitHub.
#[derive(Clone)]
pub(crate) struct Submissions {
    store: Store,
    driver: mpsc::Sender<Command>,
    pools: Pools,
    webhooks: Arc<[Webhook]>,
    /// `None`: nobody looks for what was missed.
    sources: Option<Arc<Sources>>,
    traces: Arc<Deliveries>,
    /// Streams take nothing more and end once all is answered.
    closing: CancellationToken,
}

impl Submissions {
    pub(crate) fn new(
        store: Store,
        driver: mpsc::Sender<Command>,
        pools: Pools,
        webhooks: Arc<[Webhook]>,
        sources: Option<Arc<Sources>>,
        traces: Arc<Deliveries>,
        closing: CancellationToken,
    ) -> Self {
        Self { store, driver, pools, webhooks, sources, traces, closing }
    }
}

/// Whether the caller's version of the contract is ours.
pub(crate) fn understood(request: Request<()>) -> Result<Request<()>, Status> {
    let theirs = request.metadata().get(CONTRACT_METADATA).and_then(|told| told.to_str().ok());
    if theirs == Some(CONTRACT) {
        return Ok(request);
    }
    let theirs = theirs.unwrap_or("none");
    error!(theirs, ours = CONTRACT, "the filter is of another release: run both of one");
    Err(Status::failed_precondition(format!(
        "the filter's contract is {theirs}, the sidecar's is {CONTRACT}"
    )))
}

#[tonic::async_trait]
impl Intake for Submissions {
    async fn submit(&self, request: Request<JobEvent>) -> Result<Response<Receipt>, Status> {
        let traceparent = request.metadata().get(TRACEPARENT).and_then(|it| it.to_str().ok());
        let traceparent = traceparent.unwrap_or_default().to_owned();
        let mut taken = self.clone().take(vec![(request.into_inner(), traceparent)]).await;
        taken.pop().unwrap_or_else(|| Err(Status::internal("no receipt"))).map(Response::new)
    }

    async fn get_secrets(
        &self,
        request: Request<SecretsRequest>,
    ) -> Result<Response<SecretsReply>, Status> {
        let (webhooks, asked) = (Arc::clone(&self.webhooks), request.into_inner().hooks);
        let hooks =
            tokio::task::spawn_blocking(move || webhook_secrets::secrets(&webhooks, &asked))
                .await
                .map_err(|_| Status::unavailable("shutting down"))?;
        Ok(Response::new(SecretsReply { hooks }))
    }

    type SubmitStreamStream = BoxStream<'static, Result<Replies, Status>>;

    async fn submit_stream(
        &self,
        request: Request<Streaming<Submission>>,
    ) -> Result<Response<Self::SubmitStreamStream>, Status> {
        let this = self.clone();
        let replies = request
            .into_inner()
            .take_until(self.closing.clone().cancelled_owned())
            // What has come in meanwhile goes to the store together.
            .ready_chunks(TOGETHER_MAX)
            .map(move |submissions| this.clone().reply(submissions))
            .buffer_unordered(UNANSWERED_MAX / TOGETHER_MAX)
            .flat_map(stream::iter);
        Ok(Response::new(replies.boxed()))
    }
}

impl Submissions {
    /// The replies, and the end of the stream if it is among the submissions.
    async fn reply(
        self,
        submissions: Vec<Result<Submission, Status>>,
    ) -> Vec<Result<Replies, Status>> {
        let mut broken = None;
        let (mut tokens, mut events) = (Vec::new(), Vec::new());
        for submission in submissions {
            match submission {
                Ok(Submission { token, event, traceparent }) => {
                    tokens.push(token);
                    events.push((event.unwrap_or_default(), traceparent));
                }
                Err(status) => broken = Some(Err(status)),
            }
        }
        let taken = self.take(events).await;
        let replies = tokens.into_iter().zip(taken).map(|(token, taken)| match taken {
            Ok(receipt) => Reply { token, status: Code::Ok as u32, receipt: Some(receipt) },
            Err(status) => Reply { token, status: status.code() as u32, receipt: None },
        });
        let replies = Replies { replies: replies.collect() };
        [Ok(replies)].into_iter().chain(broken).collect()
    }

    /// One receipt or status for each event, in their order. With each comes its
    /// `traceparent`, or an empty text.
    async fn take(self, events: Vec<(JobEvent, String)>) -> Vec<Result<Receipt, Status>> {
        let mut deliveries = Vec::with_capacity(events.len());
        // They end with this function.
        let mut spans = Vec::new();
        let mut taken: Vec<_> = events
            .into_iter()
            .map(|(event, traceparent)| {
                let delivery = read(event)?;
                spans.push(self.traces.store(&delivery.job, delivery.state, &traceparent));
                let receipt = self.receipt(&delivery.job);
                deliveries.push(delivery);
                Ok(receipt)
            })
            .collect();
        if deliveries.is_empty() {
            return taken;
        }
        // A task of its own: tonic drops this handler at the caller's deadline, and an
        // event must neither get lost between store and driver nor be half announced.
        let stored = tokio::spawn(accept(self, deliveries.into()))
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("shutting down")));
        match stored {
            Ok(stored) => {
                for (receipt, stored) in taken.iter_mut().flatten().zip(stored) {
                    if stored == StoreOutcome::Duplicate {
                        receipt.set_outcome(Outcome::Duplicate);
                    }
                }
            }
            Err(status) => {
                for receipt in taken.iter_mut().filter(|receipt| receipt.is_ok()) {
                    *receipt = Err(status.clone());
                }
            }
        }
        taken
    }

    fn receipt(&self, job: &Job) -> Receipt {
        let mut receipt = Receipt::default();
        let pools = self.pools.borrow();
        match plan::match_pool(&pools, job) {
            Ok((index, _)) => receipt.pool.clone_from(&pools[index].name),
            Err(NoMatch::MissingLabels(labels)) => receipt.missing_labels = labels,
            Err(NoMatch::NoLabels | NoMatch::Repository | NoMatch::Scope) => {}
        }
        receipt
    }
}

/// What each came to; a status stands for all of them.
async fn accept(
    this: Submissions,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<StoreOutcome>, Status> {
    if let Some(sources) = &this.sources {
        deliveries.iter().for_each(|delivery| sources.see(delivery));
    }
    let taken = intake::take(&this.store, &this.driver, Arc::clone(&deliveries));
    let stored = taken.await.map_err(|error| {
        for Delivery { job, .. } in &*deliveries {
            error!(
                delivery = job.delivery,
                job = %job.key,
                repository = job.repository,
                %error,
                "event not stored, GitHub is told to come back",
            );
        }
        match error {
            store::Error::Busy => Status::resource_exhausted(error.to_string()),
            _ => Status::unavailable(error.to_string()),
        }
    })?;
    for (Delivery { state, job, .. }, stored) in deliveries.iter().zip(&stored) {
        metrics::event(*state, stored.as_str());
        info!(
            delivery = job.delivery,
            job = %job.key,
            repository = job.repository,
            state = state.as_str(),
            outcome = ?stored,
            labels = ?job.labels,
            "event stored",
        );
    }
    Ok(stored)
}

fn read(event: JobEvent) -> Result<Delivery, Status> {
    let state = match event.action() {
        Action::Queued => JobState::Queued,
        Action::InProgress => JobState::InProgress,
        Action::Completed => JobState::Completed,
        Action::Unspecified => return Err(Status::invalid_argument("action is missing")),
    };
    let v1::Delivery { id, hook, hook_id, hook_target_type, hook_target_id } = event
        .delivery
        .filter(|delivery| !delivery.id.is_empty())
        .ok_or_else(|| Status::invalid_argument("delivery.id is missing"))?;
    let job = event
        .job
        .filter(|job| job.id > 0)
        .ok_or_else(|| Status::invalid_argument("job.id is missing"))?;
    // The store's integers are signed; GitHub's IDs are far below.
    for (field, number) in [
        ("job.id", job.id),
        ("job.run_id", job.run_id),
        ("delivery.hook_id", hook_id),
        ("delivery.hook_target_id", hook_target_id),
    ] {
        if i64::try_from(number).is_err() {
            return Err(Status::invalid_argument(format!("{field} is larger than 2^63 - 1")));
        }
    }
    let now = clock::now();
    Ok(Delivery {
        hook,
        hook_id,
        hook_target_type,
        hook_target_id,
        received_at: now,
        state,
        job: Job {
            key: JobKey { id: job.id, run_attempt: job.run_attempt.max(1) },
            repository: event.repository,
            organization: event.organization,
            enterprise: event.enterprise,
            labels: job.labels,
            queued_at: now,
            delivery: id,
        },
        details: JobDetails {
            run_id: job.run_id,
            name: job.name,
            workflow_name: job.workflow_name,
            head_branch: job.head_branch,
            html_url: job.html_url,
            created_at: unix_ms(&job.created_at),
        },
        conclusion: job.conclusion,
        runner_name: job.runner_name,
    })
}

/// `None` where it is no time, as where GitHub told none.
fn unix_ms(rfc3339: &str) -> Option<UnixMs> {
    let time: jiff::Timestamp = rfc3339.parse().ok()?;
    time.as_millisecond().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> JobEvent {
        JobEvent {
            delivery: Some(v1::Delivery { id: "guid".into(), ..Default::default() }),
            action: Action::Queued.into(),
            job: Some(v1::Job { id: 7, ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn an_event_without_identity_is_refused() {
        assert!(read(event()).is_ok());
        for spoil in [
            (|event| event.delivery = None) as fn(&mut JobEvent),
            |event| event.job = None,
            |event| event.action = 0,
            |event| event.job.as_mut().unwrap().id = u64::MAX,
        ] {
            let mut event = event();
            spoil(&mut event);
            assert_eq!(read(event).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn a_filter_of_another_release_is_told_so() {
        let told = |contract: Option<&'static str>| {
            let mut request = Request::new(());
            if let Some(contract) = contract {
                request.metadata_mut().insert(CONTRACT_METADATA, contract.parse().unwrap());
            }
            understood(request).map(drop).map_err(|status| status.code())
        };
        assert_eq!(told(Some(CONTRACT)), Ok(()));
        assert_eq!(told(Some("0")), Err(Code::FailedPrecondition));
        assert_eq!(told(None), Err(Code::FailedPrecondition));
    }

    #[test]
    fn a_run_attempt_that_is_missing_is_the_first() {
        assert_eq!(read(event()).unwrap().job.key.run_attempt, 1);
    }
}
