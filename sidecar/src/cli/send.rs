//! `edgerunner send`: a webhook from a file, for trying things.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use super::{
    delivery::{Delivery, webhook_url},
    output::print,
    runtime::wait_for,
};
use crate::config::Config;

#[derive(Args)]
pub(super) struct Arguments {
    /// Payload, JSON: one that GitHub shows under "Recent deliveries", for instance.
    file: PathBuf,
    /// Where to send it; github.webhook_url if left out.
    #[arg(long)]
    url: Option<String>,
    /// Name of the event, such as workflow_job.
    #[arg(long)]
    event: String,
}

pub(super) fn send(config: &Config, Arguments { file, url, event }: &Arguments) -> Result<()> {
    let payload = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let url = webhook_url(config, url.as_deref())?;
    let delivery = Delivery { url, event, payload: payload.into() };
    let answer = wait_for(delivery.send(config))?;
    print(&format!("delivery {}: {}\n{}\n", answer.guid, answer.status, answer.body.trim_end()))?;
    if !answer.status.is_success() {
        bail!("{url} did not accept it: {}", answer.remedy());
    }
    Ok(())
}
