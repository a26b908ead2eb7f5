//! Deliveries of a webhook: what GitHub sent, and asking it to send that again.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::{
    Answer, Cause, Error, GitHub, Page, WebhookId, identity::Tokens, repository_path,
    runs::unix_ms, segment,
};
use edgerunner_scheduler::model::{Target, UnixMs};

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub id: u64,
    /// Of the event: every attempt at it has the same.
    pub guid: String,
    pub at: UnixMs,
    /// 0 if there was no answer.
    pub status: u16,
    pub event: String,
    /// Empty for events without one.
    pub action: String,
}

#[derive(Deserialize)]
struct Listed {
    id: u64,
    guid: String,
    delivered_at: String,
    status_code: u16,
    event: String,
    action: Option<String>,
}

impl GitHub {
    /// Newest first. `page` is what an earlier page named as the next.
    pub(crate) async fn deliveries(
        &self,
        hook: &WebhookId,
        page: Option<&str>,
    ) -> Result<Page<Delivery>, Error> {
        let call = format!("list of the deliveries of {hook}");
        let first = format!("{}/deliveries?per_page=100", path(hook));
        let answer = self.of_hook(&call, Method::GET, page.unwrap_or(&first), hook).await?;
        let page = self.page(&call, &answer, |reply: Vec<Listed>| reply)?;
        let items = page.items.into_iter().map(|listed| {
            Ok(Delivery {
                at: unix_ms(&call, &listed.delivered_at)?,
                id: listed.id,
                guid: listed.guid,
                status: listed.status_code,
                event: listed.event,
                action: listed.action.unwrap_or_default(),
            })
        });
        let items = items.collect::<Result<_, Error>>()?;
        Ok(Page { items, next: page.next, unchanged: page.unchanged })
    }

    /// Has the event sent once more, under its GUID. GitHub does so for 3 days.
    pub(crate) async fn redeliver(&self, hook: &WebhookId, delivery: u64) -> Result<(), Error> {
        let call = format!("redelivery of {delivery} of {hook}");
        let path = format!("{}/deliveries/{delivery}/attempts", path(hook));
        let answer = self.of_hook(&call, Method::POST, &path, hook).await?;
        match answer.status {
            StatusCode::ACCEPTED => Ok(()),
            _ => Err(self.client.error(&call, &answer)),
        }
    }

    pub(super) async fn of_hook(
        &self,
        call: &str,
        method: Method,
        path: &str,
        hook: &WebhookId,
    ) -> Result<Answer, Error> {
        match (hook, &*self.client.tokens) {
            (WebhookId::At { target, .. }, _) => {
                self.client.send(call, method, path, None, target).await
            }
            (WebhookId::App, Tokens::App(app)) => app.ask(&self.client, call, method, path).await,
            (WebhookId::App, Tokens::Personal(_)) => {
                let what = "only the GitHub App itself may: name its app_id and private key";
                Err(Error::new(Cause::Forbidden, call, what))
            }
        }
    }
}

pub(super) fn path(hook: &WebhookId) -> String {
    match hook {
        WebhookId::At { target: Target::Repository { owner, name }, id } => {
            format!("{}/hooks/{id}", repository_path(owner, name))
        }
        WebhookId::At { target: Target::Organization(login) | Target::Enterprise(login), id } => {
            format!("/orgs/{}/hooks/{id}", segment(login))
        }
        WebhookId::App => "/app/hook".to_owned(),
    }
}
