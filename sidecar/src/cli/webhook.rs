//! `edgerunner webhook`: webhooks at GitHub.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};

use super::{
    delivery::{webhook_secret, webhook_url},
    output::{Output, Table, print},
    runtime::wait_for,
};
use crate::{
    config::Config,
    github::{
        self, ErrorKind, GitHub, RegisteredWebhook,
        clients::{app_client, client_for},
    },
};
use edgerunner_scheduler::missed::WebhookId;
use edgerunner_scheduler::model::Target;

/// Pages of deliveries that are looked through.
const PAGES_MAX: usize = 30;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create one that tells of jobs, with github.webhook_secret. GitHub sends it a ping.
    Create {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        /// Where to send webhooks to; github.webhook_url if left out.
        #[arg(long)]
        url: Option<String>,
    },
    /// List those of a repository or an organization.
    List {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Have GitHub send a ping.
    Ping(Which),
    /// Have GitHub send a delivery once more. It does so for 3 days.
    Redeliver {
        #[command(flatten)]
        which: Which,
        /// The delivery's GUID, as logs and GitHub show it.
        #[arg(value_name = "GUID")]
        delivery: String,
    },
}

#[derive(Args)]
pub(super) struct Which {
    /// repos/OWNER/NAME/hooks/ID, orgs/LOGIN/hooks/ID, or app/hook for a GitHub App's own;
    /// `list` shows them.
    hook: WebhookId,
}

fn target(text: &str) -> Result<Target, String> {
    let text = text.to_ascii_lowercase();
    let target = match text.contains('/') {
        true => format!("repo:{text}"),
        false => format!("org:{text}"),
    };
    target.parse().map_err(|_| "write OWNER/NAME, or an organization's login".to_owned())
}

impl Command {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Create { target, url } => {
                let (url, secret) = (webhook_url(config, url.as_deref())?, webhook_secret(config)?);
                let created = wait_for(async {
                    let github = client_for(config, target)?;
                    advised(github.create_webhook(target, url, secret).await)
                })?;
                let hook = WebhookId::At { target: target.clone(), id: created.id };
                print(&format!("{hook} sends to {url} from now on.\n"))
            }
            Self::List { target, output } => {
                let ask = || {
                    wait_for(async { advised(client_for(config, target)?.webhooks(target).await) })
                };
                output.show(ask, |webhooks| Ok(table(target, webhooks)))
            }
            Self::Ping(Which { hook }) => {
                wait_for(async { advised(of(config, hook)?.ping_webhook(hook).await) })?;
                print(&format!("GitHub sends a ping by {hook}; see its recent deliveries there.\n"))
            }
            Self::Redeliver { which: Which { hook }, delivery } => {
                wait_for(async {
                    let github = of(config, hook)?;
                    let id = find(&github, hook, delivery).await?;
                    advised(github.redeliver(hook, id).await)
                })?;
                print(&format!("GitHub sends {delivery} once more.\n"))
            }
        }
    }
}

fn of(config: &Config, hook: &WebhookId) -> Result<GitHub> {
    Ok(match hook {
        WebhookId::At { target, .. } => client_for(config, target)?,
        WebhookId::App => app_client(config)?,
    })
}

/// The latest attempt at it.
async fn find(github: &GitHub, hook: &WebhookId, guid: &str) -> Result<u64> {
    let mut next = None;
    for _ in 0..PAGES_MAX {
        let page = advised(github.deliveries(hook, next.as_deref()).await)?;
        if let Some(found) = page.items.iter().find(|it| it.guid.eq_ignore_ascii_case(guid)) {
            return Ok(found.id);
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    anyhow::bail!("{hook} has no delivery {guid}: is it of another webhook, or older than 3 days?")
}

fn advised<T>(result: Result<T, github::Error>) -> Result<T> {
    let refused =
        |error: &github::Error| matches!(error.kind, ErrorKind::Forbidden | ErrorKind::NotFound);
    match result {
        Err(error) if refused(&error) => Err(error).context(
            "the token needs Webhooks: read and write there (a classic one: admin:repo_hook or \
             admin:org_hook)",
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
