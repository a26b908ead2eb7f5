//! `edgerunner webhook`: creates, lists, pings and redelivers webhooks at GitHub.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{
    block_on::block_on,
    output::{Output, Table, print},
    signed_webhook::{webhook_secret, webhook_url},
};
use crate::{
    config::Config,
    github::{
        self, ErrorKind, GitHub, RegisteredWebhook,
        clients::{app_client, client_for},
    },
};
use edgerunner_scheduler::{missed::WebhookId, model::Target};

/// Pages of deliveries that are searched.
const PAGES_MAX: usize = 30;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a webhook for job events that uses github.webhook_secret. GitHub then sends a
    /// ping.
    Create {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        /// URL that GitHub sends webhooks to. Defaults to github.webhook_url.
        #[arg(long)]
        url: Option<String>,
    },
    /// List the webhooks of a repository or an organization.
    List {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Make GitHub send a ping.
    Ping(WebhookArgument),
    /// Redeliver a webhook. GitHub keeps deliveries for 3 days.
    Redeliver {
        #[command(flatten)]
        hook: WebhookArgument,
        /// GUID of the delivery, as shown in logs and at GitHub.
        #[arg(value_name = "GUID")]
        delivery: String,
    },
}

#[derive(Args)]
pub(super) struct WebhookArgument {
    /// repos/OWNER/NAME/hooks/ID, orgs/LOGIN/hooks/ID, or app/hook for the webhook of a GitHub
    /// App. `list` shows them.
    #[arg(value_name = "HOOK")]
    id: WebhookId,
}

fn target(text: &str) -> Result<Target, String> {
    let text = text.to_ascii_lowercase();
    let target = match text.contains('/') {
        true => format!("repo:{text}"),
        false => format!("org:{text}"),
    };
    target.parse().map_err(|_| "write OWNER/NAME, or the login of an organization".to_owned())
}

impl Command {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Create { target, url } => {
                let (url, secret) = (webhook_url(config, url.as_deref())?, webhook_secret(config)?);
                let created = block_on(async {
                    let github = client_for(config, target)?;
                    with_advice(github.create_webhook(target, url, secret).await)
                })?;
                let hook = WebhookId::At { target: target.clone(), id: created.id };
                print(&format!("{hook} created: it sends to {url}.\n"))
            }
            Self::List { target, output } => {
                let get = || {
                    block_on(async {
                        with_advice(client_for(config, target)?.webhooks(target).await)
                    })
                };
                output.show(get, |webhooks| Ok(table(target, webhooks)))
            }
            Self::Ping(WebhookArgument { id }) => {
                block_on(async { with_advice(client_of(config, id)?.ping_webhook(id).await) })?;
                print(&format!(
                    "GitHub is sending a ping from {id}: see its recent deliveries at GitHub.\n"
                ))
            }
            Self::Redeliver { hook: WebhookArgument { id: hook }, delivery } => {
                block_on(async {
                    let github = client_of(config, hook)?;
                    let id = find(&github, hook, delivery).await?;
                    with_advice(github.redeliver(hook, id).await)
                })?;
                print(&format!("GitHub is redelivering {delivery}.\n"))
            }
        }
    }
}

fn client_of(config: &Config, hook: &WebhookId) -> Result<GitHub> {
    Ok(match hook {
        WebhookId::At { target, .. } => client_for(config, target)?,
        WebhookId::App => app_client(config)?,
    })
}

/// The ID of the latest attempt to deliver it.
async fn find(github: &GitHub, hook: &WebhookId, guid: &str) -> Result<u64> {
    let mut next = None;
    for _ in 0..PAGES_MAX {
        let page = with_advice(github.deliveries(hook, next.as_deref()).await)?;
        if let Some(found) = page.items.iter().find(|it| it.guid.eq_ignore_ascii_case(guid)) {
            return Ok(found.id);
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    anyhow::bail!(
        "{hook} has no delivery {guid}: does it belong to another webhook, or is it older than \
         3 days?"
    )
}

/// Adds the permission that is probably missing to an error.
fn with_advice<T>(result: Result<T, github::Error>) -> Result<T> {
    let refused =
        |error: &github::Error| matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound);
    match result {
        Err(error) if refused(&error) => Err(error).context(
            "the token needs the permission Webhooks: read and write (a classic token: the scope \
             admin:repo_hook or admin:org_hook)",
        ),
        other => Ok(other?),
    }
}

fn table(target: &Target, webhooks: &[RegisteredWebhook]) -> String {
    let mut table = Table::new(["WEBHOOK", "URL", "EVENTS", "ACTIVE"], &[]);
    for webhook in webhooks {
        table.push([
            WebhookId::At { target: target.clone(), id: webhook.id }.to_string(),
            webhook.config.url.clone(),
            webhook.events.join(" "),
            (if webhook.active { "yes" } else { "no" }).to_owned(),
        ]);
    }
    table.fitted()
}
