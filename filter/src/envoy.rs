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
mod submit_stream;

use std::{cell::RefCell, mem, rc::Rc, time::Duration};

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
};
use log::log;
use metrics::Metrics;
use pending_request::{PendingRequest, Worker};
use secret_refresh::SecretRefresh;
use submit_stream::SubmitStream;

const MAX_TRACEPARENT_BYTES: usize = 128;
/// Interval for checking timeouts, opening the stream and refreshing secrets.
const TICK: Duration = Duration::from_millis(250);

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
}

impl Root {
    fn new(context_id: u32) -> Self {
        Self::with(context_id, Config::default(), Metrics::default())
    }

    fn with(context_id: u32, config: Config, metrics: Metrics) -> Self {
        let secret_refresh = SecretRefresh::new(&config);
        let stream = SubmitStream::new(context_id, &config.sidecar);
        let worker = Worker { config: Rc::new(config), metrics, stream };
        Self { context_id, worker: Rc::new(worker), secret_refresh }
    }

    /// Finishes requests whose events were sent over the stream.
    fn finish(
        &self,
        requests: impl IntoIterator<Item = Rc<RefCell<PendingRequest>>>,
        step: impl Fn(&mut Delivery) -> Step,
    ) {
        for request in requests {
            request.borrow_mut().finish(&step);
        }
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
    }

    fn on_grpc_stream_initial_metadata(&mut self, token_id: u32, _num_elements: u32) {
        self.worker.stream.opened(token_id);
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
            let request = self.worker.stream.take(reply.token);
            self.finish(request, |delivery| match &reply.receipt {
                Some(receipt) if reply.status == 0 => delivery.receipt(receipt),
                _ => delivery.reply(reply.status, &[]),
            });
        }
    }

    fn on_grpc_stream_close(&mut self, token_id: u32, _status_code: u32) {
        self.finish(self.worker.stream.closed(token_id), Delivery::no_reply);
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
        let config = match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => config,
            Err(error) => {
                log(LogLevel::Critical, &format!("invalid configuration: {error}"));
                return false;
            }
        };
        let Some(metrics) = Metrics::define(&config.webhooks) else {
            log(LogLevel::Critical, "cannot define metrics");
            return false;
        };
        let webhooks: Vec<_> = config.webhooks.iter().map(summary).collect();
        log(
            LogLevel::Info,
            &format!(
                "edgerunner filter {} ({BUILD}), {} {}, webhooks: {}",
                env!("CARGO_PKG_VERSION"),
                if config.dry_run { "dry run at" } else { "serving" },
                config.path,
                webhooks.join(", ")
            ),
        );
        *self = Self::with(self.context_id, config, metrics);
        hostcalls::set_tick_period(TICK).is_ok()
    }

    fn on_tick(&mut self) {
        self.finish(self.worker.stream.tick(TICK), Delivery::timed_out);
        self.secret_refresh.tick(TICK, &self.worker.config);
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
            Step::Submit(event) => {
                pending_request::submit(&self.pending, *event);
                Action::Pause
            }
            Step::Answer(answer) => {
                self.pending.borrow_mut().send(&answer);
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

impl Context for Request {
    fn on_grpc_call_response(&mut self, _token_id: u32, status_code: u32, response_size: usize) {
        // A receipt of default values has no bytes, and Envoy then provides no buffer.
        let message = if response_size > 0 {
            self.get_grpc_call_response_body(0, response_size).unwrap_or_default()
        } else {
            Vec::new()
        };
        self.pending.borrow_mut().finish(|delivery| delivery.reply(status_code, &message));
    }
}

impl Drop for Request {
    /// The client may disconnect before the sidecar has replied.
    fn drop(&mut self) {
        self.pending.borrow_mut().cancel();
    }
}
