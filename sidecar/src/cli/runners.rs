//! `edgerunner runners`, with `logs` and `remove`.

use std::collections::HashMap;

use anstream::adapter::strip_str;
use anyhow::Result;
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, age, names_in, parse, print},
};
use crate::{
    api::views::{JobHistoryView, RunnerHistoryView},
    control::{
        clock,
        snapshot::{RunnerView, on_server},
    },
};

/// Jobs among which the names of the runners' jobs are searched.
const JOBS_MAX: usize = 1_000;

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
                let describe = |runners: &Value, width| {
                    let runners: Vec<RunnerHistoryView> = parse(runners.clone())?;
                    match runners.is_empty() {
                        true => Ok(self.nothing_found()),
                        false => Ok(table(runners, &self.jobs(client)?).within(width)),
                    }
                };
                self.output.show(|| client.get(path), |runners| names_in(runners, "name"), describe)
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

    fn nothing_found(&self) -> String {
        let hint = if self.all { "" } else { "; --all shows those that are gone" };
        format!("No runners{hint}.\n")
    }

    /// Those that the runners may have: people think of a job by its name.
    fn jobs(&self, client: &Client) -> Result<Vec<JobHistoryView>> {
        let state = if self.all { "" } else { "&state=in_progress" };
        parse(client.get(&format!("/api/v1/jobs?limit={JOBS_MAX}{state}"))?)
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

/// Names come first, IDs last.
pub(super) fn table(runners: Vec<RunnerHistoryView>, jobs: &[JobHistoryView]) -> Table {
    let now = clock::now().wall;
    let hosts: Vec<String> = runners.iter().map(|runner| runner.host.clone()).collect();
    let names_of: HashMap<(u64, u32, &str), &str> = jobs
        .iter()
        .map(|JobHistoryView { job, .. }| ((job.id, job.run_attempt, &*job.host), &*job.name))
        .collect();
    let names =
        ["RUNNER", "PHASE", "POOL", "NODE", "TARGET", "JOB", "LAUNCHED", "REASON", "JOB ID"];
    let mut table = Table::new(names, &[1])
        .cut(&[(2, 12), (3, 12), (4, 16), (5, 12), (7, 16)])
        .optional(&[4, 6, 2, 8, 3, 5])
        .if_any(3)
        .if_any(5);
    for runner in runners {
        let (phase, why) = match runner.unreachable_ms {
            Some(since) => {
                let no_answer = || format!("no answer from its node for {}", age(since, now));
                ("unreachable".to_owned(), runner.why.unwrap_or_else(no_answer))
            }
            None => (runner.phase, runner.why.unwrap_or_default()),
        };
        let name = runner.job.and_then(|job| {
            names_of.get(&(job.id, job.run_attempt, &*runner.host)).map(|name| (*name).to_owned())
        });
        table.push([
            runner.name,
            phase,
            runner.pool,
            runner.node.unwrap_or_default(),
            on_server(&runner.target, &runner.host, &hosts),
            name.unwrap_or_default(),
            format!("{} ago", age(runner.created_ms, now)),
            why,
            runner.job.map(|job| job.id.to_string()).unwrap_or_default(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::output::Width;

    fn runner(name: &str) -> RunnerHistoryView {
        let runner = json!({
            "name": name, "pool": "default", "node": "build-1", "host": "github.com",
            "target": "org:acme", "phase": "busy", "created_ms": 1, "started_ms": 2,
            "registration_id": 5, "job": { "id": 7, "run_attempt": 1 }, "why": null,
            "failed": false, "log": null, "gone_ms": null,
        });
        parse(runner).unwrap()
    }

    #[test]
    fn a_runner_is_listed_with_the_name_of_its_job_and_one_whose_machine_is_silent_is_marked() {
        let lost = RunnerHistoryView {
            unreachable_ms: Some(clock::now().wall - 180_500),
            ..runner("lost")
        };
        let jobs = [parse(crate::cli::jobs::tests::job(7, "in_progress", None)).unwrap()];
        let shown = table(vec![lost, runner("fine")], &jobs).within(Width::FULL);
        let shown = strip_str(&shown).to_string();
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("lost    unreachable  default"), "{shown}");
        assert!(lines[1].contains("  build 7  "), "{shown}");
        assert!(lines[1].ends_with("no answer from its node for 3 min  7"), "{shown}");
        assert!(lines[2].starts_with("fine    busy "), "{shown}");
        let unknown = table(vec![runner("fine")], &[]).within(Width::FULL);
        assert!(!unknown.contains("JOB  ") && unknown.contains("JOB ID"), "{unknown}");
    }
}
