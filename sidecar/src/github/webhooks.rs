//! Webhooks of a repository or an organization: what there are, making one, trying one.

use http::{Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::{Cause, Error, GitHub, WebhookId, deliveries::path, repository_path, segment};
use edgerunner_scheduler::model::Target;

/// What runners follow from, and all that is asked for.
const EVENT: &str = "workflow_job";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub id: u64,
    pub active: bool,
    pub events: Vec<String>,
    pub config: Config,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    pub url: String,
    #[serde(default)]
    pub content_type: String,
}

impl GitHub {
    pub(crate) async fn webhooks(&self, target: &Target) -> Result<Vec<Webhook>, Error> {
        let call = format!("list of the webhooks of {target}");
        let path = format!("{}?per_page=100", hooks_path(&call, target)?);
        let pages: Vec<Vec<Webhook>> = self.client.pages(&call, path, target).await?;
        Ok(pages.into_iter().flatten().collect())
    }

    /// GitHub sends a ping at once. It refuses a second one for the same URL and events.
    pub(crate) async fn create_webhook(
        &self,
        target: &Target,
        url: &str,
        secret: &SecretString,
    ) -> Result<Webhook, Error> {
        #[derive(Serialize)]
        struct Request<'a> {
            name: &'static str,
            active: bool,
            events: [&'static str; 1],
            config: NewConfig<'a>,
        }
        #[derive(Serialize)]
        struct NewConfig<'a> {
            url: &'a str,
            content_type: &'static str,
            insecure_ssl: &'static str,
            secret: &'a str,
        }
        let call = format!("creation of a webhook of {target}");
        let path = hooks_path(&call, target)?;
        let secret = secret.expose_secret();
        let config = NewConfig { url, content_type: "json", insecure_ssl: "0", secret };
        let request = Request { name: "web", active: true, events: [EVENT], config };
        let body = serde_json::to_vec(&request)
            .map_err(|error| Error::new(Cause::Invalid, &call, error))?;
        let answer = self.client.send(&call, Method::POST, &path, Some(body), target).await?;
        let created = self.client.read(&call, &answer, StatusCode::CREATED);
        created.map_err(|error| error.without(secret))
    }

    /// Has a `ping` sent, as a new webhook gets one.
    pub(crate) async fn ping_webhook(&self, hook: &WebhookId) -> Result<(), Error> {
        let call = format!("ping of {hook}");
        let path = format!("{}/pings", path(hook));
        let answer = self.of_hook(&call, Method::POST, &path, hook).await?;
        match answer.status {
            StatusCode::NO_CONTENT => Ok(()),
            _ => Err(self.client.error(&call, &answer)),
        }
    }
}

fn hooks_path(call: &str, target: &Target) -> Result<String, Error> {
    match target {
        Target::Repository { owner, name } => Ok(format!("{}/hooks", repository_path(owner, name))),
        Target::Organization(login) => Ok(format!("/orgs/{}/hooks", segment(login))),
        Target::Enterprise(_) => {
            let what = "GitHub's API has none for an enterprise: set it up in its settings";
            Err(Error::new(Cause::Forbidden, call, what))
        }
    }
}
