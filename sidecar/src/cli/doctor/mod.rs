//! `edgerunner doctor`: everything that jobs need to run, looked at once. Changes nothing.

mod docker;
mod edge;
mod github;
mod report;
mod space;

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::{client, runtime::wait_for};
use crate::config::Config;
use report::Report;

#[derive(Args)]
pub(super) struct Options {
    /// Where GitHub sends webhooks to: a signed ping is sent there. github.webhook_url if
    /// left out.
    #[arg(long)]
    url: Option<String>,
    /// Print JSON instead of lines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    options: &Options,
) -> Result<()> {
    let mut report = Report::default();
    match Config::load_to_serve(file, env) {
        Ok(config) => {
            let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
            report.ok("configuration", format!("pools: {}", pools.join(", ")));
            look(&config, options, &mut report)?;
        }
        Err(mistakes) => {
            for mistake in mistakes.0 {
                report.failed("configuration", mistake);
            }
        }
    }
    report.end(options.json)
}

fn look(config: &Config, options: &Options, report: &mut Report) -> Result<()> {
    wait_for(async {
        github::look(config, report).await;
        docker::look(config, report).await;
        Ok(())
    })?;
    space::look_at_store(config, report);
    report.note("sidecar", client::text(config, "/readyz").map(|told| told.trim_end().to_owned()));
    wait_for(async {
        edge::look(config, options.url.as_deref(), report).await;
        Ok(())
    })
}
