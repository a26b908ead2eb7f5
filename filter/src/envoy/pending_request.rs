//! One request in progress: its delivery, and its submission to the sidecar.

use std::{
    cell::RefCell,
    mem,
    rc::Rc,
    time::{Duration, SystemTime},
};

use edgerunner_proto::v1::JobEvent;
use proxy_wasm::{hostcalls, types::LogLevel};

use super::{intake::StreamHost, log::log, metrics::Metrics};
use crate::{
    answer::{Answer, HELD_HEADER, Outcome},
    config::{Config, Webhook},
    delivery::{Delivery, Step},
    submit_stream::{SubmitStream, Submitted},
    unanswered::{Limits, Unanswered},
};

/// Requests of one worker that wait for the webhook's secrets. Their signatures are not verified
/// yet, so they may keep less in memory than genuine deliveries.
pub(super) const AWAITING_SECRETS: Limits = Limits { count: 256, bytes: 16 * 1024 * 1024 };

pub(super) type SharedRequest = Rc<RefCell<PendingRequest>>;

/// State that all requests of a worker thread share.
pub(super) struct Worker {
    pub(super) config: Rc<Config>,
    pub(super) metrics: Metrics,
    pub(super) stream: RefCell<SubmitStream<StreamHost, SharedRequest>>,
    pub(super) awaiting_secrets: RefCell<Unanswered<SharedRequest>>,
}

pub(super) struct PendingRequest {
    context_id: u32,
    worker: Rc<Worker>,
    pub(super) delivery: Delivery,
    pub(super) traceparent: Option<String>,
    /// The outcome that the dry run reported.
    pub(super) reported: Option<Outcome>,
    /// When the whole request was there: by the host's clock, and by the stream's.
    arrived: Option<(Option<SystemTime>, Duration)>,
    /// Whether it waited for secrets.
    awaited: bool,
    /// Set while the stream has the submission.
    token: Option<u64>,
    /// Set while it waits for secrets.
    awaiting: Option<u64>,
}

impl PendingRequest {
    pub(super) fn new(context_id: u32, worker: Rc<Worker>) -> Self {
        let delivery = Delivery::new(Rc::clone(&worker.config));
        Self {
            context_id,
            worker,
            delivery,
            traceparent: None,
            reported: None,
            arrived: None,
            awaited: false,
            token: None,
            awaiting: None,
        }
    }

    /// The submission has ended. May be called in any context, and changes the effective context.
    pub(super) fn finish(&mut self, held: bool, step: impl FnOnce(&mut Delivery) -> Step) {
        self.token = None;
        self.awaiting = None;
        if hostcalls::set_effective_context(self.context_id).is_err() {
            return;
        }
        let held = held || self.awaited;
        let start = self.arrived.take().and_then(|(start, _)| start);
        let elapsed = start.zip(hostcalls::get_current_time().ok());
        let elapsed = elapsed.and_then(|(start, now)| now.duration_since(start).ok());
        let millis = elapsed.and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok());
        if let Some(millis) = millis {
            self.worker.metrics.observe(millis, held);
        }
        if let Step::Answer(answer) = step(&mut self.delivery) {
            self.send(&answer, millis.filter(|_| held));
        }
    }

    /// The client has disconnected; a reply is no longer needed.
    pub(super) fn cancel(&mut self) {
        if let Some(token) = self.token.take() {
            self.worker.stream.borrow_mut().cancel(token);
        }
        if let Some(token) = self.awaiting.take() {
            self.worker.awaiting_secrets.borrow_mut().take(token);
        }
    }

    /// `held_ms`: how long it was held, if it was.
    pub(super) fn send(&self, answer: &Answer, held_ms: Option<u64>) {
        self.worker.metrics.count(&self.delivery, answer.outcome);
        self.log(
            match answer.outcome {
                // These are in Envoy's access log.
                outcome if !outcome.is_signed() || outcome.status() < 300 => LogLevel::Debug,
                _ => LogLevel::Warn,
            },
            answer,
        );
        let body = answer.body.as_bytes();
        let held_ms = held_ms.map(|millis| millis.to_string());
        let mut headers = answer.headers.clone();
        headers.extend(held_ms.as_deref().map(|millis| (HELD_HEADER, millis)));
        // Fails only if the client has disconnected.
        let _ = hostcalls::send_http_response(answer.status.into(), headers, Some(body));
    }

    /// For dry runs.
    pub(super) fn report(&mut self, answer: &Answer) {
        self.worker.metrics.count(&self.delivery, answer.outcome);
        self.log(LogLevel::Info, answer);
        self.reported = Some(answer.outcome);
    }

    fn log(&self, level: LogLevel, answer: &Answer) {
        if hostcalls::get_log_level().is_ok_and(|enabled| (level as u32) < enabled as u32) {
            return;
        }
        let webhook =
            self.delivery.webhook().and_then(|webhook| self.worker.config.webhooks.get(webhook));
        log(
            level,
            &format!(
                "delivery={} hook={} status={} outcome={} answer={}",
                self.delivery.id(),
                webhook.map_or("", Webhook::label),
                answer.status,
                answer.outcome.slug(),
                answer.body
            ),
        );
    }

    /// When the whole request was there, by the stream's clock.
    fn arrived(&mut self) -> Duration {
        let worker = &self.worker;
        let now = || (hostcalls::get_current_time().ok(), worker.stream.borrow().now());
        self.arrived.get_or_insert_with(now).1
    }
}

/// Submits the event over the stream.
pub(super) fn submit(request: &SharedRequest, event: JobEvent) {
    let mut this = request.borrow_mut();
    let arrived = this.arrived();
    let traceparent = mem::take(&mut this.traceparent).unwrap_or_default();
    let body_bytes = this.delivery.received_bytes();
    let worker = Rc::clone(&this.worker);
    let submitted = worker.stream.borrow_mut().submit(
        event,
        traceparent,
        arrived,
        body_bytes,
        Rc::clone(request),
    );
    let _ = hostcalls::set_effective_context(this.context_id);
    match submitted {
        Some(Submitted { token, held }) => {
            this.token = Some(token);
            if held && !this.awaited {
                worker.metrics.count_held();
            }
        }
        None => this.finish(false, Delivery::too_many_waiting),
    }
}

/// Holds the request until there are secrets.
pub(super) fn await_secrets(request: &SharedRequest) {
    let mut this = request.borrow_mut();
    let worker = Rc::clone(&this.worker);
    let deadline = this.arrived().saturating_add(worker.config.sidecar.timeout);
    let body_bytes = this.delivery.received_bytes();
    let added = worker.awaiting_secrets.borrow_mut().add(
        Rc::clone(request),
        deadline,
        0,
        body_bytes,
        |_| Vec::new(),
    );
    match added {
        Some(token) => {
            this.awaiting = Some(token);
            this.awaited = true;
            worker.metrics.count_held();
        }
        None => this.finish(false, Delivery::no_secrets),
    }
}

/// Goes on with all requests that waited for secrets and now have them.
pub(super) fn secrets_arrived(worker: &Worker) {
    let requests = worker.awaiting_secrets.borrow_mut().take_all();
    for request in requests.into_iter().map(|entry| entry.waiting) {
        let step = request.borrow_mut().delivery.secrets_arrived();
        match step {
            Step::Submit(event) => {
                request.borrow_mut().awaiting = None;
                submit(&request, *event);
            }
            Step::Answer(answer) => request.borrow_mut().finish(true, |_| Step::Answer(answer)),
            Step::Wait => await_secrets(&request),
            Step::Continue | Step::AwaitSecrets | Step::Report(_) => {}
        }
    }
}
