//! Deliveries of a webhook: listing them, and redelivery.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{Error, ErrorKind, GitHub, Page, answer::Answer, jobs::unix_ms, path, token::Tokens};
use edgerunner_scheduler::missed::WebhookId;
use edgerunner_scheduler::model::UnixMs;

/// One attempt to deliver an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeliveryAttempt {
    pub id: u64,
    /// The same for every attempt to deliver an event.
    pub guid: String,
    pub at: UnixMs,
    /// 0 without an answer.
    pub status: u16,
    pub event: String,
    /// Empty for events without one.
    pub action: String,
}

impl GitHub {
    /// Newest first. `page` is the `next` of the page before.
    pub(crate) async fn deliveries(
        &self,
        webhook: &WebhookId,
        page: Option<&str>,
    ) -> Result<Page<DeliveryAttempt>, Error> {
        #[derive(Deserialize)]
        struct Listed {
            id: u64,
            guid: String,
            delivered_at: String,
            status_code: u16,
            event: String,
            action: Option<String>,
        }
        let call = format!("listing the deliveries of {webhook}");
        let first = format!("{}/deliveries?per_page=100", path::webhook(webhook));
        let path = page.unwrap_or(&first);
        let answer = self.send_for_webhook(&call, Method::GET, path, webhook).await?;
        Page::read(&self.client, &call, &answer, |reply: Vec<Listed>| {
            let attempts = reply.into_iter().map(|listed| {
                Ok(DeliveryAttempt {
                    at: unix_ms(&call, &listed.delivered_at)?,
                    id: listed.id,
                    guid: listed.guid,
                    status: listed.status_code,
                    event: listed.event,
                    action: listed.action.unwrap_or_default(),
                })
            });
            attempts.collect()
        })
    }

    /// Has GitHub deliver the event once more, with its GUID. GitHub does so for 3 days.
    pub(crate) async fn redeliver(&self, webhook: &WebhookId, attempt: u64) -> Result<(), Error> {
        let call = format!("redelivering {attempt} of {webhook}");
        let path = format!("{}/deliveries/{attempt}/attempts", path::webhook(webhook));
        let answer = self.send_for_webhook(&call, Method::POST, &path, webhook).await?;
        match answer.status {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.client.error(&call, &answer)),
        }
    }

    /// Sends a request with the token for a webhook, or as the App that owns it.
    pub(super) async fn send_for_webhook(
        &self,
        call: &str,
        method: Method,
        path: &str,
        webhook: &WebhookId,
    ) -> Result<Answer, Error> {
        match (webhook, &*self.tokens) {
            (WebhookId::At { target, .. }, _) => self.send(call, method, path, None, target).await,
            (WebhookId::App, Tokens::App(app)) => app.send(&self.client, call, method, path).await,
            (WebhookId::App, Tokens::Personal(_)) => {
                let problem = "only the GitHub App itself may: set app_id and app_private_key_file";
                Err(Error::new(ErrorKind::Forbidden, call, problem))
            }
        }
    }
}
