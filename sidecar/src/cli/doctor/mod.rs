//! `edgerunner doctor`: checks everything that jobs need to run. It changes nothing.

mod docker;
mod edge;
mod envoy;
mod fit;
mod github;
mod kubernetes;
mod mirrors;
mod notifications;
mod parked;
mod podman;
mod postgres;
mod report;
mod space;
mod swarm;
mod versions;

use std::path::Path;

use anyhow::Result;
use clap::Args;

use super::{block_on::block_on, client::Client, signed_webhook};
use crate::config::Config;
use report::Report;

#[derive(Args)]
pub(super) struct Arguments {
    /// Public URL of the webhook, to send a signed ping to. Defaults to github.webhook_url.
    #[arg(long, value_parser = signed_webhook::url)]
    url: Option<String>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    arguments: &Arguments,
) -> Result<()> {
    let mut report = Report::default();
    match Config::load_on_this_machine(file, env, &super::variables()) {
        Ok(config) => {
            let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
            report.ok("configuration", format!("pools: {}", pools.join(", ")));
            check(&config, arguments, &mut report)?;
        }
        Err(errors) => {
            for error in errors.0 {
                report.failed("configuration", error);
            }
        }
    }
    report.finish(arguments.json)
}

fn check(config: &Config, arguments: &Arguments, report: &mut Report) -> Result<()> {
    block_on(async {
        github::check(config, report).await;
        docker::check(config, report).await;
        mirrors::check(config, report).await;
        swarm::check(config, report).await;
        kubernetes::check(config, report).await;
        notifications::check(config, report).await;
        Ok(())
    })?;
    match &config.database {
        None => space::check_store(config, report),
        Some(database) => block_on(async {
            postgres::check(database, report).await;
            Ok(())
        })?,
    }
    let client = Client::new(config, None);
    let ready = client.text("/readyz");
    let pools = ready.is_ok().then(|| client.get("/api/v1/pools"));
    report.add("sidecar", ready.map(|text| text.trim_end().to_owned()));
    versions::check(pools.as_ref(), report);
    parked::check(config, pools.as_ref(), report);
    block_on(async {
        edge::check(config, arguments.url.as_deref(), report).await;
        Ok(())
    })
}
