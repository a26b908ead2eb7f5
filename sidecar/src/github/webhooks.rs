//! Webhooks of a repository or an organization: listing, creating and testing them.

use http::{Method, StatusCode, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{Error, GitHub, client::json, path};
use edgerunner_scheduler::{missed::WebhookId, model::Target};

/// The only event that runners depend on.
pub(crate) const WEBHOOK_EVENT: &str = "workflow_job";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegisteredWebhook {
    pub id: u64,
    pub active: bool,
    pub events: Vec<String>,
    pub config: WebhookConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebhookConfig {
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub content_type: String,
}

impl RegisteredWebhook {
    /// Whether it sends to this URL, however that is written.
    pub(crate) fn sends_to(&self, url: &str) -> bool {
        // Host names have no case, and an empty path is `/`.
        let parts = |url: &str| {
            let url: Uri = url.parse().ok()?;
            let scheme = url.scheme_str()?.to_ascii_lowercase();
            let port = url.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
            let path = url.path_and_query().map_or("/", |path| path.as_str());
            Some((
                scheme,
                url.host()?.to_ascii_lowercase(),
                port,
                path.trim_end_matches('/').to_owned(),
            ))
        };
        let own = &self.config.url;
        own == url || (parts(own).is_some() && parts(own) == parts(url))
    }
}

impl GitHub {
    pub(crate) async fn webhooks(&self, target: &Target) -> Result<Vec<RegisteredWebhook>, Error> {
        let call = format!("listing the webhooks of {target}");
        let path = format!("{}?per_page=100", path::webhooks(&call, target)?);
        let pages: Vec<Vec<RegisteredWebhook>> = self.pages(&call, path, target).await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// GitHub sends a ping at once. It rejects a second webhook with the same URL and events.
    pub(crate) async fn create_webhook(
        &self,
        target: &Target,
        url: &str,
        secret: &SecretString,
    ) -> Result<RegisteredWebhook, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            name: &'static str,
            active: bool,
            events: [&'static str; 1],
            config: Config<'a>,
        }
        #[derive(Serialize)]
        struct Config<'a> {
            url: &'a str,
            content_type: &'static str,
            insecure_ssl: &'static str,
            secret: &'a str,
        }
        let call = format!("creating a webhook of {target}");
        let path = path::webhooks(&call, target)?;
        let secret = secret.expose_secret();
        let config = Config { url, content_type: "json", insecure_ssl: "0", secret };
        let body =
            json(&call, &Request { name: "web", active: true, events: [WEBHOOK_EVENT], config })?;
        let response = self.send(&call, Method::POST, &path, Some(body), target).await?;
        let created = self.client.read(&call, &response, StatusCode::CREATED);
        created.map_err(|error| error.redacted(secret))
    }

    /// Makes GitHub send a `ping`, as it does for a new webhook.
    pub(crate) async fn ping_webhook(&self, webhook: &WebhookId) -> Result<(), Error> {
        let call = format!("pinging {webhook}");
        let path = format!("{}/pings", path::webhook(webhook));
        let response = self.send_for_webhook(&call, Method::POST, &path, webhook).await?;
        match response.status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.client.error(&call, &response)),
        }
    }
}
