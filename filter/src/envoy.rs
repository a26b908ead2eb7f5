//! Between Envoy and [`Delivery`]: the only part that knows proxy-wasm.
//!
//! Several calls of the SDK panic on surprising input; `clippy.toml` at the
//! root forbids those, and says why.

mod exchange;
mod link;
mod metrics;
mod secrets;

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
    config::Config,
    delivery::{Delivery, Step},
    headers::Headers,
    signature,
};
use exchange::Exchange;
use link::{Link, TICK};
use metrics::Metrics;
use secrets::Renewal;

const MAX_TRACEPARENT_BYTES: usize = 128;

// The macro exports `_initialize`, which is unsafe to the linker alone.
#[allow(unsafe_code)]
mod start {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|context_id| Box::new(super::Root::new(context_id)));
    }}
}

fn log(level: LogLevel, message: &str) {
    // Nothing can be done about a log that cannot be written.
    let _ = hostcalls::log(level, message);
}

/// What all deliveries of a worker share.
struct Shared {
    config: Rc<Config>,
    metrics: Metrics,
    link: Link,
    renewal: Renewal,
}

struct Root {
    context_id: u32,
    /// Refuses everything until Envoy has called `on_configure`.
    shared: Rc<Shared>,
}

impl Root {
    fn new(context_id: u32) -> Self {
        let config = Rc::new(Config::default());
        let link = Link::new(context_id, &config.sidecar);
        let renewal = Renewal::new(&config);
        let shared = Shared { config, metrics: Metrics::default(), link, renewal };
        Self { context_id, shared: Rc::new(shared) }
    }

    /// Answers from here what was sent over the stream.
    fn answer(
        &self,
        exchanges: impl IntoIterator<Item = Rc<RefCell<Exchange>>>,
        step: impl Fn(&mut Delivery) -> Step,
    ) {
        for exchange in exchanges {
            exchange.borrow_mut().finish(&step);
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
        self.shared.renewal.answered(&self.shared.config, status_code, message.as_deref());
    }

    fn on_grpc_stream_initial_metadata(&mut self, token_id: u32, _num_elements: u32) {
        self.shared.link.opened(token_id);
    }

    fn on_grpc_stream_message(&mut self, _token_id: u32, message_size: usize) {
        let message = hostcalls::get_buffer(BufferType::GrpcReceiveBuffer, 0, message_size);
        let Some(Replies { replies }) =
            message.ok().flatten().and_then(|message| Replies::decode(message.as_slice()).ok())
        else {
            return;
        };
        for reply in replies {
            // Whoever sent it may have hung up.
            let exchange = self.shared.link.replied(reply.token);
            self.answer(exchange, |delivery| match &reply.receipt {
                Some(receipt) if reply.status == 0 => delivery.receipt(receipt),
                _ => delivery.reply(reply.status, &[]),
            });
        }
    }

    fn on_grpc_stream_close(&mut self, token_id: u32, _status_code: u32) {
        self.answer(self.shared.link.closed(token_id), Delivery::no_reply);
    }
}

impl RootContext for Root {
    /// `false` makes Envoy refuse the configuration.
    fn on_configure(&mut self, _plugin_configuration_size: usize) -> bool {
        if !signature::self_test() {
            log(LogLevel::Critical, "self-test failed: this build computes wrong signatures");
            return false;
        }
        let json = self.get_plugin_configuration().unwrap_or_default();
        let config = match Config::parse(&json, |name| std::env::var(name).ok()) {
            Ok(config) => config,
            Err(error) => {
                log(LogLevel::Critical, &format!("configuration: {error}"));
                return false;
            }
        };
        let Some(metrics) = Metrics::define(&config.hooks) else {
            log(LogLevel::Critical, "metrics cannot be defined");
            return false;
        };
        let hooks: Vec<_> = config
            .hooks
            .iter()
            .map(|hook| {
                if hook.secrets_from_sidecar {
                    format!("{} (secrets from the sidecar)", hook.label())
                } else {
                    format!("{} ({} secrets)", hook.label(), hook.secrets())
                }
            })
            .collect();
        log(
            LogLevel::Info,
            &format!(
                "edgerunner filter {} ({BUILD}) {} {}: {}",
                env!("CARGO_PKG_VERSION"),
                if config.dry_run { "lets everything pass and reports on" } else { "serves" },
                config.path,
                hooks.join(", ")
            ),
        );
        let link = Link::new(self.context_id, &config.sidecar);
        let renewal = Renewal::new(&config);
        self.shared = Rc::new(Shared { config: Rc::new(config), metrics, link, renewal });
        hostcalls::set_tick_period(TICK).is_ok()
    }

    fn on_tick(&mut self) {
        self.answer(self.shared.link.tick(), Delivery::reply_late);
        self.shared.renewal.tick(&self.shared.config);
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        let exchange = Exchange::new(context_id, Rc::clone(&self.shared));
        Some(Box::new(Request {
            exchange: Rc::new(RefCell::new(exchange)),
            announced: None,
            whole: Vec::new(),
        }))
    }
}

/// Envoy's callbacks for one request.
struct Request {
    exchange: Rc<RefCell<Exchange>>,
    /// By `content-length`.
    announced: Option<u64>,
    /// The body, if it came in one piece.
    whole: Vec<u8>,
}

impl Request {
    fn perform(&self, step: Step) -> Action {
        match step {
            Step::Continue => Action::Continue,
            Step::Wait => Action::Pause,
            Step::Submit(event) => {
                exchange::submit(&self.exchange, *event);
                Action::Pause
            }
            Step::Answer(answer) => {
                self.exchange.borrow_mut().send(&answer);
                Action::Pause
            }
            Step::Report(answer) => {
                self.exchange.borrow_mut().report(&answer);
                Action::Continue
            }
        }
    }

    fn end(&mut self) -> Step {
        let whole = mem::take(&mut self.whole);
        let delivery = &mut self.exchange.borrow_mut().delivery;
        let size = usize::try_from(delivery.received_bytes()).unwrap_or(usize::MAX);
        delivery.end(|| {
            if size == whole.len() {
                return Some(whole);
            }
            hostcalls::get_buffer(BufferType::HttpRequestBody, 0, size).ok().flatten()
        })
    }
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let pairs = self.get_http_request_headers_bytes();
        let headers = Headers::new(&pairs);
        let step = self.exchange.borrow_mut().delivery.headers(headers);
        if !matches!(step, Step::Wait) {
            return self.perform(step);
        }
        // Headers may not be read later on, so it is kept from here.
        self.exchange.borrow_mut().traceparent = headers
            .field("traceparent")
            .token(MAX_TRACEPARENT_BYTES, u8::is_ascii_graphic)
            .map(str::to_owned);
        if end_of_stream {
            let step = self.end();
            return self.perform(step);
        }
        self.announced = headers.field("content-length").number();
        Action::Pause
    }

    /// While paused Envoy buffers, and `body_size` is the total so far.
    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let received = self.exchange.borrow().delivery.received_bytes();
        let seen = usize::try_from(received).unwrap_or(usize::MAX);
        let new = body_size.saturating_sub(seen);
        let chunk = if new > 0 {
            self.get_http_request_body(seen, new).unwrap_or_default()
        } else {
            Vec::new()
        };
        let step = self.exchange.borrow_mut().delivery.chunk(&chunk);
        // Most come in one piece, which need not be fetched twice: Envoy tells of the end
        // in a call of its own.
        if seen == 0 && (end_of_stream || self.announced == u64::try_from(new).ok()) {
            self.whole = chunk;
        }
        if !matches!(step, Step::Wait) || !end_of_stream {
            return self.perform(step);
        }
        let step = self.end();
        self.perform(step)
    }

    /// With trailers the body callback never sees the end of the stream.
    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let step = self.end();
        self.perform(step)
    }

    fn on_http_response_headers(&mut self, _num_headers: usize, _end_of_stream: bool) -> Action {
        if let Some(outcome) = self.exchange.borrow().reported {
            let value = outcome.slug().as_bytes();
            let headers = MapType::HttpResponseHeaders;
            // Whoever sends a test delivery sees it; the metric tells all the same.
            let _ = hostcalls::add_map_value_bytes(headers, DRY_RUN_HEADER, value);
        }
        Action::Continue
    }
}

impl Context for Request {
    fn on_grpc_call_response(&mut self, _token_id: u32, status_code: u32, response_size: usize) {
        // A receipt of default values has no bytes and no buffer.
        let message = if response_size > 0 {
            self.get_grpc_call_response_body(0, response_size).unwrap_or_default()
        } else {
            Vec::new()
        };
        self.exchange.borrow_mut().finish(|delivery| delivery.reply(status_code, &message));
    }
}

impl Drop for Request {
    /// The client may be gone before the reply is there.
    fn drop(&mut self) {
        self.exchange.borrow_mut().forget();
    }
}
