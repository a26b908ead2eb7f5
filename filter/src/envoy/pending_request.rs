//! One request in progress: its delivery, and its submission to the sidecar.

use std::{cell::RefCell, rc::Rc, time::SystemTime};

use edgerunner_proto::v1::JobEvent;
use proxy_wasm::{hostcalls, types::LogLevel};

use super::{
    intake,
    log::log,
    metrics::Metrics,
    submit_stream::{Sent, SubmitStream},
};
use crate::{
    answer::{Answer, Outcome},
    config::{Config, Webhook},
    delivery::{Delivery, Step},
};

const METHOD: &str = "Submit";

/// State that all requests of a worker thread share.
pub(super) struct Worker {
    pub(super) config: Rc<Config>,
    pub(super) metrics: Metrics,
    pub(super) stream: SubmitStream<Rc<RefCell<PendingRequest>>>,
}

pub(super) struct PendingRequest {
    context_id: u32,
    worker: Rc<Worker>,
    pub(super) delivery: Delivery,
    pub(super) traceparent: Option<String>,
    /// The outcome that the dry run reported.
    pub(super) reported: Option<Outcome>,
    submitted_at: Option<SystemTime>,
    /// Set while the stream has the submission.
    token: Option<u64>,
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
            submitted_at: None,
            token: None,
        }
    }

    /// The sidecar has replied, or will not reply. May be called in any context, and changes
    /// the effective context.
    pub(super) fn finish(&mut self, step: impl FnOnce(&mut Delivery) -> Step) {
        self.token = None;
        if hostcalls::set_effective_context(self.context_id).is_err() {
            return;
        }
        let elapsed = self.submitted_at.take().zip(hostcalls::get_current_time().ok());
        if let Some(elapsed) = elapsed.and_then(|(start, now)| now.duration_since(start).ok()) {
            self.worker.metrics.observe_sidecar(elapsed);
        }
        if let Step::Answer(answer) = step(&mut self.delivery) {
            self.send(&answer);
        }
    }

    /// The client has disconnected; a reply is no longer needed.
    pub(super) fn cancel(&mut self) {
        if let Some(token) = self.token.take() {
            self.worker.stream.take(token);
        }
    }

    pub(super) fn send(&self, answer: &Answer) {
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
        let headers = answer.headers.clone();
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

    /// Submits the event by a unary call. `false` if the call failed to start.
    fn call(&self, event: &JobEvent) -> bool {
        let delivery = ("x-github-delivery", self.delivery.id().as_bytes());
        let traceparent = self.traceparent.as_deref().map(|it| ("traceparent", it.as_bytes()));
        let metadata: Vec<_> = [delivery].into_iter().chain(traceparent).collect();
        intake::call(&self.worker.config.sidecar, METHOD, &metadata, event).is_ok()
    }
}

/// Submits the event over the stream if it is open, otherwise by a unary call.
pub(super) fn submit(request: &Rc<RefCell<PendingRequest>>, event: JobEvent) {
    let mut this = request.borrow_mut();
    this.submitted_at = hostcalls::get_current_time().ok();
    let traceparent = this.traceparent.clone().unwrap_or_default();
    let sent = this.worker.stream.send(event, traceparent, Rc::clone(request));
    let in_own_context = hostcalls::set_effective_context(this.context_id).is_ok();
    match sent {
        Sent::Yes(token) => this.token = Some(token),
        Sent::TooManyWaiting => this.finish(Delivery::too_many_waiting),
        Sent::NotOpen(event) => {
            if !(in_own_context && this.call(&event)) {
                this.finish(Delivery::no_reply);
            }
        }
    }
}
