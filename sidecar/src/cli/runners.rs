//! `edgerunner runners`, with `logs` and `remove`.

use anstream::adapter::strip_str;
use anyhow::Result;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    client,
    output::{Output, Table, age, parse, print},
};
use crate::{
    api::views::RunnerHistoryView,
    config::Config,
    control::{
        clock,
        snapshot::{RunnerView, on_server},
    },
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print the last 100 lines of a runner's log. For removed runners, only the logs of those
    /// that failed are kept.
    Logs {
        /// Name of the runner, as shown by `edgerunner runners`.
        name: String,
    },
    /// Remove a runner: its registration at GitHub and its container. If it is still needed, a
    /// new one is launched; drain the pool first to prevent that.
    Remove {
        /// Name of the runner, as shown by `edgerunner runners`.
        name: String,
        /// Even if it is running a job (the job will fail) or being launched, and without
        /// waiting for GitHub.
        #[arg(long)]
        force: bool,
    },
}

impl Arguments {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        match &self.command {
            None => self.output.show(|| client::get(config, "/api/v1/runners"), table),
            Some(Command::Logs { name }) => {
                let log = client::text(config, &format!("{}/logs", path(name)))?;
                // The output of jobs must not control the terminal.
                print(&strip_str(&log).to_string())
            }
            Some(Command::Remove { name, force }) => {
                let view = client::delete(config, &format!("{}?force={force}", path(name)))?;
                print(&removal(name, &parse(view)?))
            }
        }
    }
}

/// What becomes of a runner after a request to remove it.
fn removal(name: &str, RunnerView { phase, why, .. }: &RunnerView) -> String {
    match (phase.as_str(), why) {
        ("gone", _) => format!("{name} is removed.\n"),
        ("leaving", Some(why)) => format!("{name} is being removed: {why}.\n"),
        ("leaving", None) => format!("{name} is being removed.\n"),
        (phase, Some(why)) => format!("{name} is {phase}: {why}.\n"),
        (phase, None) => format!("{name} is {phase}.\n"),
    }
}

fn path(name: &str) -> String {
    format!("/api/v1/runners/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
}

fn table(runners: &Value) -> Result<String> {
    let runners: Vec<RunnerHistoryView> = parse(runners.clone())?;
    let now = clock::now().wall;
    let hosts: Vec<String> = runners.iter().map(|runner| runner.host.clone()).collect();
    let names = ["RUNNER", "POOL", "TARGET", "PHASE", "LAUNCHED", "JOB", "REASON"];
    let mut table = Table::new(names, &[3]);
    for runner in runners {
        table.push([
            runner.name,
            runner.pool,
            on_server(&runner.target, &runner.host, &hosts),
            runner.phase,
            format!("{} ago", age(runner.created_ms, now)),
            runner.job.map(|job| job.id.to_string()).unwrap_or_default(),
            runner.why.unwrap_or_default(),
        ]);
    }
    Ok(table.fitted())
}
