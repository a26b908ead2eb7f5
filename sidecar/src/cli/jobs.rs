//! `edgerunner jobs`, with `show`.

mod show;

use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::{
    browser,
    client::Client,
    output::{Form, Output, Table, Width, age, names_in, parse, printable},
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
    /// Only jobs with this label in runs-on.
    #[arg(long, value_name = "LABEL")]
    label: Option<String>,
    /// Show at most this many jobs, 1 to 1,000.
    #[arg(long, default_value_t = 200, value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Open the status page with these jobs in your browser, or print its address.
    #[arg(long)]
    web: bool,
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
        /// Open the job at GitHub in your browser, or print its address.
        #[arg(long)]
        web: bool,
        #[command(flatten)]
        form: Form,
    },
}

impl Arguments {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match &self.command {
            None if self.web => browser::open_or_print(&self.page(client.url())),
            None => self.output.show(
                || list(self, |path| client.get(path)),
                |jobs| names_in(jobs, "id"),
                |jobs, width| match jobs.as_array().is_none_or(Vec::is_empty) {
                    true => self.nothing_found(client),
                    false => self.table(jobs, width),
                },
            ),
            Some(Command::Show { id, web, form }) => {
                let attempts = client.get(&format!("/api/v1/jobs/{id}"))?;
                if *web {
                    let url = attempts[0]["html_url"].as_str().filter(|url| !url.is_empty());
                    let url = url.context("GitHub has sent no address of this job")?;
                    return browser::open_or_print(url);
                }
                let name = |_: &Value| vec![id.to_string()];
                form.print(&attempts, name, |attempts, _| show::describe(attempts))
            }
        }
    }

    /// The address of the status page that lists the jobs.
    fn page(&self, url: &str) -> String {
        let choices = [
            ("jobs", &self.state),
            ("repository", &self.repository),
            ("pool", &self.pool),
            ("label", &self.label),
        ];
        let query: Vec<String> = choices
            .into_iter()
            .filter_map(|(name, value)| {
                let value = value.as_ref()?;
                Some(format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
            })
            .collect();
        match query.is_empty() {
            true => format!("{url}/"),
            false => format!("{url}/?{}", query.join("&")),
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
            ("label", self.label.as_deref()),
        ];
        for (name, value) in parameters {
            if let Some(value) = value {
                _ = write!(path, "&{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC));
            }
        }
        path
    }

    fn table(&self, jobs: &Value, width: Width) -> Result<String> {
        let jobs: Vec<JobHistoryView> = parse(jobs.clone())?;
        let mut text = table(&jobs, clock::now().wall).within(width);
        if jobs.len() == self.limit as usize {
            _ = writeln!(text, "\nOnly {} jobs are shown; use --limit for more.", jobs.len());
        }
        Ok(text)
    }
}

/// The jobs to show, as the API returns them: without a state, those that wait come first, the
/// oldest at the top, and then those that changed last.
fn list(arguments: &Arguments, get: impl Fn(&str) -> Result<Value>) -> Result<Value> {
    let jobs = |state: Option<&str>| parse::<Vec<Value>>(get(&arguments.path(state))?);
    if let Some(state) = &arguments.state {
        return Ok(jobs(Some(state))?.into());
    }
    let mut listed = jobs(Some("queued"))?;
    listed.retain(|job| job["waiting"] != Waiting::NOT_SELF_HOSTED);
    let key = |job: &Value| ["id", "run_attempt", "host"].map(|name| job[name].to_string());
    let waiting: Vec<_> = listed.iter().map(key).collect();
    listed.extend(jobs(None)?.into_iter().filter(|job| !waiting.contains(&key(job))));
    listed.truncate(arguments.limit as usize);
    Ok(listed.into())
}

/// Names come first, IDs last.
pub(super) fn table(jobs: &[JobHistoryView], now: UnixMs) -> Table {
    let names = [
        "NAME",
        "REPOSITORY",
        "WORKFLOW",
        "STATE",
        "POOL",
        "LABELS",
        "WAITED",
        "RAN",
        "DETAILS",
        "NODE",
        "URL",
        "ID",
    ];
    let mut table = Table::new(names, &[3])
        .cut(&[(0, 12), (1, 12), (2, 12), (4, 8), (5, 12), (8, 20), (9, 12)])
        .optional(&[10, 5, 9, 2, 4, 7, 1])
        .if_any(7)
        .if_any(9);
    let hosts: Vec<String> = jobs.iter().map(|it| it.job.host.clone()).collect();
    for JobHistoryView { job, pool, node, .. } in jobs {
        table.keep(8, &job.runner_name);
        table.push([
            job.name.clone(),
            on_server(&job.repository, &job.host, &hosts),
            job.workflow_name.clone(),
            state_of(job).to_owned(),
            pool.clone().unwrap_or_default(),
            job.labels.join(" "),
            waited(job, now),
            ran(job, now).unwrap_or_default(),
            details(job).to_owned(),
            node.clone().unwrap_or_default(),
            job.html_url.clone(),
            job.id.to_string(),
        ]);
    }
    table
}

/// How it ended, once it has.
fn state_of(job: &JobView) -> &str {
    match job.state {
        JobStateView::Completed if !job.conclusion.is_empty() => &job.conclusion,
        state => JobState::from(state).as_str(),
    }
}

/// For a runner, or until it ended without one.
fn waited(job: &JobView, now: UnixMs) -> String {
    age(job.queued_ms, job.started_ms.or(job.completed_ms).unwrap_or(now))
}

/// `None`: it never started.
fn ran(job: &JobView, now: UnixMs) -> Option<String> {
    Some(age(job.started_ms?, job.completed_ms.unwrap_or(now)))
}

/// Why it waits, or the runner that took it.
fn details(job: &JobView) -> &str {
    match job.state {
        JobStateView::Queued => job.waiting_message.as_deref().unwrap_or_default(),
        JobStateView::InProgress | JobStateView::Completed => &job.runner_name,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli;

    fn arguments(options: &[&str]) -> Arguments {
        cli::arguments(options).unwrap()
    }

    fn is_refused(options: &[&str]) -> bool {
        cli::arguments::<Arguments>(options).is_err()
    }

    pub(in crate::cli) fn job(id: u64, state: &str, waiting: Option<&str>) -> Value {
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

    fn ids(jobs: &Value) -> Vec<u64> {
        jobs.as_array().unwrap().iter().map(|job| job["id"].as_u64().unwrap()).collect()
    }

    fn listed(jobs: &[Value], width: Width) -> String {
        let text = arguments(&[]).table(&jobs.to_vec().into(), width).unwrap();
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn the_table_and_the_json_list_the_same_jobs_those_that_wait_first() {
        let jobs = list(&arguments(&[]), answer).unwrap();
        let expected: Vec<u64> = (1..=114).chain([5_000]).chain((1_915..2_000).rev()).collect();
        assert_eq!(ids(&jobs), expected);
        let shown = listed(jobs.as_array().unwrap(), Width::FULL);
        let rows: Vec<u64> = shown
            .lines()
            .skip(1)
            .take_while(|line| !line.is_empty())
            .map(|line| line.split_whitespace().last().unwrap().parse().unwrap())
            .collect();
        assert_eq!(rows, ids(&jobs));
        assert!(shown.contains("Only 200 jobs are shown"), "{shown}");
    }

    #[test]
    fn the_filters_are_passed_on_and_the_limit_holds() {
        let options = ["--state=queued", "--repository=acme/app", "--pool=large", "--label=a b"];
        let asked = arguments(&options);
        let path = asked.path(asked.state.as_deref());
        let query = "limit=200&state=queued&repository=acme%2Fapp&pool=large&label=a%20b";
        assert_eq!(path, format!("/api/v1/jobs?{query}"));
        let some = list(&arguments(&["--limit", "3"]), answer).unwrap();
        assert_eq!(ids(&some), [1, 2, 3]);
        for wrong in ["--limit=0", "--limit=1001", "--state=running"] {
            assert!(is_refused(&[wrong]), "{wrong}");
        }
    }

    #[test]
    fn the_status_page_is_opened_with_the_filters() {
        let page = |options: &[&str]| arguments(options).page("http://edge:8081");
        assert_eq!(page(&["--web"]), "http://edge:8081/");
        let options = ["--web", "--state=queued", "--repository=acme/app", "--label=gpu"];
        let expected = "http://edge:8081/?jobs=queued&repository=acme%2Fapp&label=gpu";
        assert_eq!(page(&options), expected);
    }

    #[test]
    fn names_come_first_and_ids_last_and_a_narrow_terminal_cuts_text_but_no_id() {
        let mut running = job(57_012_345_678, "in_progress", None);
        running["name"] = "build (ubuntu, stable, all features of everything)".into();
        (running["runner_name"], running["started_ms"]) =
            ("edge-default-1a2b".into(), 61_001.into());
        let mut done = job(8, "completed", None);
        (done["conclusion"], done["completed_ms"]) = ("failure".into(), 5_001.into());
        let jobs = [job(7, "queued", Some("the pool is at its max of 4")), running, done];
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let full = listed(&jobs, Width::FULL);
        let lines: Vec<String> = full.lines().map(words).collect();
        let header = "NAME REPOSITORY WORKFLOW STATE POOL LABELS WAITED RAN DETAILS URL ID";
        assert_eq!(lines[0], header);
        assert!(lines[1].starts_with("build 7 acme/app CI queued default self-hosted "), "{full}");
        assert!(
            lines[1].ends_with(" the pool is at its max of 4 https://github.com/x 7"),
            "{full}"
        );
        assert!(lines[2].contains(" in_progress default self-hosted 61 s "), "{full}");
        assert!(
            lines[2].ends_with(" edge-default-1a2b https://github.com/x 57012345678"),
            "{full}"
        );
        assert!(lines[3].contains(" failure default self-hosted 5 s "), "{full}");
        let narrow = listed(&jobs, Width::columns(80));
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(narrow.contains("…") && narrow.contains(" 57012345678\n"), "{narrow}");
        assert!(narrow.contains(" edge-default-1a2b "), "other commands take it: {narrow}");
        assert!(!narrow.contains("https://"), "{narrow}");
    }

    #[test]
    fn the_node_has_a_column_if_there_is_one() {
        let mut done = job(7, "completed", None);
        done["node"] = "build-1".into();
        assert!(listed(&[done], Width::FULL).contains("build-1"));
        assert!(!listed(&[job(8, "queued", None)], Width::FULL).contains("NODE"));
    }
}
