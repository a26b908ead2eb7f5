//! Faults that the sandbox produces on demand, in responses and in webhook deliveries.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Checked in order. All latencies that apply are added up; of the other faults, the first
    /// that applies takes effect.
    pub requests: Vec<RequestFault>,
    /// Checked in order; the first that applies takes effect.
    pub deliveries: Vec<DeliveryFault>,
    /// Events do not name the runner of a job: its id is 0 and its name empty.
    pub unnamed_runners: bool,
    /// Seeds the random numbers behind every `probability`.
    pub seed: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFault {
    #[serde(default)]
    pub method: Option<String>,
    /// Applies to requests whose path contains this.
    #[serde(default)]
    pub path: Option<String>,
    /// Applies to requests with this token: its index in
    /// [`Settings::tokens`](crate::Settings::tokens).
    #[serde(default)]
    pub token: Option<usize>,
    /// How many more requests it applies to; no limit if absent.
    #[serde(default)]
    pub next: Option<u32>,
    /// From 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    pub fault: Fault,
}

impl From<Fault> for RequestFault {
    fn from(fault: Fault) -> Self {
        Self { method: None, path: None, token: None, next: None, probability: always(), fault }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    Latency {
        ms: u64,
    },
    Unauthorized,
    /// 403, one of the two responses to exceeding a secondary rate limit.
    Forbidden {
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// 429, the other response to exceeding a secondary rate limit.
    TooManyRequests {
        #[serde(default)]
        retry_after: RetryAfter,
    },
    /// The primary rate limit is exhausted until `x-ratelimit-reset`.
    RateLimited {
        reset_seconds: u32,
    },
    NotFound,
    Conflict,
    UnprocessableEntity,
    /// 500 with an HTML page.
    ServerError,
    /// 200 with an HTML page, as from a proxy that asks for a login.
    WebPage,
    /// No response, while the connection stays open.
    Hang,
    /// The request is read, then the connection is closed without a response. `performed`: the
    /// request takes effect nevertheless.
    Close {
        performed: bool,
    },
    /// `Link` headers point to this origin, such as `http://127.0.0.1:9`.
    LinkElsewhere {
        origin: String,
    },
}

/// The `retry-after` header of a rate limit error.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RetryAfter {
    #[default]
    None,
    Seconds(u32),
    /// An HTTP date, this many seconds from now.
    Date(u32),
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DeliveryFault {
    /// Applies to events with this action, such as `queued`.
    #[serde(default)]
    pub action: Option<String>,
    /// How many more deliveries it applies to; no limit if absent.
    #[serde(default)]
    pub next: Option<u32>,
    /// From 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    pub fault: DeliveryFaultKind,
}

impl From<DeliveryFaultKind> for DeliveryFault {
    fn from(fault: DeliveryFaultKind) -> Self {
        Self { action: None, next: None, probability: always(), fault }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum DeliveryFaultKind {
    /// Not sent, but listed as failed, so that it can be redelivered.
    Lost,
    /// Neither sent nor listed.
    Vanished,
    /// Sent twice, with the same GUID.
    Doubled,
    /// Sent after the same job's next delivery.
    Reordered,
    /// Sent this much later; the job's later deliveries do not wait for it.
    Delayed { ms: u64 },
}

/// The faults that apply to one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestEffect {
    pub latency_ms: u64,
    pub fault: Option<Fault>,
}

fn always() -> f64 {
    1.0
}

/// The faults in effect. Each time one applies, its `next` is decremented.
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

    /// `token`: as in [`RequestFault`].
    pub(crate) fn on_request(
        &mut self,
        method: &str,
        path: &str,
        token: Option<usize>,
    ) -> RequestEffect {
        let mut effect = RequestEffect::default();
        for fault in &mut self.faults.requests {
            let latency = matches!(fault.fault, Fault::Latency { .. });
            let applies = (latency || effect.fault.is_none())
                && fault.method.as_ref().is_none_or(|own| own.eq_ignore_ascii_case(method))
                && fault.path.as_ref().is_none_or(|part| path.contains(part))
                && (fault.token.is_none() || fault.token == token);
            if !applies || !take_effect(&mut fault.next, fault.probability, &mut self.random) {
                continue;
            }
            match fault.fault {
                Fault::Latency { ms } => effect.latency_ms += ms,
                _ => effect.fault = Some(fault.fault.clone()),
            }
        }
        effect
    }

    pub(crate) fn on_delivery(&mut self, action: Option<&str>) -> Option<DeliveryFaultKind> {
        for fault in &mut self.faults.deliveries {
            let applies = fault.action.as_ref().is_none_or(|own| Some(own.as_str()) == action);
            if applies && take_effect(&mut fault.next, fault.probability, &mut self.random) {
                return Some(fault.fault);
            }
        }
        None
    }
}

fn take_effect(next: &mut Option<u32>, probability: f64, random: &mut fastrand::Rng) -> bool {
    if *next == Some(0) || random.f64() >= probability {
        return false;
    }
    if let Some(next) = next {
        *next -= 1;
    }
    true
}
