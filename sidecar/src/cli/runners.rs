//! `edgerunner runners`, with `logs` and `remove`.

use anstream::adapter::strip_str;
use anyhow::Result;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, age, parse, print},
};
use crate::{
    api::views::RunnerHistoryView,
    control::{
        clock,
        snapshot::{RunnerView, on_server},
    },
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Also show runners that are gone: the 200 runners launched last.
    #[arg(long)]
    all: bool,
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
        /// Name of the runner, as shown by `edgerunner runners --all`.
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
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match &self.command {
            None => {
                let path = if self.all { "/api/v1/runners" } else { "/api/v1/runners?live=true" };
                self.output.show(|| client.get(path), |runners| table(runners, self.all))
            }
            Some(Command::Logs { name }) => {
                let log = client.text(&format!("{}/logs", path(name)))?;
                // The output of jobs must not control the terminal.
                print(&strip_str(&log).to_string())
            }
            Some(Command::Remove { name, force }) => {
                let view = client.delete(&format!("{}?force={force}", path(name)))?;
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

fn table(runners: &Value, all: bool) -> Result<String> {
    let runners: Vec<RunnerHistoryView> = parse(runners.clone())?;
    if runners.is_empty() {
        let hint = if all { "" } else { "; --all shows those that are gone" };
        return Ok(format!("No runners{hint}.\n"));
    }
    let now = clock::now().wall;
    let hosts: Vec<String> = runners.iter().map(|runner| runner.host.clone()).collect();
    let names = ["RUNNER", "POOL", "NODE", "TARGET", "PHASE", "LAUNCHED", "JOB", "REASON"];
    let mut table = Table::new(names, &[4])
        .cut(&[(1, 12), (2, 12), (3, 16), (7, 16)])
        .optional(&[3, 1, 5, 6, 2])
        .if_any(2);
    for runner in runners {
        let (phase, why) = match runner.unreachable_ms {
            Some(since) => {
                let no_answer = || format!("no answer from its node for {}", age(since, now));
                ("unreachable".to_owned(), runner.why.unwrap_or_else(no_answer))
            }
            None => (runner.phase, runner.why.unwrap_or_default()),
        };
        table.push([
            runner.name,
            runner.pool,
            runner.node.unwrap_or_default(),
            on_server(&runner.target, &runner.host, &hosts),
            phase,
            format!("{} ago", age(runner.created_ms, now)),
            runner.job.map(|job| job.id.to_string()).unwrap_or_default(),
            why,
        ]);
    }
    Ok(table.fitted())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_runner_whose_machine_does_not_answer_is_marked() {
        let runner = |name: &str| {
            json!({
                "name": name, "pool": "default", "node": "build-1", "host": "github.com",
                "target": "org:acme", "phase": "busy", "created_ms": 1, "started_ms": 2,
                "registration_id": 5, "job": { "id": 7, "run_attempt": 1 }, "why": null,
                "failed": false, "log": null, "gone_ms": null,
            })
        };
        let mut lost = runner("lost");
        lost["unreachable_ms"] = json!(clock::now().wall - 180_500);
        let shown = table(&json!([lost, runner("fine")]), false).unwrap();
        let shown = strip_str(&shown).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains(" unreachable ") && lines[1].contains(" 7 "), "{shown}");
        assert!(lines[1].ends_with("no answer from its node for 3 min"), "{shown}");
        assert!(lines[2].contains(" busy "), "{shown}");
    }
}
