//! `edgerunner webhook`: creates, lists, pings and redelivers webhooks at GitHub.

#[cfg(test)]
mod tests;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use http::StatusCode;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::{
    block_on::block_on,
    output::{Output, Table, Width, print},
    signed_webhook::{self, remedy, webhook_secret, webhook_url},
};
use crate::{
    config::Config,
    github::{
        self, ErrorKind, GitHub, RegisteredWebhook, WEBHOOK_EVENT,
        clients::{app_client, client_for},
    },
};
use edgerunner_scheduler::{
    missed::{DeliveryAttempt, WebhookId},
    model::Target,
};

/// Pages of deliveries that are searched.
const PAGES_MAX: usize = 30;
/// How long to wait until GitHub lists a delivery. It does so once the delivery has ended, for
/// which it allows 10 s.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const ANSWER_POLL: Duration = Duration::from_secs(1);

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a webhook for job events that uses github.webhook_secret, and show how GitHub's
    /// ping was answered. If there is one with this URL already, name it and change nothing.
    Create {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        /// URL that GitHub sends webhooks to. Defaults to github.webhook_url.
        #[arg(long, value_parser = signed_webhook::url)]
        url: Option<String>,
    },
    /// List the webhooks of a repository or an organization.
    List {
        #[arg(value_parser = target, value_name = "OWNER/NAME | ORGANIZATION")]
        target: Target,
        #[command(flatten)]
        output: Output,
    },
    /// Make GitHub send a ping, and show how it was answered.
    Ping {
        /// repos/OWNER/NAME/hooks/ID or orgs/LOGIN/hooks/ID. `list` shows them.
        #[arg(value_name = "HOOK", value_parser = pingable)]
        hook: WebhookId,
    },
    /// Redeliver a webhook, and show how it was answered. GitHub keeps deliveries for 3 days.
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

/// A webhook, and the name that `ping` and `redeliver` take.
#[derive(Serialize)]
struct ListedWebhook {
    path: String,
    #[serde(flatten)]
    webhook: RegisteredWebhook,
}

fn target(text: &str) -> Result<Target, String> {
    let text = text.to_ascii_lowercase();
    let target = match text.contains('/') {
        true => format!("repo:{text}"),
        false => format!("org:{text}"),
    };
    target.parse().map_err(|_| "write OWNER/NAME, or the login of an organization".to_owned())
}

fn pingable(text: &str) -> Result<WebhookId, String> {
    match text.parse::<WebhookId>() {
        Ok(WebhookId::App) => {
            Err("GitHub cannot ping the webhook of a GitHub App: to test it, use \
                                   `edgerunner doctor`, or `edgerunner webhook redeliver app/hook` \
                                   with the GUID of an earlier delivery"
                .to_owned())
        }
        Ok(hook) => Ok(hook),
        Err(_) => Err("write repos/OWNER/NAME/hooks/ID or orgs/LOGIN/hooks/ID".to_owned()),
    }
}

impl Command {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Create { target, url } => create(config, target, url.as_deref(), ANSWER_LIMIT),
            Self::List { target, output } => {
                let paths = |webhooks: &Vec<ListedWebhook>| {
                    webhooks.iter().map(|webhook| webhook.path.clone()).collect()
                };
                output.show(
                    || list(config, target),
                    paths,
                    |webhooks, width| Ok(table(webhooks, width)),
                )
            }
            Self::Ping { hook } => ping(config, hook, ANSWER_LIMIT),
            Self::Redeliver { hook: WebhookArgument { id }, delivery } => {
                redeliver(config, id, delivery, ANSWER_LIMIT)
            }
        }
    }
}

/// `limit`: how long to wait for the answer to the ping.
fn create(config: &Config, target: &Target, url: Option<&str>, limit: Duration) -> Result<()> {
    let (url, secret) = (webhook_url(config, url)?, webhook_secret(config)?);
    let id = |webhook: &RegisteredWebhook| WebhookId::At { target: target.clone(), id: webhook.id };
    block_on(async {
        let github = client_for(config, target)?;
        // GitHub itself rejects a second one only if its secret and events are the same too.
        let webhooks = with_advice(github.webhooks(target).await)?;
        if let Some(known) = webhooks.iter().find(|known| known.sends_to(url)) {
            return already_there(&id(known), known);
        }
        let hook = id(&with_advice(github.create_webhook(target, url, secret).await)?);
        print(&format!("{hook} created: it sends to {url}.\n"))?;
        let answer = answer(&github, &hook, limit, |attempt| attempt.event == "ping").await?;
        report("GitHub's ping", &hook, answer)
    })
}

/// Fails if the webhook sends no job events.
fn already_there(hook: &WebhookId, webhook: &RegisteredWebhook) -> Result<()> {
    let url = &webhook.config.url;
    let at_github = "change it at GitHub, or delete it there and create it again";
    if !webhook.active {
        bail!("{hook} exists and sends to {url}, but it is not active: {at_github}");
    }
    if !webhook.events.iter().any(|event| event == WEBHOOK_EVENT || event == "*") {
        bail!("{hook} exists and sends to {url}, but not the event {WEBHOOK_EVENT}: {at_github}");
    }
    print(&format!(
        "{hook} exists already: it sends to {url}. Test it with `edgerunner webhook ping {hook}`.\n"
    ))
}

fn list(config: &Config, target: &Target) -> Result<Vec<ListedWebhook>> {
    let webhooks =
        block_on(async { with_advice(client_for(config, target)?.webhooks(target).await) })?;
    let listed = webhooks.into_iter().map(|webhook| {
        let path = WebhookId::At { target: target.clone(), id: webhook.id }.to_string();
        ListedWebhook { path, webhook }
    });
    Ok(listed.collect())
}

fn ping(config: &Config, hook: &WebhookId, limit: Duration) -> Result<()> {
    block_on(async {
        let github = client_of(config, hook)?;
        let earlier = with_advice(github.deliveries(hook, None).await)?.items;
        with_advice(github.ping_webhook(hook).await)?;
        let answer = answer(&github, hook, limit, |attempt| {
            attempt.event == "ping" && !earlier.iter().any(|known| known.id == attempt.id)
        });
        report("GitHub's ping", hook, answer.await?)
    })
}

fn redeliver(config: &Config, hook: &WebhookId, guid: &str, limit: Duration) -> Result<()> {
    block_on(async {
        let github = client_of(config, hook)?;
        let id = find(&github, hook, guid).await?;
        let earlier = with_advice(github.deliveries(hook, None).await)?.items;
        with_advice(github.redeliver(hook, id).await)?;
        let answer = answer(&github, hook, limit, |attempt| {
            attempt.guid.eq_ignore_ascii_case(guid)
                && !earlier.iter().any(|known| known.id == attempt.id)
        });
        report(&format!("the redelivery of {guid}"), hook, answer.await?)
    })
}

/// Waits for the delivery that `wanted` describes. `None`: GitHub did not list it within `limit`.
async fn answer(
    github: &GitHub,
    hook: &WebhookId,
    limit: Duration,
    wanted: impl Fn(&DeliveryAttempt) -> bool,
) -> Result<Option<DeliveryAttempt>> {
    let deadline = Instant::now() + limit;
    loop {
        let page = with_advice(github.deliveries(hook, None).await)?;
        if let Some(found) = page.items.into_iter().find(&wanted) {
            return Ok(Some(found));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        sleep(ANSWER_POLL.min(limit)).await;
    }
}

/// Fails unless the delivery was answered with success.
fn report(what: &str, hook: &WebhookId, answer: Option<DeliveryAttempt>) -> Result<()> {
    let Some(DeliveryAttempt { status, .. }) = answer else {
        bail!(
            "{what} is on its way, but GitHub does not list how it was answered yet: see the recent \
             deliveries of {hook} at GitHub"
        );
    };
    match StatusCode::from_u16(status) {
        Ok(status) if status.is_success() => {
            let what = what.replacen("the ", "The ", 1);
            print(&format!("{what} was answered {}.\n", status.as_u16()))
        }
        _ => bail!("{what} was answered {status}: {}", delivery_problem(hook, status)),
    }
}

/// What is wrong if GitHub lists a delivery with this status, and what to do.
pub(super) fn delivery_problem(hook: &WebhookId, status: u16) -> String {
    match StatusCode::from_u16(status) {
        // GitHub's own codes for a delivery without a response.
        Ok(StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT) | Err(_) => format!(
            "GitHub did not reach Envoy. Check that the URL of {hook} leads to Envoy, also from the \
             Internet"
        ),
        Ok(StatusCode::FORBIDDEN) => {
            "Envoy's list of GitHub's IP ranges is out of date (run `edgerunner github-addresses`), \
             or the filter does not accept this repository"
                .to_owned()
        }
        Ok(code) => remedy(code).to_owned(),
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
    bail!(
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

fn table(webhooks: &[ListedWebhook], width: Width) -> String {
    if webhooks.is_empty() {
        return "No webhooks.\n".to_owned();
    }
    let names = ["WEBHOOK", "URL", "EVENTS", "ACTIVE"];
    let mut table = Table::new(names, &[]).cut(&[(1, 20), (2, 12)]).optional(&[2]);
    for ListedWebhook { path, webhook } in webhooks {
        table.push([
            path.clone(),
            webhook.config.url.clone(),
            webhook.events.join(" "),
            (if webhook.active { "yes" } else { "no" }).to_owned(),
        ]);
    }
    table.within(width)
}
