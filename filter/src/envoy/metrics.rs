//! Counters and histograms in Envoy's statistics.

use proxy_wasm::{hostcalls, types::MetricType};

use crate::{
    answer::Outcome,
    config::{MAX_SECRETS, Webhook},
    delivery::Delivery,
};

/// The names contain webhook, outcome and secret; `stats_tags` in Envoy's bootstrap turns
/// them into labels.
#[derive(Default)]
pub(super) struct Metrics {
    webhooks: Vec<WebhookMetrics>,
    /// Deliveries to no known webhook.
    unknown_webhook: u32,
    body_bytes: u32,
    sidecar_ms: u32,
    held: u32,
    held_ms: u32,
}

struct WebhookMetrics {
    outcomes: Vec<(Outcome, u32)>,
    /// By the secret's position, to show when an old secret is no longer used.
    secrets: Vec<u32>,
}

impl Metrics {
    /// `None` if Envoy rejects a metric.
    pub(super) fn define(webhooks: &[Webhook]) -> Option<Self> {
        let define = |metric_type, name: &str| hostcalls::define_metric(metric_type, name).ok();
        let counter = |name: String| define(MetricType::Counter, &name);
        let webhooks = webhooks
            .iter()
            .map(|webhook| {
                let label = webhook.label();
                let outcomes = Outcome::ALL
                    .into_iter()
                    .filter(|outcome| *outcome != Outcome::UnknownWebhook)
                    .map(|outcome| {
                        let slug = outcome.slug();
                        let id =
                            counter(format!("edgerunner.deliveries.hook.{label}.outcome.{slug}"))?;
                        Some((outcome, id))
                    })
                    .collect::<Option<_>>()?;
                // The sidecar sends its secrets later, and their number may change.
                let secrets =
                    if webhook.secrets_from_sidecar { MAX_SECRETS } else { webhook.secrets() };
                let secrets = (0..secrets)
                    .map(|position| {
                        counter(format!("edgerunner.verified.hook.{label}.secret.{position}"))
                    })
                    .collect::<Option<_>>()?;
                Some(WebhookMetrics { outcomes, secrets })
            })
            .collect::<Option<_>>()?;
        Some(Self {
            webhooks,
            unknown_webhook: counter("edgerunner.unknown_hook".to_owned())?,
            body_bytes: define(MetricType::Histogram, "edgerunner.body_bytes")?,
            sidecar_ms: define(MetricType::Histogram, "edgerunner.sidecar_ms")?,
            held: counter("edgerunner.held".to_owned())?,
            held_ms: define(MetricType::Histogram, "edgerunner.held_ms")?,
        })
    }

    // Deliveries go on even if a metric cannot be written.
    pub(super) fn count(&self, delivery: &Delivery, outcome: Outcome) {
        let Some(webhook) = delivery.webhook().and_then(|webhook| self.webhooks.get(webhook))
        else {
            let _ = hostcalls::increment_metric(self.unknown_webhook, 1);
            return;
        };
        if let Some((_, id)) = webhook.outcomes.iter().find(|(other, _)| *other == outcome) {
            let _ = hostcalls::increment_metric(*id, 1);
        }
        if let Some(id) = delivery.secret().and_then(|secret| webhook.secrets.get(secret)) {
            let _ = hostcalls::increment_metric(*id, 1);
            let _ = hostcalls::record_metric(self.body_bytes, delivery.received_bytes());
        }
    }

    /// A delivery has to wait for a way to the sidecar.
    pub(super) fn count_held(&self) {
        let _ = hostcalls::increment_metric(self.held, 1);
    }

    /// The time from a submission to its answer, which is not the sidecar's alone if the delivery
    /// was held.
    pub(super) fn observe(&self, millis: u64, held: bool) {
        let _ = hostcalls::record_metric(if held { self.held_ms } else { self.sidecar_ms }, millis);
    }
}
