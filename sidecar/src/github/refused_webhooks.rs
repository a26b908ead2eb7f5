//! Webhooks whose deliveries are answered with 401: GitHub and Envoy have different secrets.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use edgerunner_scheduler::{
    missed::{DeliveryAttempt, WebhookId},
    model::UnixMs,
};

/// Older refusals say nothing about the present.
pub(crate) const REFUSED_FOR_MS: UnixMs = 3_600_000;
const REFUSED: u16 = 401;

/// Of one credential.
#[derive(Default)]
pub(crate) struct RefusedWebhooks(Mutex<BTreeMap<String, RefusedWebhook>>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RefusedWebhook {
    /// As [`WebhookId`] has it.
    pub webhook: String,
    /// Where GitHub sends it, if that is known.
    pub url: Option<String>,
    /// Deliveries in the last hour, among the latest 100.
    pub refused: usize,
    pub last_ms: UnixMs,
}

impl RefusedWebhook {
    /// `None` if the latest delivery was answered otherwise, or is long ago. `latest`: the newest
    /// comes first.
    fn of(
        webhook: &WebhookId,
        url: Option<&str>,
        latest: &[DeliveryAttempt],
        now: UnixMs,
    ) -> Option<Self> {
        let newest = latest.first().filter(|it| is_refused(it, now))?;
        let refused = latest.iter().filter(|it| is_refused(it, now)).count();
        let url = url.map(str::to_owned);
        Some(Self { webhook: webhook.to_string(), url, refused, last_ms: newest.at })
    }
}

fn is_refused(attempt: &DeliveryAttempt, now: UnixMs) -> bool {
    attempt.status == REFUSED && now.saturating_sub(attempt.at) < REFUSED_FOR_MS
}

impl RefusedWebhooks {
    /// Notes how the latest deliveries of a webhook were answered.
    pub(crate) fn note(
        &self,
        webhook: &WebhookId,
        url: Option<&str>,
        latest: &[DeliveryAttempt],
        now: UnixMs,
    ) {
        let mut all = self.locked();
        match RefusedWebhook::of(webhook, url, latest, now) {
            Some(refused) => drop(all.insert(refused.webhook.clone(), refused)),
            None => drop(all.remove(&webhook.to_string())),
        }
    }

    pub(super) fn all(&self) -> Vec<RefusedWebhook> {
        self.locked().values().cloned().collect()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, RefusedWebhook>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = 10_000_000;

    /// With these statuses and ages, the newest first.
    fn attempts(of: &[(u16, UnixMs)]) -> Vec<DeliveryAttempt> {
        let attempt = |(status, ago_ms): &(u16, UnixMs)| DeliveryAttempt {
            id: 1,
            guid: "guid".into(),
            at: NOW - ago_ms,
            status: *status,
            event: "workflow_job".into(),
            action: "queued".into(),
        };
        of.iter().map(attempt).collect()
    }

    #[test]
    fn a_webhook_is_refused_while_its_latest_delivery_is() {
        let all = RefusedWebhooks::default();
        let note = |of: &[(u16, UnixMs)]| {
            all.note(&WebhookId::App, Some("https://h"), &attempts(of), NOW);
            all.all().first().map(|it| (it.refused, it.last_ms))
        };
        assert_eq!(note(&[(401, 5), (202, 6), (401, 7)]), Some((2, NOW - 5)));
        let old = REFUSED_FOR_MS;
        assert_eq!(note(&[(401, 5), (401, old)]), Some((1, NOW - 5)));
        assert_eq!(note(&[(202, 1), (401, 5)]), None, "the secret was corrected");
        assert_eq!(note(&[(502, 1), (401, 5)]), None, "something else is wrong");
        assert_eq!(note(&[(401, old)]), None);
        assert_eq!(note(&[]), None);
    }
}
