//! `edgerunner jobs`, with `show`.

use std::fmt::Write as _;

use anyhow::Result;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use jiff::{Timestamp, tz::TimeZone};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, age, json, parse, print, printable},
};
use crate::{
    api::views::{JobHistoryView, JobStateView, JobView},
    control::{
        clock,
        snapshot::{PoolView, on_server},
    },
};
use edgerunner_scheduler::{
    model::{JobState, UnixMs},
    plan::Waiting,
};

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    /// Only jobs in this state.
    #[arg(long, value_parser = PossibleValuesParser::new(["queued", "in_progress", "completed"]))]
    state: Option<String>,
    /// Only jobs of this repository.
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// Only jobs that a runner of this pool took, and queued jobs that wait for this pool.
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Show at most this many jobs, 1 to 1,000.
    #[arg(long, default_value_t = 200, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything about a job, with all its attempts.
    Show {
        /// ID of the job, as shown by `edgerunner jobs` and in the job's URL at GitHub.
        id: u64,
        /// Print JSON instead of text.
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match &self.command {
            None => self.output.show(
                || list(self, |path| client.get(path)),
                |jobs| match jobs.is_empty() {
                    true => self.nothing_found(client),
                    false => self.table(jobs),
                },
            ),
            Some(Command::Show { id, json: as_json }) => {
                let attempts = client.get(&format!("/api/v1/jobs/{id}"))?;
                print(&if *as_json { json(&attempts)? } else { describe(attempts)? })
            }
        }
    }

    /// A pool that is not configured may be misspelt.
    fn nothing_found(&self, client: &Client) -> Result<String> {
        let mut text = "No jobs found.".to_owned();
        if let Some(wanted) = &self.pool {
            let pools: Vec<PoolView> = parse(client.get("/api/v1/pools")?)?;
            if pools.iter().all(|pool| pool.name != *wanted) {
                let names: Vec<String> = pools.into_iter().map(|pool| pool.name).collect();
                _ = write!(text, " There is no pool {wanted}; the pools are {}.", names.join(", "));
            }
        }
        Ok(printable(text) + "\n")
    }

    fn path(&self, state: Option<&str>) -> String {
        let mut path = format!("/api/v1/jobs?limit={}", self.limit);
        let parameters = [
            ("state", state),
            ("repository", self.repository.as_deref()),
            ("pool", self.pool.as_deref()),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                _ = write!(path, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        path
    }

    fn table(&self, jobs: &[Value]) -> Result<String> {
        let mut text = table(jobs, clock::now().wall)?.fitted();
        if jobs.len() == self.limit as usize {
            _ = writeln!(text, "\nOnly {} jobs are shown; use --limit for more.", jobs.len());
        }
        Ok(text)
    }
}

/// The jobs to show, as the API returns them: without a state, those that wait come first, the
/// oldest at the top, and then those that changed last.
fn list(arguments: &Arguments, get: impl Fn(&str) -> Result<Value>) -> Result<Vec<Value>> {
    let jobs = |state: Option<&str>| parse::<Vec<Value>>(get(&arguments.path(state))?);
    if let Some(state) = &arguments.state {
        return jobs(Some(state));
    }
    let mut listed = jobs(Some("queued"))?;
    listed.retain(|job| job["waiting"] != Waiting::NOT_SELF_HOSTED);
    let key = |job: &Value| ["id", "run_attempt", "host"].map(|name| job[name].to_string());
    let waiting: Vec<_> = listed.iter().map(key).collect();
    listed.extend(jobs(None)?.into_iter().filter(|job| !waiting.contains(&key(job))));
    listed.truncate(arguments.limit as usize);
    Ok(listed)
}

fn table(jobs: &[Value], now: UnixMs) -> Result<Table> {
    let names = [
        "NAME",
        "WORKFLOW",
        "REPOSITORY",
        "LABELS",
        "STATE",
        "AGE",
        "POOL",
        "RUNNER",
        "NODE",
        "DETAILS",
        "ID",
        "URL",
    ];
    let mut table = Table::new(names, &[4, 9])
        .cut(&[(0, 12), (1, 12), (2, 12), (3, 12), (6, 12), (8, 12), (9, 30)])
        .optional(&[11, 3, 1, 8, 7, 6, 2, 5])
        .if_any(8);
    let jobs = jobs.iter().map(|job| parse::<JobHistoryView>(job.clone()));
    let jobs = jobs.collect::<Result<Vec<_>>>()?;
    let hosts: Vec<String> = jobs.iter().map(|it| it.job.host.clone()).collect();
    for JobHistoryView { job, pool, node, .. } in jobs {
        table.push([
            job.name.clone(),
            job.workflow_name.clone(),
            on_server(&job.repository, &job.host, &hosts),
            job.labels.join(" "),
            state_of(&job).into(),
            age(changed(&job), now),
            pool.unwrap_or_default(),
            job.runner_name.clone(),
            node.unwrap_or_default(),
            details(&job),
            job.id.to_string(),
            job.html_url,
        ]);
    }
    Ok(table)
}

fn state_of(job: &JobView) -> &'static str {
    JobState::from(job.state).as_str()
}

/// When the job reached its state.
fn changed(job: &JobView) -> UnixMs {
    job.completed_ms.or(job.started_ms).unwrap_or(job.queued_ms)
}

/// Why it waits, or how it ended.
fn details(job: &JobView) -> String {
    match job.state {
        JobStateView::Queued => job.waiting_message.clone().unwrap_or_default(),
        JobStateView::InProgress => String::new(),
        JobStateView::Completed => job.conclusion.clone(),
    }
}

/// One block for each attempt.
fn describe(attempts: Value) -> Result<String> {
    let attempts: Vec<JobHistoryView> = parse(attempts)?;
    let now = clock::now().wall;
    let blocks: Vec<String> = attempts.iter().map(|attempt| block(attempt, now)).collect();
    Ok(blocks.join("\n"))
}

fn block(
    JobHistoryView { job, pool, node, launched_ms, container_ms }: &JobHistoryView,
    now: UnixMs,
) -> String {
    let time = |at: Option<UnixMs>| at.map(|at| moment(at, now)).unwrap_or_default();
    let waits = matches!(job.state, JobStateView::Queued);
    let from_fork = job.from_fork.map(|it| if it { "yes" } else { "no" });
    let rows = [
        ("Name", job.name.clone()),
        ("Workflow", job.workflow_name.clone()),
        ("Repository", job.repository.clone()),
        ("Server", job.host.clone()),
        ("Branch", job.head_branch.clone()),
        ("Labels", job.labels.join(", ")),
        ("State", state_of(job).to_owned()),
        ("Waits because", if waits { details(job) } else { String::new() }),
        ("Conclusion", job.conclusion.clone()),
        ("Pool", pool.clone().unwrap_or_default()),
        ("Runner", job.runner_name.clone()),
        ("Node", node.clone().unwrap_or_default()),
        ("Created", time(job.created_ms)),
        ("Queued", time(Some(job.queued_ms))),
        ("Launched", time(*launched_ms)),
        ("Container", time(*container_ms)),
        ("Started", time(job.started_ms)),
        ("Completed", time(job.completed_ms)),
        ("ID", job.id.to_string()),
        ("Attempt", job.run_attempt.to_string()),
        ("Run", job.run_id.to_string()),
        ("Visibility", job.visibility.clone().unwrap_or_default()),
        ("From a fork", from_fork.unwrap_or_default().to_owned()),
        ("URL", job.html_url.clone()),
        ("Delivery", job.delivery.clone()),
    ];
    rows.into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{:<15}{}\n", format!("{name}:"), printable(value)))
        .collect()
}

/// `2026-01-31 23:59:59 UTC (5 min ago)`.
fn moment(at: UnixMs, now: UnixMs) -> String {
    let time = i64::try_from(at).ok().and_then(|at| Timestamp::from_millisecond(at).ok());
    let time = time.map(|time| time.to_zoned(TimeZone::UTC).strftime("%F %T UTC").to_string());
    format!("{} ({} ago)", time.unwrap_or_default(), age(at, now))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli;

    fn arguments(options: &[&str]) -> Arguments {
        cli::arguments(options).unwrap()
    }

    fn is_refused(options: &[&str]) -> bool {
        cli::arguments::<Arguments>(options).is_err()
    }

    fn job(id: u64, state: &str, waiting: Option<&str>) -> Value {
        json!({
            "id": id, "run_attempt": 1, "state": state, "run_id": 9, "repository": "acme/app",
            "host": "github.com",
            "organization": "acme", "enterprise": "", "name": format!("build {id}"),
            "workflow_name": "CI", "head_branch": "main", "html_url": "https://github.com/x",
            "labels": ["self-hosted"], "conclusion": "", "runner_name": "", "delivery": "d",
            "created_ms": 1, "queued_ms": 1, "started_ms": null, "completed_ms": null,
            "waiting": waiting, "waiting_message": waiting, "pool": "default",
            "launched_ms": null, "container_ms": null,
        })
    }

    /// 114 jobs wait; 1,000 others changed after them, of which one is for GitHub's runners.
    fn answer(path: &str) -> Result<Value> {
        let limit: usize =
            path.split("limit=").nth(1).unwrap().split('&').next().unwrap().parse()?;
        let waiting = (1..=114).map(|id| job(id, "queued", Some("pool_max")));
        let hosted = || job(5_000, "queued", Some(Waiting::NOT_SELF_HOSTED));
        let done = (1_000..2_000).rev().map(|id| job(id, "completed", None));
        let listed: Vec<Value> = match path.contains("state=queued") {
            true => waiting.chain([hosted()]).take(limit).collect(),
            false => [hosted()].into_iter().chain(done).chain(waiting).take(limit).collect(),
        };
        Ok(listed.into())
    }

    fn ids(jobs: &[Value]) -> Vec<u64> {
        jobs.iter().map(|job| job["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn the_table_and_the_json_list_the_same_jobs_those_that_wait_first() {
        let jobs = list(&arguments(&[]), answer).unwrap();
        let expected: Vec<u64> = (1..=114).chain([5_000]).chain((1_915..2_000).rev()).collect();
        assert_eq!(ids(&jobs), expected);
        let printed: Vec<Value> = serde_json::from_str(&json(&jobs).unwrap()).unwrap();
        let shown = arguments(&[]).table(&jobs).unwrap();
        let shown = anstream::adapter::strip_str(&shown).to_string();
        let rows: Vec<u64> = shown
            .lines()
            .skip(1)
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().nth(1).unwrap().parse().unwrap())
            .collect();
        assert_eq!(rows, ids(&printed));
        assert!(shown.contains("Only 200 jobs are shown"), "{shown}");
    }

    #[test]
    fn the_filters_are_passed_on_and_the_limit_holds() {
        let asked = arguments(&["--state=queued", "--repository=acme/app", "--pool=large"]);
        let path = asked.path(asked.state.as_deref());
        assert_eq!(path, "/api/v1/jobs?limit=200&state=queued&repository=acme%2Fapp&pool=large");
        let some = list(&arguments(&["--limit", "3"]), answer).unwrap();
        assert_eq!(ids(&some), [1, 2, 3]);
        for wrong in ["--limit=0", "--limit=1001", "--state=running"] {
            assert!(is_refused(&[wrong]), "{wrong}");
        }
    }

    #[test]
    fn a_job_is_shown_with_its_url_and_the_reason_in_full() {
        let text =
            describe(json!([job(7, "queued", Some("the pool is at its max of 4"))])).unwrap();
        for part in [
            "Name:          build 7\n",
            "Workflow:      CI\n",
            "Labels:        self-hosted\n",
            "Waits because: the pool is at its max of 4\n",
            "Pool:          default\n",
            "Queued:        1970-01-01 00:00:00 UTC (",
            "URL:           https://github.com/x\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains("Runner:") && !text.contains("Node:"), "{text}");
    }

    #[test]
    fn a_job_that_ran_on_a_node_is_shown_with_it() {
        let mut done = job(7, "completed", None);
        (done["runner_name"], done["node"]) = ("edge-1".into(), "build-1".into());
        let text = describe(json!([done])).unwrap();
        assert!(text.contains("Runner:        edge-1\nNode:          build-1\n"), "{text}");
        let listed = |jobs: &[Value]| {
            let text = arguments(&[]).table(jobs).unwrap();
            anstream::adapter::strip_str(&text).to_string()
        };
        assert!(listed(&[done]).contains("build-1"));
        assert!(!listed(&[job(8, "queued", None)]).contains("NODE"));
    }
}
