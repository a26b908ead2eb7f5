//! Counters and histograms in Envoy's stats.

use std::time::Duration;

use proxy_wasm::{hostcalls, types::MetricType};

use crate::{
    answer::Outcome,
    config::{Hook, MAX_SECRETS},
    delivery::Delivery,
};

/// Hook, outcome and secret are parts of the names; `stats_tags` in Envoy's bootstrap
/// makes labels of them.
#[derive(Default)]
pub(super) struct Metrics {
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
    pub(super) fn define(hooks: &[Hook]) -> Option<Self> {
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
                // Those of the sidecar are told later, and may become more.
                let secrets = if hook.secrets_from_sidecar { MAX_SECRETS } else { hook.secrets() };
                let secrets = (0..secrets)
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
    pub(super) fn count(&self, delivery: &Delivery, outcome: Outcome) {
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

    pub(super) fn observe_sidecar(&self, elapsed: Duration) {
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let _ = hostcalls::record_metric(self.sidecar_ms, millis);
    }
}
