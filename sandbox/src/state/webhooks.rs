//! Webhooks: which one the sandbox has, what it sends, and the record of every attempt.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;

use super::State;
use crate::delivery::{DeliveryRecord, PendingDelivery, QueueTask, WebhookEvent};
use crate::faults::DeliveryFaultKind;
use crate::installation::InstallationStatus;
use crate::payload::{
    ACTOR, APP_ID, CREATED_AT, LastResponse, Organization, PingEvent, Repository, SimpleUser,
    Webhook, WebhookConfig, id_of,
};
use crate::repository::Access;
use crate::scope::RepositoryName;
use crate::sender::DeliveryAttempt;
use crate::settings::WebhookKind;

/// How long a reordered delivery waits for a later one.
const HELD_AT_MOST: Duration = Duration::from_secs(2);

impl State {
    pub(crate) fn webhook_id(&self, repository: &RepositoryName) -> u64 {
        id_of(&match self.settings.webhook_kind {
            WebhookKind::Repository => format!("hook of {}", self.repository(repository).id),
            WebhookKind::Organization => format!("hook of {}", repository.owner),
            WebhookKind::Integration => "hook of the app".to_owned(),
        })
    }

    pub(crate) fn webhook(&self, repository: &RepositoryName) -> Webhook {
        let id = self.webhook_id(repository);
        let (kind, path) = match self.settings.webhook_kind {
            WebhookKind::Repository => ("Repository", Some(format!("repos/{repository}"))),
            WebhookKind::Organization => {
                ("Organization", Some(format!("orgs/{}", repository.owner)))
            }
            WebhookKind::Integration => ("App", None),
        };
        let url = path.map(|path| self.urls.to(&format!("{path}/hooks/{id}")));
        let below = |name: &str| url.as_ref().map(|url| format!("{url}/{name}"));
        let of_repository = self.settings.webhook_kind == WebhookKind::Repository;
        Webhook {
            kind,
            id,
            name: "web",
            active: true,
            events: vec!["workflow_job"],
            config: WebhookConfig {
                content_type: "json",
                url: self.settings.webhook_url.clone().unwrap_or_default(),
                insecure_ssl: "0",
            },
            updated_at: CREATED_AT,
            created_at: CREATED_AT,
            test_url: below("test").filter(|_| of_repository),
            ping_url: below("pings"),
            deliveries_url: below("deliveries")
                .unwrap_or_else(|| self.urls.to("app/hook/deliveries")),
            last_response: of_repository.then_some(LastResponse::UNUSED),
            app_id: url.is_none().then_some(APP_ID),
            url,
        }
    }

    /// Sends the event that GitHub sends when a webhook is created.
    pub(crate) fn ping(&mut self, repository: &RepositoryName) -> Result<(), serde_json::Error> {
        let kind = self.settings.webhook_kind;
        let event = PingEvent {
            zen: "Keep it logically awesome.",
            hook_id: self.webhook_id(repository),
            hook: self.webhook(repository),
            repository: (kind == WebhookKind::Repository)
                .then(|| Repository::new(&self.repository(repository), &self.urls)),
            organization: (kind == WebhookKind::Organization)
                .then(|| Organization::new(&repository.owner, &self.urls)),
            sender: SimpleUser::user(ACTOR, &self.urls),
        };
        self.send_event("ping", None, repository, None, &event)
    }

    /// Queues a delivery of the event, subject to the delivery faults. Does nothing without a
    /// webhook URL.
    pub(super) fn send_event(
        &mut self,
        name: &'static str,
        action: Option<&'static str>,
        repository: &RepositoryName,
        job_id: Option<u64>,
        payload: &impl Serialize,
    ) -> Result<(), serde_json::Error> {
        if self.settings.webhook_url.is_none() {
            return Ok(());
        }
        let record = self.repository(repository);
        let app = self.settings.webhook_kind == WebhookKind::Integration;
        let installed = self.installation(&repository.owner).status == InstallationStatus::Active;
        if record.access == Access::Deleted || (app && !installed) {
            return Ok(());
        }
        let repository_id = record.id;
        let (target_type, target_id) = match self.settings.webhook_kind {
            WebhookKind::Repository => ("repository", repository_id),
            WebhookKind::Organization => ("organization", id_of(&repository.owner)),
            WebhookKind::Integration => ("integration", APP_ID),
        };
        let event = WebhookEvent {
            guid: uuid::Uuid::new_v4().to_string(),
            name,
            action,
            repository: repository.clone(),
            repository_id,
            installation_id: app.then(|| self.installation_id(&repository.owner)),
            job_id,
            hook_id: self.webhook_id(repository),
            target_type,
            target_id,
            payload: Bytes::from(serde_json::to_vec(payload)?),
        };
        let fault = self.faults.on_delivery(action);
        let lost = fault == Some(DeliveryFaultKind::Lost);
        let delivery = PendingDelivery { event, lost, redelivery: false };
        match fault {
            Some(DeliveryFaultKind::Vanished) => {}
            Some(DeliveryFaultKind::Delayed { ms }) => {
                let queue = self.ids.queue();
                self.delivery_queues.entry(queue).or_default().pending.push_back(delivery);
                let delay = Duration::from_millis(ms);
                self.tasks.push(QueueTask { queue, delay, release_held: false });
            }
            Some(DeliveryFaultKind::Reordered) => {
                let queue = self.queue_for(job_id);
                self.delivery_queues.entry(queue).or_default().held.push_back(delivery);
                self.tasks.push(QueueTask { queue, delay: HELD_AT_MOST, release_held: true });
            }
            Some(DeliveryFaultKind::Doubled) => {
                self.enqueue(job_id, delivery.clone());
                self.enqueue(job_id, delivery);
            }
            Some(DeliveryFaultKind::Lost) | None => self.enqueue(job_id, delivery),
        }
        Ok(())
    }

    /// Delivers the event again: at once, and without faults.
    pub(crate) fn redeliver(&mut self, event: WebhookEvent) {
        self.enqueue(None, PendingDelivery { event, lost: false, redelivery: true });
    }

    fn enqueue(&mut self, job_id: Option<u64>, delivery: PendingDelivery) {
        let id = self.queue_for(job_id);
        let queue = self.delivery_queues.entry(id).or_default();
        queue.pending.push_back(delivery);
        queue.release_held();
        self.tasks.push(QueueTask { queue: id, delay: Duration::ZERO, release_held: false });
    }

    fn queue_for(&mut self, job_id: Option<u64>) -> u64 {
        job_id.unwrap_or_else(|| self.ids.queue())
    }

    pub(crate) fn record_attempt(&mut self, delivery: PendingDelivery, attempt: DeliveryAttempt) {
        let event = delivery.event;
        let earlier = self.deliveries.iter().filter(|earlier| earlier.guid == event.guid).count();
        let record = DeliveryRecord {
            id: self.ids.delivery(),
            guid: event.guid.clone(),
            attempt: u32::try_from(earlier).unwrap_or(u32::MAX).saturating_add(1),
            redelivery: delivery.redelivery,
            event: event.name.to_owned(),
            action: event.action.map(str::to_owned),
            repository: event.repository.clone(),
            job_id: event.job_id,
            delivered_at: Timestamp::now() - attempt.started.elapsed(),
            duration: attempt.duration.as_secs_f64(),
            status: attempt.status,
            status_code: attempt.status_code,
            request_headers: attempt.request_headers,
            response_headers: attempt.response_headers,
            response_body: attempt.response_body,
            source: event,
        };
        tracing::info!(
            delivery = %record.guid,
            event = %record.event,
            action = record.action.as_deref().unwrap_or_default(),
            job = record.job_id.unwrap_or_default(),
            status_code = record.status_code,
            status = %record.status,
            "webhook sent"
        );
        self.deliveries.push(record);
    }
}
