//! `edgerunner doctor`: checks everything that jobs need to run. It changes nothing without `--fix`.

mod addresses;
mod deliveries;
mod docker;
mod edge;
mod envoy;
mod fit;
mod fix;
mod github;
mod kubernetes;
mod mirrors;
mod notifications;
mod parked;
mod podman;
mod postgres;
mod reach;
mod report;
mod space;
mod swarm;
mod versions;
mod waiting;

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
    /// Fix what is safe to fix, after asking about each: pull missing images, create the webhook if
    /// there is none, and update Envoy's list of GitHub's addresses. Then check again.
    #[arg(long)]
    fix: bool,
    /// Fix without asking.
    #[arg(long, requires = "fix")]
    yes: bool,
}

pub(super) fn run(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    arguments: &Arguments,
) -> Result<()> {
    let mut report = Report::default();
    let Some(config) = examine(file, env, arguments, &mut report)? else {
        return report.finish(arguments.json);
    };
    let fixes = report.take_fixes();
    if !arguments.fix || fixes.is_empty() {
        return report.finish(arguments.json);
    }
    // Standard output has the result alone.
    eprint!("{}", anstream::adapter::strip_str(&report.to_table()));
    if !fix::apply(&fixes, &config, arguments.yes)? {
        return report.finish(arguments.json);
    }
    let mut again = Report::default();
    examine(file, env, arguments, &mut again)?;
    again.finish(arguments.json)
}

/// Checks everything. Returns the configuration if it is valid.
fn examine(
    file: Option<&Path>,
    env: &dyn Fn(&str) -> Option<String>,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<Option<Config>> {
    match Config::load_on_this_machine(file, env, &super::variables()) {
        Ok(config) => {
            let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
            report.ok("configuration", format!("pools: {}", pools.join(", ")));
            check(&config, file, arguments, report)?;
            Ok(Some(config))
        }
        Err(errors) => {
            for error in errors.0 {
                report.failed("configuration", error);
            }
            Ok(None)
        }
    }
}

fn check(
    config: &Config,
    file: Option<&Path>,
    arguments: &Arguments,
    report: &mut Report,
) -> Result<()> {
    let url = arguments.url.as_deref().or(config.github.webhook_url.as_deref());
    block_on(async {
        github::check(config, report).await;
        deliveries::check(config, url, report).await;
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
    let get = |path: &str| ready.is_ok().then(|| client.get(path));
    let (pools, status) = (get("/api/v1/pools"), get("/api/v1/status"));
    let description = get("/api/v1/openapi.json");
    report.add("sidecar", ready.map(|text| text.trim_end().to_owned()));
    versions::check_program(description.as_ref(), report);
    versions::check(pools.as_ref(), report);
    parked::check(config, pools.as_ref(), report);
    waiting::check(status.as_ref(), report);
    addresses::check(config, file, report);
    block_on(async {
        edge::check(config, url, report).await;
        Ok(())
    })
}
