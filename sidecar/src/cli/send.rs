//! `edgerunner send`: sends a webhook from a file, for tests.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{
    block_on::block_on,
    output::print,
    signed_webhook::{self, SignedWebhook, webhook_url},
};
use crate::config::Config;

#[derive(Args)]
pub(super) struct Arguments {
    /// File with the payload in JSON, for example one from "Recent deliveries" at GitHub.
    file: PathBuf,
    /// URL to send it to. Defaults to github.webhook_url.
    #[arg(long, value_parser = signed_webhook::url)]
    url: Option<String>,
    /// Name of the event, such as workflow_job.
    #[arg(long)]
    event: String,
}

pub(super) fn send(config: &Config, Arguments { file, url, event }: &Arguments) -> Result<()> {
    let payload = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let url = webhook_url(config, url.as_deref())?;
    let webhook = SignedWebhook { url, event, payload: payload.into() };
    let response = block_on(webhook.send(config))?;
    let body = response.body.trim_end();
    print(&format!("delivery {}: {}\n{body}\n", response.guid, response.status))?;
    if !response.status.is_success() {
        bail!("{url} rejected the webhook: {}", response.remedy());
    }
    Ok(())
}
