//! One request, its delivery, and what is on its way to the sidecar for it.

use std::{cell::RefCell, rc::Rc, time::SystemTime};

use edgerunner_proto::{CONTRACT, CONTRACT_METADATA, v1::JobEvent};
use prost::Message as _;
use proxy_wasm::{hostcalls, types::LogLevel};

use super::{
    Shared,
    link::{METHOD, SERVICE, Sent},
    log,
};
use crate::{
    answer::{Answer, Outcome},
    config::Hook,
    delivery::{Delivery, Step},
};

pub(super) struct Exchange {
    context_id: u32,
    shared: Rc<Shared>,
    pub(super) delivery: Delivery,
    pub(super) traceparent: Option<String>,
    /// How it would have ended but for the dry run.
    pub(super) reported: Option<Outcome>,
    submitted_at: Option<SystemTime>,
    /// Under which the link knows it.
    token: Option<u64>,
}

impl Exchange {
    pub(super) fn new(context_id: u32, shared: Rc<Shared>) -> Self {
        let delivery = Delivery::new(Rc::clone(&shared.config));
        Self {
            context_id,
            shared,
            delivery,
            traceparent: None,
            reported: None,
            submitted_at: None,
            token: None,
        }
    }

    /// The sidecar has replied, or will not. Callable from any context.
    pub(super) fn finish(&mut self, step: impl FnOnce(&mut Delivery) -> Step) {
        self.token = None;
        if hostcalls::set_effective_context(self.context_id).is_err() {
            return;
        }
        let elapsed = self.submitted_at.take().zip(hostcalls::get_current_time().ok());
        if let Some(elapsed) = elapsed.and_then(|(start, now)| now.duration_since(start).ok()) {
            self.shared.metrics.observe_sidecar(elapsed);
        }
        if let Step::Answer(answer) = step(&mut self.delivery) {
            self.send(&answer);
        }
    }

    pub(super) fn forget(&mut self) {
        if let Some(token) = self.token.take() {
            self.shared.link.replied(token);
        }
    }

    pub(super) fn send(&self, answer: &Answer) {
        self.shared.metrics.count(&self.delivery, answer.outcome);
        self.log(
            match answer.outcome {
                // Envoy's access log has these.
                outcome if !outcome.is_signed() || outcome.status() < 300 => LogLevel::Debug,
                _ => LogLevel::Warn,
            },
            answer,
        );
        // It fails only when the stream is over, and then nobody waits.
        let body = answer.body.as_bytes();
        let headers = answer.headers.clone();
        let _ = hostcalls::send_http_response(answer.status.into(), headers, Some(body));
    }

    /// Of a dry run.
    pub(super) fn report(&mut self, answer: &Answer) {
        self.shared.metrics.count(&self.delivery, answer.outcome);
        self.log(LogLevel::Info, answer);
        self.reported = Some(answer.outcome);
    }

    fn log(&self, level: LogLevel, answer: &Answer) {
        if hostcalls::get_log_level().is_ok_and(|enabled| (level as u32) < enabled as u32) {
            return;
        }
        let hook = self.delivery.hook().and_then(|hook| self.shared.config.hooks.get(hook));
        log(
            level,
            &format!(
                "delivery={} hook={} status={} outcome={} answer={}",
                self.delivery.id(),
                hook.map_or("", Hook::label),
                answer.status,
                answer.outcome.slug(),
                answer.body
            ),
        );
    }

    /// A call for this event alone. `false` means that no reply will come.
    fn call(&self, event: &JobEvent) -> bool {
        let mut metadata = vec![
            (CONTRACT_METADATA, CONTRACT.as_bytes()),
            ("x-github-delivery", self.delivery.id().as_bytes()),
        ];
        if let Some(traceparent) = &self.traceparent {
            metadata.push(("traceparent", traceparent.as_bytes()));
        }
        let sidecar = &self.shared.config.sidecar;
        hostcalls::dispatch_grpc_call(
            &sidecar.grpc_service,
            SERVICE,
            METHOD,
            metadata,
            Some(&event.encode_to_vec()),
            sidecar.timeout,
        )
        .is_ok()
    }
}

/// Over the stream if it is open, else by a call.
pub(super) fn submit(exchange: &Rc<RefCell<Exchange>>, event: JobEvent) {
    let mut this = exchange.borrow_mut();
    this.submitted_at = hostcalls::get_current_time().ok();
    let traceparent = this.traceparent.clone().unwrap_or_default();
    let sent = this.shared.link.send(event, traceparent, || Rc::clone(exchange));
    let own = hostcalls::set_effective_context(this.context_id).is_ok();
    match sent {
        Sent::Yes(token) => this.token = Some(token),
        Sent::TooMany => this.finish(Delivery::too_many),
        Sent::NotOpen(event) => {
            if !(own && this.call(&event)) {
                this.finish(Delivery::no_reply);
            }
        }
    }
}
