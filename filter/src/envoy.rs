//! Between Envoy and [`Delivery`]: the only file that knows proxy-wasm.
//!
//! Several calls of the SDK panic on surprising input; `clippy.toml` at the
//! root forbids those, and says why.

use std::{
    rc::Rc,
    time::{Duration, SystemTime},
};

use edgerunner_proto::v1::JobEvent;
use prost::Message as _;
use proxy_wasm::{
    hostcalls,
    traits::{Context, HttpContext, RootContext},
    types::{Action, ContextType, LogLevel, MetricType},
};

use crate::{
    answer::{Answer, Outcome},
    config::{Config, Hook},
    delivery::{Delivery, Step},
    headers::Headers,
    signature,
};

const SERVICE: &str = "edgerunner.v1.Intake";
const METHOD: &str = "Submit";
const MAX_TRACEPARENT_BYTES: usize = 128;

// The macro exports `_initialize`, which is unsafe to the linker alone.
#[allow(unsafe_code)]
mod start {
    proxy_wasm::main! {{
        proxy_wasm::set_root_context(|_| Box::new(super::Root::default()));
    }}
}

fn log(level: LogLevel, message: &str) {
    // Nothing can be done about a log that cannot be written.
    let _ = hostcalls::log(level, message);
}

/// What all deliveries of a worker share.
#[derive(Default)]
struct Shared {
    config: Rc<Config>,
    metrics: Metrics,
}

#[derive(Default)]
struct Root {
    /// Refuses everything until Envoy has called `on_configure`.
    shared: Rc<Shared>,
}

impl Context for Root {}

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
            .map(|hook| format!("{} ({} secrets)", hook.label(), hook.secrets.len()))
            .collect();
        log(
            LogLevel::Info,
            &format!(
                "edgerunner filter {} serves {}: {}",
                env!("CARGO_PKG_VERSION"),
                config.path,
                hooks.join(", ")
            ),
        );
        self.shared = Rc::new(Shared { config: Rc::new(config), metrics });
        true
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request {
            shared: Rc::clone(&self.shared),
            delivery: Delivery::new(Rc::clone(&self.shared.config)),
            traceparent: None,
            submitted_at: None,
        }))
    }
}

struct Request {
    shared: Rc<Shared>,
    delivery: Delivery,
    traceparent: Option<String>,
    submitted_at: Option<SystemTime>,
}

impl HttpContext for Request {
    fn on_http_request_headers(&mut self, _num_headers: usize, end_of_stream: bool) -> Action {
        let pairs = self.get_http_request_headers_bytes();
        let headers = Headers::new(&pairs);
        let step = self.delivery.headers(headers);
        if !matches!(step, Step::Wait) {
            return self.perform(step);
        }
        // Headers may not be read later on, so it is kept from here.
        self.traceparent = headers
            .field("traceparent")
            .token(MAX_TRACEPARENT_BYTES, u8::is_ascii_graphic)
            .map(str::to_owned);
        if end_of_stream {
            let step = self.delivery.end(|| Some(Vec::new()));
            return self.perform(step);
        }
        Action::Pause
    }

    /// While paused Envoy buffers, and `body_size` is the total so far.
    fn on_http_request_body(&mut self, body_size: usize, end_of_stream: bool) -> Action {
        let seen = usize::try_from(self.delivery.received_bytes()).unwrap_or(usize::MAX);
        let new = body_size.saturating_sub(seen);
        let chunk = if new > 0 {
            self.get_http_request_body(seen, new).unwrap_or_default()
        } else {
            Vec::new()
        };
        let step = self.delivery.chunk(&chunk);
        if !matches!(step, Step::Wait) || !end_of_stream {
            return self.perform(step);
        }
        // Most deliveries come in one piece, which need not be fetched twice.
        let step = if seen == 0 {
            self.delivery.end(|| Some(chunk))
        } else {
            end_with_buffered_body(&mut self.delivery)
        };
        self.perform(step)
    }

    /// With trailers the body callback never sees the end of the stream.
    fn on_http_request_trailers(&mut self, _num_trailers: usize) -> Action {
        let step = end_with_buffered_body(&mut self.delivery);
        self.perform(step)
    }
}

impl Context for Request {
    fn on_grpc_call_response(&mut self, _token_id: u32, status_code: u32, response_size: usize) {
        if let Some(elapsed) = self
            .submitted_at
            .take()
            .and_then(|start| self.get_current_time().duration_since(start).ok())
        {
            self.shared.metrics.observe_sidecar(elapsed);
        }
        // A receipt of default values has no bytes and no buffer.
        let message = if response_size > 0 {
            self.get_grpc_call_response_body(0, response_size).unwrap_or_default()
        } else {
            Vec::new()
        };
        let step = self.delivery.reply(status_code, &message);
        self.perform(step);
    }
}

fn end_with_buffered_body(delivery: &mut Delivery) -> Step {
    let size = usize::try_from(delivery.received_bytes()).unwrap_or(usize::MAX);
    delivery.end(|| {
        if size == 0 {
            return Some(Vec::new());
        }
        hostcalls::get_buffer(proxy_wasm::types::BufferType::HttpRequestBody, 0, size)
            .ok()
            .flatten()
    })
}

impl Request {
    fn perform(&mut self, step: Step) -> Action {
        match step {
            Step::Continue => Action::Continue,
            Step::Wait => Action::Pause,
            Step::Submit(event) => {
                if !self.submit(&event) {
                    let step = self.delivery.not_sent();
                    return self.perform(step);
                }
                Action::Pause
            }
            Step::Answer(answer) => {
                self.send(&answer);
                Action::Pause
            }
        }
    }

    /// `false` means that no reply will come.
    fn submit(&mut self, event: &JobEvent) -> bool {
        let mut metadata = vec![("x-github-delivery", self.delivery.id().as_bytes())];
        if let Some(traceparent) = &self.traceparent {
            metadata.push(("traceparent", traceparent.as_bytes()));
        }
        let sidecar = &self.shared.config.sidecar;
        let sent = self.dispatch_grpc_call(
            &sidecar.grpc_service,
            SERVICE,
            METHOD,
            metadata,
            Some(&event.encode_to_vec()),
            sidecar.timeout,
        );
        self.submitted_at = Some(self.get_current_time());
        sent.is_ok()
    }

    fn send(&self, answer: &Answer) {
        self.shared.metrics.count(&self.delivery, answer.outcome);
        let level = match answer.outcome {
            outcome if !outcome.is_signed() => LogLevel::Debug,
            outcome if outcome.status() < 300 => LogLevel::Info,
            _ => LogLevel::Warn,
        };
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
        self.send_http_response(
            answer.status.into(),
            answer.headers.clone(),
            Some(answer.body.as_bytes()),
        );
    }
}

/// Counters and histograms in Envoy's stats. Hook, outcome and secret are
/// parts of the names; `stats_tags` in Envoy's bootstrap makes labels of them.
#[derive(Default)]
struct Metrics {
    hooks: Vec<HookMetrics>,
    /// Deliveries that fit no hook.
    unknown_hook: u32,
    body_bytes: u32,
    sidecar_ms: u32,
}

struct HookMetrics {
    outcomes: Vec<(Outcome, u32)>,
    /// By position in `secrets_env`: shows when an old secret is out of use.
    secrets: Vec<u32>,
}

impl Metrics {
    fn define(hooks: &[Hook]) -> Option<Self> {
        let define = |metric_type, name: &str| hostcalls::define_metric(metric_type, name).ok();
        let counter = |name: String| define(MetricType::Counter, &name);
        let hooks = hooks
            .iter()
            .map(|hook| {
                let label = hook.label();
                let outcomes = Outcome::ALL
                    .into_iter()
                    .filter(|outcome| *outcome != Outcome::UnknownHook)
                    .map(|outcome| {
                        let slug = outcome.slug();
                        let id =
                            counter(format!("edgerunner.deliveries.hook.{label}.outcome.{slug}"))?;
                        Some((outcome, id))
                    })
                    .collect::<Option<_>>()?;
                let secrets = (0..hook.secrets.len())
                    .map(|position| {
                        counter(format!("edgerunner.verified.hook.{label}.secret.{position}"))
                    })
                    .collect::<Option<_>>()?;
                Some(HookMetrics { outcomes, secrets })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            hooks,
            unknown_hook: counter("edgerunner.unknown_hook".to_owned())?,
            body_bytes: define(MetricType::Histogram, "edgerunner.body_bytes")?,
            sidecar_ms: define(MetricType::Histogram, "edgerunner.sidecar_ms")?,
        })
    }

    // A metric that cannot be written must not cost a delivery.
    fn count(&self, delivery: &Delivery, outcome: Outcome) {
        let Some(hook) = delivery.hook().and_then(|hook| self.hooks.get(hook)) else {
            let _ = hostcalls::increment_metric(self.unknown_hook, 1);
            return;
        };
        if let Some((_, id)) = hook.outcomes.iter().find(|(other, _)| *other == outcome) {
            let _ = hostcalls::increment_metric(*id, 1);
        }
        if let Some(id) = delivery.secret().and_then(|secret| hook.secrets.get(secret)) {
            let _ = hostcalls::increment_metric(*id, 1);
            let _ = hostcalls::record_metric(self.body_bytes, delivery.received_bytes());
        }
    }

    fn observe_sidecar(&self, elapsed: Duration) {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let _ = hostcalls::record_metric(self.sidecar_ms, millis);
    }
}
