//! Metrics, and their use in the shipped alert rules and the dashboard.

use std::collections::BTreeSet;
use std::process::Stdio;

use anyhow::{Context as _, Result, anyhow, ensure};
use edgerunner_testkit::postgres::Postgres;
use edgerunner_tests::tools::promtool;
use edgerunner_tests::{Options, Stack, eventually};
use prometheus_parse::Scrape;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

const RULES: &str = include_str!("../../../packaging/prometheus/alerts.yaml");
const DASHBOARD: &str = include_str!("../../../packaging/grafana/dashboard.json");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");
const OPERATIONS_PATH: &str = "docs/operations.md";

/// Labels and a series that Prometheus itself adds.
const TARGET_LABELS: [&str; 2] = ["instance", "job"];
const UP: &str = "up";

/// Findings of `promtool check metrics` in Envoy's metrics. A filter's metrics have no help
/// and only integers, and Envoy adds no suffix to counters.
const ENVOY_HABITS: [&str; 3] = [
    "no help text",
    r#"counter metrics should have "_total" suffix"#,
    r#"metric names should not contain abbreviated units"#,
];

async fn check_metrics(metrics: &str) -> Result<Vec<String>> {
    let mut command = promtool()?;
    let mut promtool = command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = promtool.stdin.take().context("no stdin")?;
    stdin.write_all(metrics.as_bytes()).await?;
    drop(stdin);
    let output = promtool.wait_with_output().await?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    // 3: valid, with findings.
    ensure!(matches!(output.status.code(), Some(0 | 3)), "{text}\n{metrics}");
    Ok(text.lines().map(str::to_owned).collect())
}

/// The filter's metrics among Envoy's.
fn of_the_filter(metrics: &str) -> String {
    let ours = |line: &&str| {
        let name = line.strip_prefix("# TYPE ").unwrap_or(line);
        name.starts_with("edgerunner_")
    };
    metrics.lines().filter(ours).flat_map(|line| [line, "\n"]).collect()
}

/// The metrics of the sidecar and the filter after a job.
async fn exported(stack: &Stack) -> Result<(String, String)> {
    let job = stack.queue(0.1);
    stack.completed(job).await?;
    stack.settled().await?;
    let sidecar = eventually("the runner is known to be gone", async || {
        let text = stack.sidecar.metrics().await?;
        Ok(text.contains("edgerunner_runners_gone_total{").then_some(text))
    })
    .await?;
    Ok((sidecar, of_the_filter(&stack.envoy.prometheus().await?)))
}

/// The counters of pools with `egress` are exported before there is a runner.
const POOLS: &str = r#"
[[pools]]
name = "default"
network = "host"

[[pools]]
name = "closed"
labels = ["closed"]
egress = ["github.com"]

[[pools]]
name = "observed"
labels = ["observed"]
egress_mode = "observe"
"#;

fn options() -> Options {
    Options::default()
        .new_envoy()
        .sidecar("MISSED_WEBHOOKS_ENABLED", "true")
        .sidecar("DOCKER_NETWORK", "")
        .file(POOLS)
}

#[tokio::test]
async fn promtool_finds_nothing() {
    Stack::run(options(), async |stack| -> Result<()> {
        let (sidecar, filter) = exported(stack).await?;
        let found = check_metrics(&sidecar).await?;
        ensure!(found.is_empty(), "{found:#?}");
        let mut found = check_metrics(&filter).await?;
        for habit in ENVOY_HABITS {
            ensure!(found.iter().any(|line| line.ends_with(habit)), "no more {habit}: {found:#?}");
        }
        found.retain(|line| !ENVOY_HABITS.iter().any(|habit| line.ends_with(habit)));
        ensure!(found.is_empty(), "{found:#?}");

        let once = |sample: &str| sidecar.contains(&format!("{sample} 1\n"));
        ensure!(once(r#"edgerunner_job_queue_seconds_count{pool="default"}"#), "{sidecar}");
        for stage in ["image", "turn", "credentials", "container", "online"] {
            let labels = format!(r#"{{pool="default",stage="{stage}"}}"#);
            ensure!(once(&format!("edgerunner_launch_stage_seconds_count{labels}")), "{sidecar}");
        }
        // Closed addresses are refused there, too. Without the 0, `increase` would miss the first.
        for (reason, mode) in [
            ("host", "observe"),
            ("server_name", "observe"),
            ("address", "enforce"),
            ("request", "enforce"),
        ] {
            let labels = format!(r#"{{pool="observed",reason="{reason}",mode="{mode}"}}"#);
            let sample = format!("edgerunner_egress_denied_total{labels} 0\n");
            ensure!(sidecar.contains(&sample), "no {sample} in {sidecar}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_failure_and_a_long_wait_show() {
    let options = Options::default().sidecar("DOCKER_RUNNER_IMAGE", "edgerunner/missing:none");
    Stack::run(options, async |stack| -> Result<()> {
        let job = stack.queue(0.1);
        stack.waits_for(job, "back_off").await?;
        eventually("the metrics show it", async || {
            let text = stack.sidecar.metrics().await?;
            let value = |sample: &str| -> Result<f64> {
                let line = text.lines().find_map(|line| line.strip_prefix(sample));
                Ok(line.with_context(|| format!("no {sample} in {text}"))?.trim().parse()?)
            };
            let shown = value(r#"edgerunner_back_offs{cause="image"}"#)? == 1.0
                && value(r#"edgerunner_jobs_waiting{reason="back_off"}"#)? == 1.0
                && value(r#"edgerunner_jobs_waiting_longest_seconds{reason="back_off"}"#)? > 1.0;
            Ok(shown.then_some(()))
        })
        .await?;
        stack.sandbox.cancel_job(job)?;
        Ok(())
    })
    .await;
}

/// The queries in a document: the values of `expr`, and of a variable's `query`.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match (name.as_str(), value.as_str()) {
                    ("expr", Some(text)) => found.push(text.replace("$__rate_interval", "5m")),
                    ("query", Some(text)) => {
                        let arguments = text
                            .strip_prefix("label_values(")
                            .and_then(|rest| rest.strip_suffix(')')?.split_once(", "));
                        if let Some((metric, label)) = arguments {
                            found.push(format!("sum by ({label}) ({metric})"));
                        }
                    }
                    _ => queries(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

/// The series and labels in a query.
#[derive(Default)]
struct Queried {
    selectors: Vec<VectorSelector>,
    grouped_by: BTreeSet<String>,
}

impl ExprVisitor for Queried {
    type Error = anyhow::Error;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool> {
        match expression {
            Expr::VectorSelector(selector) => self.selectors.push(selector.clone()),
            Expr::MatrixSelector(matrix) => self.selectors.push(matrix.vs.clone()),
            Expr::Aggregate(aggregate) => {
                if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) =
                    &aggregate.modifier
                {
                    self.grouped_by.extend(labels.labels.iter().cloned());
                }
            }
            _ => {}
        }
        Ok(true)
    }
}

/// The values in a matcher, without variables of the dashboard.
fn named(matcher: &Matcher) -> Vec<&str> {
    let values: Vec<&str> = match &matcher.op {
        MatchOp::Equal | MatchOp::NotEqual => vec![matcher.value.as_str()],
        MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
    };
    values.into_iter().filter(|value| !value.starts_with('$')).collect()
}

fn check_query(query: &str, exported: &Scrape) -> Result<()> {
    let expression = parser::parse(query).map_err(|error| anyhow!("{error}"))?;
    let mut queried = Queried::default();
    walk_expr(&mut queried, &expression)?;
    let mut labels: BTreeSet<String> = TARGET_LABELS.map(str::to_owned).into();
    for selector in &queried.selectors {
        let name = selector.name.as_deref().context("a selector without a name")?;
        let samples = || exported.samples.iter().filter(|sample| sample.metric == name);
        ensure!(name == UP || samples().next().is_some(), "{name} is not exported");
        labels.extend(samples().flat_map(|sample| sample.labels.keys().cloned()));
        for matcher in selector.matchers.matchers.iter().filter(|_| name != UP) {
            let label = matcher.name.as_str();
            ensure!(samples().any(|it| it.labels.get(label).is_some()), "{name} has no {label}");
            for value in named(matcher) {
                let found = samples().any(|sample| sample.labels.get(label) == Some(value));
                ensure!(found, "{name} has no {label}={value:?}");
            }
        }
    }
    for label in &queried.grouped_by {
        ensure!(labels.contains(label), "nothing has the label {label}");
    }
    Ok(())
}

/// Those of a sidecar that plans and can share its store.
async fn exported_with_postgres() -> Result<String> {
    let postgres = Postgres::start()?;
    let url = postgres.url(&postgres.database()?);
    let options = options().sidecar("STORE_PATH", "").sidecar("STORE_URL", &url);
    let exported = Stack::run(options, async |stack| -> Result<_> { Ok(exported(stack).await?.0) });
    let sidecar = exported.await;
    let found = check_metrics(&sidecar).await?;
    ensure!(found.is_empty(), "{found:#?}");
    Ok(sidecar)
}

#[tokio::test]
async fn rules_and_dashboard_query_existing_metrics() {
    Stack::run(options(), async |stack| -> Result<()> {
        let (sidecar, filter) = exported(stack).await?;
        ensure!(!sidecar.contains("edgerunner_term"), "only with Postgres: {sidecar}");
        let shared = exported_with_postgres().await?;
        let lines = sidecar.lines().chain(shared.lines()).chain(filter.lines());
        let samples = lines.filter(|line| !line.starts_with('#'));
        let exported = Scrape::parse(samples.map(|line| Ok(line.to_owned())))?;
        let rules: Value = serde_saphyr::from_str(RULES)?;
        for (name, document) in [("rules", rules), ("dashboard", serde_json::from_str(DASHBOARD)?)]
        {
            let mut found = Vec::new();
            queries(&document, &mut found);
            ensure!(found.len() > 10, "{name}: {found:?}");
            for query in found {
                check_query(&query, &exported).with_context(|| format!("{name}: {query}"))?;
            }
        }
        Ok(())
    })
    .await;
}

#[test]
fn every_alert_links_to_a_section_of_the_runbook() -> Result<()> {
    let anchors: BTreeSet<String> = OPERATIONS
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|heading| heading.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| heading.replace(|it: char| !it.is_alphanumeric() && !" -".contains(it), ""))
        .map(|heading| heading.replace(' ', "-"))
        .collect();
    let rules: Value = serde_saphyr::from_str(RULES)?;
    let rules = rules["groups"][0]["rules"].as_array().context("no rules")?;
    for rule in rules {
        for annotation in ["summary", "description"] {
            ensure!(rule["annotations"][annotation].is_string(), "no {annotation}: {rule}");
        }
        let runbook = rule["annotations"]["runbook"].as_str().context("no runbook")?;
        let (path, anchor) = runbook.split_once('#').context("no section")?;
        ensure!(path == OPERATIONS_PATH && anchors.contains(anchor), "{runbook}: {anchors:?}");
    }
    Ok(())
}
