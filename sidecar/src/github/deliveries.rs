//! Deliveries of a webhook: listing them, and redelivery.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{
    Error, ErrorKind, GitHub, jobs::unix_ms, page, path, response::Response, token::Tokens,
};
use edgerunner_scheduler::missed::{DeliveryAttempt, Page, WebhookId};

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
        let response = self.send_for_webhook(&call, Method::GET, path, webhook).await?;
        page::read(&self.client, &call, &response, |reply: Vec<Listed>| {
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

    /// Makes GitHub redeliver the event, with the same GUID. Possible for 3 days.
    pub(crate) async fn redeliver(&self, webhook: &WebhookId, attempt: u64) -> Result<(), Error> {
        let call = format!("redelivering {attempt} of {webhook}");
        let path = format!("{}/deliveries/{attempt}/attempts", path::webhook(webhook));
        let response = self.send_for_webhook(&call, Method::POST, &path, webhook).await?;
        match response.status {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.client.error(&call, &response)),
        }
    }

    /// Sends a request with the token for a webhook, or as the App that owns it.
    pub(super) async fn send_for_webhook(
        &self,
        call: &str,
        method: Method,
        path: &str,
        webhook: &WebhookId,
    ) -> Result<Response, Error> {
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
