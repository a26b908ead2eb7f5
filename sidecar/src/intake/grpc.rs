//! The gRPC service that the filter calls: accepts job events and hands out webhook secrets.

use std::sync::Arc;

use edgerunner_proto::{
    CONTRACT_METADATA, CONTRACT_VERSION, host_of,
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
use tracing::{Span, error, info};

use crate::{
    control::{Pools, clock, command::EventSender},
    intake::{self, webhook_secrets::WebhookSecrets},
    store::{self, Delivery, JobDetails, Store, StoreOutcome},
    telemetry::{logging::List, metrics, traces::DeliveryTraces},
};
use edgerunner_scheduler::{
    model::{Host, Job, JobKey, JobState, UnixMs, Visibility},
    plan::{self, NoMatch},
};

/// Submissions of one stream in progress at once; others wait to be read. An Envoy worker
/// never has more unanswered.
const UNANSWERED_MAX: usize = 1_024;
/// Submissions that are stored in one write.
const TOGETHER_MAX: usize = 64;

/// Replies as soon as the event is on disk; never waits for Docker or GitHub.
#[derive(Clone)]
pub(crate) struct Submissions {
    pub(crate) store: Store,
    /// To the driver, unless it reads deliveries from the store.
    pub(crate) events: Option<EventSender>,
    pub(crate) pools: Pools,
    pub(crate) webhooks: Arc<WebhookSecrets>,
    /// The server of events that name none.
    pub(crate) default_host: Host,
    /// Reports every delivery to the recovery of missed webhooks, if it is enabled.
    pub(crate) arrivals: Option<mpsc::Sender<Arc<[Delivery]>>>,
    pub(crate) traces: Arc<DeliveryTraces>,
    /// Once cancelled, streams accept nothing more and end after their last reply.
    pub(crate) closing: CancellationToken,
}

/// Rejects a filter whose contract version is more than one apart.
pub(super) fn check_contract_version(request: Request<()>) -> Result<Request<()>, Status> {
    let theirs = request.metadata().get(CONTRACT_METADATA).and_then(|value| value.to_str().ok());
    let number = |version: &str| version.parse::<u32>().ok();
    let apart = theirs.and_then(number).zip(number(CONTRACT_VERSION)).map(|(a, b)| a.abs_diff(b));
    if apart.is_some_and(|apart| apart <= 1) {
        return Ok(request);
    }
    let theirs = theirs.unwrap_or("none");
    error!(
        theirs,
        ours = CONTRACT_VERSION,
        "the filter is from a release that is too far from this one: deploy the same release of both"
    );
    Err(Status::failed_precondition(format!(
        "the filter has contract version {theirs}, the sidecar {CONTRACT_VERSION}"
    )))
}

#[tonic::async_trait]
impl Intake for Submissions {
    async fn get_secrets(
        &self,
        request: Request<SecretsRequest>,
    ) -> Result<Response<SecretsReply>, Status> {
        let hooks = self.webhooks.get(&request.into_inner().hooks).await;
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
            // Events that have already arrived are stored together.
            .ready_chunks(TOGETHER_MAX)
            .map(move |submissions| this.clone().reply(submissions))
            .buffer_unordered(UNANSWERED_MAX / TOGETHER_MAX)
            .flat_map(stream::iter);
        Ok(Response::new(replies.boxed()))
    }
}

impl Submissions {
    /// The replies, then the error that ended the stream, if any.
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
        let receipts = self.accept_all(events).await;
        let replies = tokens.into_iter().zip(receipts).map(|(token, receipt)| match receipt {
            Ok(receipt) => Reply { token, status: Code::Ok as u32, receipt: Some(receipt) },
            Err(status) => Reply { token, status: status.code() as u32, receipt: None },
        });
        let replies = Replies { replies: replies.collect() };
        [Ok(replies)].into_iter().chain(broken).collect()
    }

    /// Returns one receipt or status for each event, in their order. Each event comes with
    /// its `traceparent`, which may be empty.
    async fn accept_all(self, events: Vec<(JobEvent, String)>) -> Vec<Result<Receipt, Status>> {
        let mut deliveries = Vec::with_capacity(events.len());
        // The spans end when this function returns.
        let mut spans = Vec::new();
        let mut receipts: Vec<_> = events
            .into_iter()
            .map(|(event, traceparent)| {
                let delivery = read(event, self.default_host)?;
                spans.push(self.span(&delivery, &traceparent));
                let receipt = self.receipt(&delivery.job);
                deliveries.push(delivery);
                Ok(receipt)
            })
            .collect();
        if deliveries.is_empty() {
            return receipts;
        }
        // In a separate task: tonic drops this handler at the caller's deadline, and an event
        // must not get lost between the store and the driver.
        let stored = tokio::spawn(store(self, deliveries.into()))
            .await
            .unwrap_or_else(|_| Err(Status::unavailable("shutting down")));
        match stored {
            Ok(stored) => {
                for (receipt, stored) in receipts.iter_mut().flatten().zip(stored) {
                    if stored == StoreOutcome::Duplicate {
                        receipt.set_outcome(Outcome::Duplicate);
                    }
                }
            }
            Err(status) => {
                for receipt in receipts.iter_mut().filter(|receipt| receipt.is_ok()) {
                    *receipt = Err(status.clone());
                }
            }
        }
        receipts
    }

    fn span(&self, Delivery { job, state, .. }: &Delivery, traceparent: &str) -> Span {
        self.traces.store(&job.delivery, job.key, &job.repository, *state, traceparent)
    }

    fn receipt(&self, job: &Job) -> Receipt {
        let mut receipt = Receipt::default();
        let pools = self.pools.borrow();
        match plan::match_pool(&pools, job) {
            Ok(lane) => receipt.pool.clone_from(&pools[lane.pool].name),
            Err(NoMatch::MissingLabels { labels, .. } | NoMatch::NotSelfHosted { labels }) => {
                receipt.missing_labels = labels;
            }
            Err(
                NoMatch::NoLabels
                | NoMatch::LabelRequired
                | NoMatch::LabelParameter { .. }
                | NoMatch::Repository
                | NoMatch::Scope
                | NoMatch::PublicRepository { .. }
                | NoMatch::Fork
                | NoMatch::NotFork
                | NoMatch::RunUnknown { .. },
            ) => {}
        }
        receipt
    }
}

/// Returns the outcome of each delivery, or one status for all of them.
async fn store(
    this: Submissions,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<StoreOutcome>, Status> {
    if let Some(arrivals) = &this.arrivals {
        // If it is full, the next delivery shows the same webhook and repository.
        let _ = arrivals.try_send(Arc::clone(&deliveries));
    }
    let accepted = intake::accept(&this.store, this.events.as_ref(), Arc::clone(&deliveries));
    let stored = accepted.await.map_err(|error| {
        for Delivery { job, .. } in &*deliveries {
            error!(
                delivery = job.delivery,
                job = %job.key,
                host = %job.key.host,
                repository = job.repository,
                %error,
                "event not stored; the filter tries again for a few seconds, then answers 503",
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
            host = %job.key.host,
            repository = job.repository,
            state = state.as_str(),
            outcome = stored.as_str(),
            labels = %List(&job.labels),
            "event stored",
        );
    }
    Ok(stored)
}

fn read(event: JobEvent, default_host: Host) -> Result<Delivery, Status> {
    let state = match event.action() {
        Action::Queued => JobState::Queued,
        Action::InProgress => JobState::InProgress,
        Action::Completed => JobState::Completed,
        Action::Unspecified => return Err(Status::invalid_argument("action is missing")),
    };
    let visibility = match event.visibility() {
        v1::Visibility::Unspecified => Visibility::Unknown,
        v1::Visibility::Public => Visibility::Public,
        v1::Visibility::Private => Visibility::Private,
        v1::Visibility::Internal => Visibility::Internal,
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
    // A filter of an earlier release sends none.
    let host = Some(event.host).filter(|host| !host.is_empty()).or_else(|| host_of(&job.html_url));
    let host = host.map_or(default_host, |host| Host::new(&host));
    let now = clock::now().wall;
    Ok(Delivery {
        hook,
        hook_id,
        hook_target_type,
        hook_target_id,
        received_at: now,
        state,
        job: Job {
            key: JobKey { id: job.id, run_attempt: job.run_attempt.max(1), host },
            repository: event.repository,
            organization: event.organization,
            enterprise: event.enterprise,
            visibility,
            run_id: job.run_id,
            from_fork: None,
            labels: job.labels,
            queued_at: now,
            delivery: id,
        },
        details: JobDetails {
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

/// `None` if it is not a timestamp, for instance empty.
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
        assert!(read(event(), Host::default()).is_ok());
        for spoil in [
            (|event| event.delivery = None) as fn(&mut JobEvent),
            |event| event.job = None,
            |event| event.action = 0,
            |event| event.job.as_mut().unwrap().id = u64::MAX,
        ] {
            let mut event = event();
            spoil(&mut event);
            assert_eq!(read(event, Host::default()).unwrap_err().code(), Code::InvalidArgument);
        }
    }

    #[test]
    fn a_filter_of_a_release_before_or_after_is_accepted_and_no_other() {
        let checked = |contract: &str| {
            let mut request = Request::new(());
            request.metadata_mut().insert(CONTRACT_METADATA, contract.parse().unwrap());
            check_contract_version(request).map(drop).map_err(|status| status.code())
        };
        let ours: u32 = CONTRACT_VERSION.parse().unwrap();
        for accepted in [ours - 1, ours, ours + 1] {
            assert_eq!(checked(&accepted.to_string()), Ok(()));
        }
        for refused in [(ours + 2).to_string(), "-1".into(), "x".into(), String::new()] {
            assert_eq!(checked(&refused), Err(Code::FailedPrecondition), "{refused}");
        }
        assert!(check_contract_version(Request::new(())).is_err());
    }

    #[test]
    fn a_visibility_that_no_filter_names_is_unknown() {
        let visibility = |number: i32| {
            let event = JobEvent { visibility: number, ..event() };
            read(event, Host::default()).unwrap().job.visibility
        };
        use Visibility::{Internal, Private, Public, Unknown};
        // Filters of contract version 1 send none, and a later one may send another.
        let read = [0, 1, 2, 3, 4, -1].map(visibility);
        assert_eq!(read, [Unknown, Public, Private, Internal, Unknown, Unknown]);
    }

    #[test]
    fn a_run_attempt_that_is_missing_is_the_first() {
        assert_eq!(read(event(), Host::default()).unwrap().job.key.run_attempt, 1);
    }

    #[test]
    fn a_job_is_on_the_server_that_its_event_names() {
        let host = |host: &str, html_url: &str| {
            let job = v1::Job { id: 7, html_url: html_url.into(), ..Default::default() };
            let event = JobEvent { host: host.into(), job: Some(job), ..event() };
            read(event, Host::new("github.com")).unwrap().job.key.host
        };
        let of_page = "https://ghe.example.com/acme/app/actions/runs/1/job/7";
        assert_eq!(host("ghe.example.com:8443", of_page).as_str(), "ghe.example.com:8443");
        // Filters of earlier releases send the page of the job alone.
        assert_eq!(host("", of_page).as_str(), "ghe.example.com");
        assert_eq!(host("", "").as_str(), "github.com");
    }
}
