//! `edgerunner report`.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, anyhow};
use clap::{Args, builder::PossibleValuesParser};
use jiff::{Span, SpanRelativeTo};
use serde_json::Value;

use super::{
    client::Client,
    output::{Form, Table, Width, age, names_in, parse, print, printable},
};
use crate::{
    api::report::{LeftOutView, ReportByView, ReportGroupView, ReportView},
    control::{clock, snapshot::on_server},
    store::{DAY_MS, HISTORY_KEPT_DAYS},
};
use edgerunner_scheduler::model::UnixMs;

const MINUTE_MS: f64 = 60_000.0;
const MIB: f64 = 1_048_576.0;

#[derive(Args)]
pub(super) struct Arguments {
    /// Only jobs that were completed in this time until now, such as 12h, 7d or 5w: at most 35d,
    /// because older jobs are deleted.
    #[arg(long, default_value = "7d", value_name = "DURATION", value_parser = period)]
    since: UnixMs,
    /// What to group jobs by. A job counts for each of its labels.
    #[arg(long, default_value = "repository",
        value_parser = PossibleValuesParser::new(["repository", "workflow", "pool", "label"]))]
    by: String,
    /// Price of a minute, in any currency: adds what the minutes cost.
    #[arg(long, value_name = "NUMBER", value_parser = price)]
    price: Option<f64>,
    /// Print CSV instead of a table.
    #[arg(long, conflicts_with_all = ["format", "wide", "json"])]
    csv: bool,
    #[command(flatten)]
    form: Form,
}

/// In milliseconds.
fn period(text: &str) -> Result<UnixMs, String> {
    let span: Span =
        text.parse().map_err(|_| "expected a duration such as 12h or 7d".to_owned())?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours());
    let duration = duration.map_err(|_| "use weeks, days, hours or minutes".to_owned())?;
    match u64::try_from(duration.as_millis()) {
        Ok(ms @ 1..) if ms <= HISTORY_KEPT_DAYS * DAY_MS => Ok(ms),
        Ok(1..) => Err(format!("at most {HISTORY_KEPT_DAYS}d: older jobs are deleted")),
        _ => Err("the duration must be longer than zero".to_owned()),
    }
}

fn price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err("expected a number such as 0.008".to_owned()),
    }
}

impl Arguments {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        let since = clock::now().wall.saturating_sub(self.since);
        let report = client.get(&format!("/api/v1/report?by={}&since_ms={since}", self.by))?;
        if self.csv {
            return print(&self.csv(parse(report)?)?);
        }
        self.form.print(
            &self.with_costs(report)?,
            |report| names_in(&report["groups"], "name"),
            |report, width| Ok(self.describe(parse(report.clone())?, width)),
        )
    }

    fn cost(&self, group: &ReportGroupView) -> Option<f64> {
        self.price.map(|price| minutes(group) * price)
    }

    fn with_costs(&self, mut report: Value) -> Result<Value> {
        let Some(price) = self.price else { return Ok(report) };
        let add = |group: &mut Value| -> Result<()> {
            let view: ReportGroupView = parse(group.clone())?;
            group["cost"] = self.cost(&view).into();
            Ok(())
        };
        report["price_per_minute"] = price.into();
        if !report["total"].is_null() {
            add(&mut report["total"])?;
        }
        let groups = report["groups"].as_array_mut().context("the report has no groups")?;
        groups.iter_mut().try_for_each(add)?;
        Ok(report)
    }

    fn describe(&self, report: ReportView, width: Width) -> String {
        let Some(total) = &report.total else {
            return format!("No jobs were completed.{}\n", left_out(&report.left_out));
        };
        let mut table = self.table(&report.groups);
        table.push(self.row("all jobs".to_owned(), total));
        let mut text = table.within(width);
        if report.more {
            _ = writeln!(text, "\nOnly the {} that ran longest are shown.", report.groups.len());
        }
        let rest = left_out(&report.left_out);
        if !rest.is_empty() {
            _ = writeln!(text, "\n{}", rest.trim_start());
        }
        text
    }

    fn table(&self, groups: &[ReportGroupView]) -> Table {
        let names = [
            self.heading(),
            "JOBS",
            "MINUTES",
            "WAITED",
            "P95",
            "FAILED",
            "OUT OF MEMORY",
            "MEMORY, MIB",
            "CPUS",
            "COST",
        ];
        let table = Table::new(names, &[]).cut(&[(0, 16)]).optional(&[8, 7, 6, 4]);
        let mut table = table.if_any(6).if_any(7).if_any(8).if_any(9);
        let hosts: Vec<String> = groups.iter().filter_map(|group| group.host.clone()).collect();
        for group in groups {
            table.push(self.row(shown_name(group, &hosts), group));
        }
        table
    }

    fn heading(&self) -> &'static str {
        match &*self.by {
            "workflow" => "WORKFLOW",
            "pool" => "POOL",
            "label" => "LABEL",
            _ => "REPOSITORY",
        }
    }

    fn row(&self, name: String, group: &ReportGroupView) -> [String; 10] {
        [
            name,
            group.jobs.to_string(),
            format!("{:.1}", minutes(group)),
            age(0, group.waited_median_ms),
            age(0, group.waited_p95_ms),
            group.failed.to_string(),
            number(group.out_of_memory),
            memory_mib(group),
            cpus(group),
            self.cost(group).map(|cost| format!("{cost:.2}")).unwrap_or_default(),
        ]
    }

    fn csv(&self, report: ReportView) -> Result<String> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let of_group: &[&str] = match report.by {
            ReportByView::Repository => &["host", "repository"],
            ReportByView::Workflow => &["host", "repository", "workflow"],
            ReportByView::Pool => &["pool"],
            ReportByView::Label => &["label"],
        };
        let numbers = [
            "jobs",
            "minutes",
            "waited_median_seconds",
            "waited_p95_seconds",
            "failed",
            "out_of_memory",
            "memory_peak_mib",
            "cpus_peak",
            "cost",
        ];
        let columns = if self.price.is_some() { &numbers[..] } else { &numbers[..8] };
        writer.write_record(of_group.iter().chain(columns))?;
        for group in &report.groups {
            let [host, repository] =
                [&group.host, &group.repository].map(|it| it.clone().unwrap_or_default());
            let names = match report.by {
                ReportByView::Repository => vec![host, group.name.clone()],
                ReportByView::Workflow => vec![host, repository, group.name.clone()],
                ReportByView::Pool | ReportByView::Label => vec![group.name.clone()],
            };
            let seconds = |ms: u64| format!("{:.1}", ms as f64 / 1000.0);
            let numbers = [
                group.jobs.to_string(),
                format!("{:.2}", minutes(group)),
                seconds(group.waited_median_ms),
                seconds(group.waited_p95_ms),
                group.failed.to_string(),
                number(group.out_of_memory),
                memory_mib(group),
                cpus(group),
            ];
            let cost = self.cost(group).map(|cost| format!("{cost:.4}"));
            writer.write_record(names.into_iter().map(plain).chain(numbers).chain(cost))?;
        }
        let text = writer.into_inner().map_err(|error| anyhow!("{error}"))?;
        Ok(String::from_utf8(text)?)
    }
}

fn minutes(group: &ReportGroupView) -> f64 {
    group.ran_ms as f64 / MINUTE_MS
}

fn number(known: Option<u64>) -> String {
    known.map(|number| number.to_string()).unwrap_or_default()
}

fn memory_mib(group: &ReportGroupView) -> String {
    group.memory_peak_bytes.map(|bytes| format!("{:.0}", bytes as f64 / MIB)).unwrap_or_default()
}

fn cpus(group: &ReportGroupView) -> String {
    group.cpu_peak_millis.map(|millis| format!("{:.1}", millis as f64 / 1000.0)).unwrap_or_default()
}

fn shown_name(group: &ReportGroupView, hosts: &[String]) -> String {
    let host = group.host.as_deref().unwrap_or_default();
    match (&group.repository, &*group.name) {
        (Some(repository), name) => {
            format!("{}: {}", on_server(repository, host, hosts), or_none(name))
        }
        (None, name) => on_server(or_none(name), host, hosts),
    }
}

fn or_none(name: &str) -> &str {
    if name.is_empty() { "(no name)" } else { name }
}

/// Empty if no jobs are left out.
fn left_out(left: &LeftOutView) -> String {
    let rows = [
        (left.never_started, "never started"),
        (left.on_other_runners, "ran on other runners"),
        (left.without_times, "have no known start or end"),
    ];
    let rows: Vec<String> = rows
        .iter()
        .filter(|(jobs, _)| *jobs > 0)
        .map(|(jobs, what)| format!("{jobs} {what}"))
        .collect();
    match rows.is_empty() {
        true => String::new(),
        false => format!(" Jobs that are left out: {}.", rows.join(", ")),
    }
}

/// Text that no spreadsheet takes for a formula: anyone who can write a workflow names it.
fn plain(text: String) -> String {
    let text = printable(text);
    match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text,
    }
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

    fn group(name: &str, ran_ms: u64) -> Value {
        json!({
            "name": name, "repository": "acme/app", "host": "github.com", "jobs": 2,
            "ran_ms": ran_ms, "waited_median_ms": 1_500, "waited_p95_ms": 9_000, "failed": 1,
            "out_of_memory": null, "memory_peak_bytes": 3 * 1_048_576, "cpu_peak_millis": 1_500,
        })
    }

    fn report() -> Value {
        json!({
            "by": "workflow", "since_ms": 1, "until_ms": 2,
            "groups": [group("CI, \"all\"", 90_000), group("=cmd()", 30_000)], "more": false,
            "total": group("", 120_000),
            "left_out": { "never_started": 3, "on_other_runners": 0, "without_times": 1 },
        })
    }

    #[test]
    fn durations_and_prices_that_make_no_sense_are_refused() {
        assert_eq!(arguments(&[]).since, 7 * DAY_MS);
        assert_eq!(arguments(&["--since=5w"]).since, 35 * DAY_MS);
        assert_eq!(arguments(&["--since", "1h 30m"]).since, 5_400_000);
        for wrong in ["--since=36d", "--since=0d", "--since=1mo", "--since=-1d", "--since=soon"] {
            assert!(is_refused(&[wrong]), "{wrong}");
        }
        for wrong in ["--price=-1", "--price=NaN", "--price=much", "--by=user"] {
            assert!(is_refused(&[wrong]), "{wrong}");
        }
        assert!(is_refused(&["--json", "--csv"]) && is_refused(&["-oyaml", "--csv"]));
    }

    #[test]
    fn the_table_ends_with_all_jobs_and_says_what_is_left_out() {
        let asked = arguments(&["--by=workflow", "--price=2"]);
        let text = asked.describe(parse(report()).unwrap(), Width::FULL);
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("WORKFLOW") && lines[0].contains("COST"), "{text}");
        assert!(!lines[0].contains("OUT OF MEMORY"), "{text}");
        assert!(
            lines[1].starts_with("acme/app: CI, \"all\"") && lines[1].ends_with("3.00"),
            "{text}"
        );
        assert!(lines[3].starts_with("all jobs"), "{text}");
        assert!(lines[3].contains("2.0") && lines[3].ends_with("4.00"), "{text}");
        let rest = "Jobs that are left out: 3 never started, 1 have no known start or end.";
        assert_eq!(lines[5], rest);
    }

    #[test]
    fn csv_has_a_row_for_each_group_and_no_formulas() {
        let text = arguments(&["--by=workflow"]).csv(parse(report()).unwrap()).unwrap();
        let expected = "\
host,repository,workflow,jobs,minutes,waited_median_seconds,waited_p95_seconds,failed,out_of_memory,memory_peak_mib,cpus_peak
github.com,acme/app,\"CI, \"\"all\"\"\",2,1.50,1.5,9.0,1,,3,1.5
github.com,acme/app,'=cmd(),2,0.50,1.5,9.0,1,,3,1.5
";
        assert_eq!(text, expected);
    }

    #[test]
    fn json_has_costs_only_with_a_price() {
        assert_eq!(arguments(&[]).with_costs(report()).unwrap(), report());
        let priced = arguments(&["--price=2"]).with_costs(report()).unwrap();
        assert_eq!(priced["price_per_minute"], 2.0);
        assert_eq!(
            (&priced["groups"][0]["cost"], &priced["total"]["cost"]),
            (&json!(3.0), &json!(4.0))
        );
    }
}
