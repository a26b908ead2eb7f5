//! What the sandbox is told to do wrong.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Tried in order; latencies add up, of the others the first that applies
    /// is taken.
    pub requests: Vec<RequestFault>,
    pub deliveries: Vec<DeliveryFault>,
    /// Of the numbers behind every `probability`.
    pub seed: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFault {
    #[serde(default)]
    pub method: Option<String>,
    /// Applies to paths that contain this.
    #[serde(default)]
    pub path: Option<String>,
    /// For so many requests; until changed if absent.
    #[serde(default)]
    pub next: Option<u32>,
    #[serde(default = "always")]
    pub probability: f64,
    pub fault: Fault,
}

impl From<Fault> for RequestFault {
    fn from(fault: Fault) -> Self {
        Self { method: None, path: None, next: None, probability: always(), fault }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    Latency {
        ms: u64,
    },
    Unauthorized,
    /// 403, the form a secondary limit takes.
    Forbidden {
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// 429, the other form of it.
    TooManyRequests {
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// The primary limit: nothing remains until `x-ratelimit-reset`.
    RateLimited {
        reset_seconds: u32,
    },
    NotFound,
    Conflict,
    UnprocessableEntity,
    /// 500 with an HTML page.
    ServerError,
    /// Never answered.
    Hang,
    /// The connection is closed without an answer after the request was read;
    /// `performed` tells whether it took effect all the same.
    Close {
        performed: bool,
    },
    /// `Link` headers name this origin, such as `http://127.0.0.1:9`.
    LinkElsewhere {
        origin: String,
    },
}

/// What a refusal says in `retry-after`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryAfter {
    #[default]
    None,
    Seconds(u32),
    /// An HTTP date so many seconds ahead.
    Date(u32),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryFault {
    /// Applies to deliveries of this action, such as `queued`.
    #[serde(default)]
    pub action: Option<String>,
    /// For so many deliveries; until changed if absent.
    #[serde(default)]
    pub next: Option<u32>,
    #[serde(default = "always")]
    pub probability: f64,
    pub fault: Mishap,
}

impl From<Mishap> for DeliveryFault {
    fn from(fault: Mishap) -> Self {
        Self { action: None, next: None, probability: always(), fault }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Mishap {
    /// Never reaches the receiver; listed as failed, so it can be redelivered.
    Lost,
    /// Never sent and never listed.
    Vanished,
    /// Sent twice with one GUID.
    Doubled,
    /// Sent after the next delivery of the same job.
    Reordered,
    /// Sent so much later, whatever else is sent meanwhile.
    Delayed { ms: u64 },
}

/// What the faults make of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestOutcome {
    pub latency_ms: u64,
    pub fault: Option<Fault>,
}

fn always() -> f64 {
    1.0
}

/// The faults as they stand: `next` counts down.
pub(crate) struct ActiveFaults {
    faults: Faults,
    random: fastrand::Rng,
}

impl ActiveFaults {
    pub(crate) fn new(faults: Faults) -> Self {
        let random = fastrand::Rng::with_seed(faults.seed);
        Self { faults, random }
    }

    pub(crate) fn get(&self) -> &Faults {
        &self.faults
    }

    pub(crate) fn on_request(&mut self, method: &str, path: &str) -> RequestOutcome {
        let mut outcome = RequestOutcome::default();
        for fault in &mut self.faults.requests {
            let latency = matches!(fault.fault, Fault::Latency { .. });
            let applies = (latency || outcome.fault.is_none())
                && fault.method.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(method))
                && fault.path.as_ref().is_none_or(|part| path.contains(part));
            if !applies || !strikes(&mut fault.next, fault.probability, &mut self.random) {
                continue;
            }
            match fault.fault {
                Fault::Latency { ms } => outcome.latency_ms += ms,
                _ => outcome.fault = Some(fault.fault.clone()),
            }
        }
        outcome
    }

    pub(crate) fn on_delivery(&mut self, action: Option<&str>) -> Option<Mishap> {
        for fault in &mut self.faults.deliveries {
            let applies = fault.action.as_ref().is_none_or(|own| Some(own.as_str()) == action);
            if applies && strikes(&mut fault.next, fault.probability, &mut self.random) {
                return Some(fault.fault);
            }
        }
        None
    }
}

fn strikes(next: &mut Option<u32>, probability: f64, random: &mut fastrand::Rng) -> bool {
    if *next == Some(0) || random.f64() >= probability {
        return false;
    }
    if let Some(next) = next {
        *next -= 1;
    }
    true
}
