//! The proxy-wasm entry points: connects [`Delivery`] to Envoy. Only this module
//! and its submodules know proxy-wasm.
//!
//! Some calls of the SDK panic on unexpected input; `clippy.toml` in the
//! workspace root bans those, with the reasons.

mod intake;
mod log;
mod metrics;
mod pending_request;
mod secret_refresh;
mod ticker;
mod version;

use std::{cell::RefCell, mem, rc::Rc};

use edgerunner_proto::{BUILD, v1::Replies};
use prost::Message as _;
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{Action, BufferType, ContextType, LogLevel, MapType},
};

use crate::{
    answer::DRY_RUN_HEADER,
    config::{Config, Webhook},
    delivery::{Delivery, Step},
    headers::Headers,
    signature,
    submit_stream::{Answered, SubmitStream},
    unanswered::Unanswered,
};
use intake::StreamHost;
use log::log;
use metrics::Metrics;
use pending_request::{AWAITING_SECRETS, PendingRequest, SharedRequest, Worker};
use secret_refresh::SecretRefresh;
use ticker::Ticker;

const MAX_TRACEPARENT_BYTES: usize = 128;

// The macro exports `_initialize`; only the linker considers that unsafe.
#[allow(unsafe_code)]
mod start {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|context_id| Box::new(super::Root::new(context_id)));
    }}
}

struct Root {
    context_id: u32,
    /// Rejects everything until Envoy has called `on_configure`.
    worker: Rc<Worker>,
    secret_refresh: SecretRefresh,
    ticker: Rc<Ticker>,
}

impl Root {
    fn new(context_id: u32) -> Self {
        Self::with(context_id, Config::default(), Metrics::default())
    }

    fn with(context_id: u32, config: Config, metrics: Metrics) -> Self {
        let secret_refresh = SecretRefresh::new(&config);
        let ticker = Rc::new(Ticker::new());
        let host = StreamHost::new(context_id, &config.sidecar, Rc::clone(&ticker));
        let stream = RefCell::new(SubmitStream::new(host, config.sidecar.timeout));
        let awaiting_secrets = RefCell::new(Unanswered::new(AWAITING_SECRETS));
        let worker = Worker { config: Rc::new(config), metrics, stream, awaiting_secrets };
        Self { context_id, worker: Rc::new(worker), secret_refresh, ticker }
    }

    /// Answers requests whose submissions have ended.
    fn finish(&self, answered: impl IntoIterator<Item = Answered<SharedRequest>>) {
        for Answered { waiting, held, result } in answered {
            let result = result.as_ref().map_err(|status| *status);
            waiting.borrow_mut().finish(held, |delivery| delivery.replied(result));
        }
        self.in_root();
    }

    fn in_root(&self) {
        let _ = hostcalls::set_effective_context(self.context_id);
    }
}

impl Context for Root {
    fn on_grpc_call_response(&mut self, _token_id: u32, status_code: u32, response_size: usize) {
        let message = if status_code == 0 && response_size > 0 {
            self.get_grpc_call_response_body(0, response_size)
        } else {
            None
        };
        self.secret_refresh.replied(&self.worker.config, status_code, message.as_deref());
        pending_request::secrets_arrived(&self.worker);
        self.in_root();
    }

    fn on_grpc_stream_initial_metadata(&mut self, token_id: u32, _num_elements: u32) {
        self.worker.stream.borrow_mut().opened(token_id);
    }

    fn on_grpc_stream_message(&mut self, _token_id: u32, message_size: usize) {
        let message = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, message_size);
        let Some(Replies { replies }) =
            message.ok().flatten().and_then(|message| Replies::decode(message.as_slice()).ok())
        else {
            return;
        };
        for reply in replies {
            // `None` if the client has disconnected.
            let answered = self.worker.stream.borrow_mut().replied(reply);
            self.finish(answered);
        }
    }

    fn on_grpc_stream_close(&mut self, token_id: u32, status_code: u32) {
        let answered = self.worker.stream.borrow_mut().closed(token_id, status_code);
        self.finish(answered);
        if self.worker.stream.borrow().is_waiting() {
            self.ticker.set_fast(true);
        }
    }
}

impl RootContext for Root {
    /// If this returns `false`, Envoy rejects the configuration.
    fn on_configure(&mut self, _plugin_configuration_size: usize) -> bool {
        if !signature::self_test() {
            log(LogLevel::Critical, "self-test failed: this build computes wrong signatures");
            return false;
        }
        let json = self.get_plugin_configuration().unwrap_or_default();
        let mut config = match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => config,
            Err(error) => {
                log(LogLevel::Critical, &format!("invalid configuration: {error}"));
                return false;
            }
        };
        config.envoy_version = version::envoy().unwrap_or_default();
        let Some(metrics) = Metrics::define(&config.webhooks) else {
            log(LogLevel::Critical, "cannot define metrics");
            return false;
        };
        let webhooks: Vec<_> = config.webhooks.iter().map(summary).collect();
        log(
            LogLevel::Info,
            &format!(
                "edgerunner filter {} ({BUILD}) in Envoy {}, {} {}, webhooks: {}",
                env!("CARGO_PKG_VERSION"),
                config.envoy_version,
                if config.dry_run { "dry run at" } else { "serving" },
                config.path,
                webhooks.join(", ")
            ),
        );
        *self = Self::with(self.context_id, config, metrics);
        // Secrets from the sidecar are fetched at the first tick.
        self.ticker.soon();
        true
    }

    fn on_tick(&mut self) {
        let elapsed = self.ticker.elapsed();
        let answered = {
            let mut stream = self.worker.stream.borrow_mut();
            let now = stream.now().saturating_add(elapsed);
            stream.tick(now)
        };
        self.finish(answered);
        let now = self.worker.stream.borrow().now();
        let overdue = self.worker.awaiting_secrets.borrow_mut().take_overdue(now);
        for entry in overdue {
            entry.waiting.borrow_mut().finish(true, Delivery::no_secrets);
        }
        self.in_root();
        self.secret_refresh.tick(elapsed, &self.worker.config);
        let awaiting = !self.worker.awaiting_secrets.borrow().is_empty();
        self.ticker.set_fast(awaiting || self.worker.stream.borrow().is_waiting());
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let pending = PendingRequest::new(context_id, Rc::clone(&self.worker));
        Some(Box::new(Request {
            pending: Rc::new(RefCell::new(pending)),
            content_length: None,
            single_chunk: Vec::new(),
        }))
    }
}

fn summary(webhook: &Webhook) -> String {
    let label = webhook.label();
    if webhook.secrets_from_sidecar {
        format!("{label} (secrets from the sidecar)")
    } else {
        format!("{label} ({} secrets)", webhook.secrets())
    }
}

/// Envoy's callbacks for one request.
struct Request {
    pending: Rc<RefCell<PendingRequest>>,
    content_length: Option<u64>,
    /// The body, if it arrived in one chunk.
    single_chunk: Vec<u8>,
}

impl Request {
    fn perform(&self, step: Step) -> Action {
        match step {
            Step::Continue => Action::Continue,
            Step::Wait => Action::Pause,
            Step::AwaitSecrets => {
                pending_request::await_secrets(&self.pending);
                Action::Pause
            }
            Step::Submit(event) => {
                pending_request::submit(&self.pending, *event);
                Action::Pause
            }
            Step::Answer(answer) => {
                self.pending.borrow_mut().send(&answer, None);
                Action::Pause
            }
            Step::Report(answer) => {
                self.pending.borrow_mut().report(&answer);
                Action::Continue
            }
        }
    }

    fn end(&mut self) -> Step {
        let single_chunk = mem::take(&mut self.single_chunk);
        let delivery = &mut self.pending.borrow_mut().delivery;
        let size = usize::try_from(delivery.received_bytes()).unwrap_or(usize::MAX);
        delivery.end(|| {
            if size == single_chunk.len() {
                return Some(single_chunk);
            }
            hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten()
        })
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let pairs = self.get_http_request_headers_bytes();
        let headers = Headers::new(&pairs);
        let step = self.pending.borrow_mut().delivery.headers(headers);
        if !matches!(step, Step::Wait) {
            return self.perform(step);
        }
        // Headers cannot be read in later callbacks.
        self.pending.borrow_mut().traceparent = headers
            .field("traceparent")
            .token(MAX_TRACEPARENT_BYTES, u8::is_ascii_graphic)
            .map(str::to_owned);
        if end_of_stream {
            let step = self.end();
            return self.perform(step);
        }
        self.content_length = headers.field("content-length").number();
        Action::Pause
    }

    /// Envoy buffers the body while the request is paused; `body_size` is the total so far.
    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let received = self.pending.borrow().delivery.received_bytes();
        let seen = usize::try_from(received).unwrap_or(usize::MAX);
        let new = body_size.saturating_sub(seen);
        let chunk = if new > 0 {
            self.get_http_request_body(seen, new).unwrap_or_default()
        } else {
            Vec::new()
        };
        let step = self.pending.borrow_mut().delivery.chunk(&chunk);
        // Most bodies arrive in one chunk, which need not be fetched again. Envoy may report
        // the end in a separate call.
        if seen == 0 && (end_of_stream || self.content_length == u64::try_from(new).ok()) {
            self.single_chunk = chunk;
        }
        if !matches!(step, Step::Wait) || !end_of_stream {
            return self.perform(step);
        }
        let step = self.end();
        self.perform(step)
    }

    /// If there are trailers, the body callback does not see the end of the stream.
    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let step = self.end();
        self.perform(step)
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if let Some(outcome) = self.pending.borrow().reported {
            let value = outcome.slug().as_bytes();
            let headers = MapType::HttpResponseHeaders;
            // Only informative: the metric has the outcome as well.
            let _ = hostcalls::add_map_value_bytes(headers, DRY_RUN_HEADER, value);
        }
        Action::Continue
    }
}

impl Context for Request {}

impl Drop for Request {
    /// The client may disconnect before the sidecar has replied.
    fn drop(&mut self) {
        self.pending.borrow_mut().cancel();
    }
}
