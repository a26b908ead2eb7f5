//! The current state as Prometheus gauges, set at each scrape.

use std::collections::BTreeMap;

use metrics::{Unit, describe_gauge, gauge};

use crate::{
    control::{
        clock,
        figures::{Figures, PHASES},
        snapshot::RunnerVersionView,
    },
    provider::{Node, node::Condition},
    telemetry::metrics::{launch_failures_from_zero, missed_from_zero},
};
use edgerunner_scheduler::{model::Cause, plan::Waiting};

const BACK_OFFS: &str = "edgerunner_back_offs";
const RATE_LIMIT: &str = "edgerunner_github_rate_limit";
const RATE_LIMIT_REMAINING: &str = "edgerunner_github_rate_limit_remaining";
const RATE_LIMIT_RESET: &str = "edgerunner_github_rate_limit_reset_timestamp_seconds";
const MISSED_REQUESTS_ALLOWED: &str = "edgerunner_missed_requests_allowed";
const MISSED_WAITING: &str = "edgerunner_missed_waiting";
const RUNNERS: &str = "edgerunner_runners";
const RUNNERS_MAX: &str = "edgerunner_runners_max";
const RUNNERS_MIN_IDLE: &str = "edgerunner_runners_min_idle";
const RUNNER_VERSION_END: &str = "edgerunner_runner_version_end_timestamp_seconds";
const JOBS_QUEUED: &str = "edgerunner_jobs_queued";
const JOBS_WAITING: &str = "edgerunner_jobs_waiting";
const JOBS_WAITING_LONGEST: &str = "edgerunner_jobs_waiting_longest_seconds";
const RECOVERED: &str = "edgerunner_recovered";
const NODES: &str = "edgerunner_nodes";
const NODE_RUNNERS: &str = "edgerunner_node_runners";
const NODE_CPUS: &str = "edgerunner_node_cpus";
const NODE_CPUS_RESERVED: &str = "edgerunner_node_cpus_reserved";

/// Must be called once, after the recorder is installed.
pub(crate) fn describe() {
    describe_gauge!(BACK_OFFS, "Launches on hold after failures, by cause");
    describe_gauge!(RATE_LIMIT, "GitHub's request limit per hour");
    describe_gauge!(RATE_LIMIT_REMAINING, "Requests to GitHub that remain in this hour");
    describe_gauge!(RATE_LIMIT_RESET, Unit::Seconds, "When the request limit is reset");
    describe_gauge!(
        MISSED_REQUESTS_ALLOWED,
        "Requests per hour that may be spent on missed webhooks"
    );
    describe_gauge!(MISSED_WAITING, "1 while those requests are used up and more are due");
    describe_gauge!(RUNNERS, "Current runners, by phase");
    describe_gauge!(RUNNERS_MAX, "Maximum number of runners of the pool");
    describe_gauge!(RUNNERS_MIN_IDLE, "Runners kept idle at each target, schedules included");
    describe_gauge!(
        RUNNER_VERSION_END,
        Unit::Seconds,
        "When GitHub stops accepting the version of the pool's runners"
    );
    describe_gauge!(JOBS_QUEUED, "Jobs that wait for a runner of the pool");
    describe_gauge!(JOBS_WAITING, "Queued jobs, by waiting reason");
    describe_gauge!(
        JOBS_WAITING_LONGEST,
        Unit::Seconds,
        "How long the oldest queued job has waited, by waiting reason"
    );
    describe_gauge!(RECOVERED, "1 once a provider has listed its runners and launches may begin");
    describe_gauge!(NODES, "Nodes of a Docker Swarm, by state");
    describe_gauge!(NODE_RUNNERS, "Runners of this installation on a node of a Docker Swarm");
    describe_gauge!(NODE_CPUS, "CPUs of a node of a Docker Swarm");
    describe_gauge!(NODE_CPUS_RESERVED, "CPUs that runners of this installation reserve on a node");
}

/// Counters that were never incremented are exported as 0 too: Prometheus sees no increase from
/// a series that is missing.
pub(crate) fn set(figures: &Figures) {
    gauge!(RECOVERED).set(if figures.recovered { 1.0 } else { 0.0 });
    for pool in &figures.pools {
        for (phase, count) in PHASES.into_iter().zip(pool.runners) {
            gauge!(RUNNERS, "pool" => pool.name.clone(), "phase" => phase).set(count as f64);
        }
        gauge!(RUNNERS_MAX, "pool" => pool.name.clone()).set(pool.max as f64);
        gauge!(RUNNERS_MIN_IDLE, "pool" => pool.name.clone()).set(pool.min_idle as f64);
        gauge!(JOBS_QUEUED, "pool" => pool.name.clone()).set(pool.queued as f64);
        launch_failures_from_zero(&pool.name);
    }
    for cause in Cause::ALL.map(Cause::as_str) {
        let on_hold = figures.back_offs.get(cause).copied().unwrap_or_default();
        gauge!(BACK_OFFS, "cause" => cause).set(on_hold as f64);
    }
    for budget in &figures.budgets {
        let labels =
            [("credential", budget.credential.clone()), ("account", budget.account.clone())];
        gauge!(RATE_LIMIT, &labels).set(budget.limit as f64);
        gauge!(RATE_LIMIT_REMAINING, &labels).set(budget.remaining as f64);
        gauge!(RATE_LIMIT_RESET, &labels).set(budget.reset_ms as f64 / 1000.0);
        if let Some(missed) = &budget.missed {
            gauge!(MISSED_REQUESTS_ALLOWED, &labels).set(missed.allowed as f64);
            let waiting = missed.waits_until_ms.is_some();
            gauge!(MISSED_WAITING, &labels).set(if waiting { 1.0 } else { 0.0 });
            missed_from_zero(&budget.credential);
        }
    }
    set_versions(&figures.versions);
    set_nodes(&figures.nodes);
    let now = clock::now().wall;
    // Jobs that other runners are expected to run do not wait.
    for reason in Waiting::NAMES.into_iter().filter(|it| *it != Waiting::NOT_SELF_HOSTED) {
        let waiting = figures.waiting.get(reason);
        gauge!(JOBS_WAITING, "reason" => reason).set(waiting.map_or(0, |it| it.jobs) as f64);
        let oldest = waiting.map_or(now, |it| it.oldest);
        let longest = now.saturating_sub(oldest) as f64 / 1000.0;
        gauge!(JOBS_WAITING_LONGEST, "reason" => reason).set(longest);
    }
}

/// Versions without a known end are left out.
fn set_versions(versions: &BTreeMap<String, RunnerVersionView>) {
    for (pool, known) in versions {
        if let (Some(version), Some(ends)) = (&known.version, known.ends_ms) {
            let labels = [("pool", pool.clone()), ("version", version.clone())];
            gauge!(RUNNER_VERSION_END, &labels).set(ends as f64 / 1000.0);
        }
    }
}

fn set_nodes(nodes: &[Node]) {
    for condition in Condition::ALL {
        let count = nodes.iter().filter(|node| node.condition() == condition).count();
        gauge!(NODES, "state" => condition.as_str()).set(count as f64);
    }
    // Nodes may share a name.
    let mut named: BTreeMap<&str, [f64; 3]> = BTreeMap::new();
    for node in nodes {
        let [runners, cpus, reserved] = named.entry(&node.name).or_default();
        *runners += node.runners as f64;
        *cpus += node.cpus;
        *reserved += node.reserved_cpus;
    }
    for (name, [runners, cpus, reserved]) in named {
        gauge!(NODE_RUNNERS, "node" => name.to_owned()).set(runners);
        gauge!(NODE_CPUS, "node" => name.to_owned()).set(cpus);
        gauge!(NODE_CPUS_RESERVED, "node" => name.to_owned()).set(reserved);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn only_a_known_end_of_a_version_is_exported() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let exported = recorder.handle();
        let view = |version: Option<&str>, ends_ms| RunnerVersionView {
            version: version.map(str::to_owned),
            ends_ms,
            problem: None,
        };
        let versions = BTreeMap::from([
            ("small".to_owned(), view(Some("2.335.0"), Some(1_796_000_000_000))),
            ("open".to_owned(), view(Some("2.336.0"), None)),
            ("unknown".to_owned(), view(None, None)),
        ]);
        metrics::with_local_recorder(&recorder, || set_versions(&versions));
        let text = exported.render();
        let samples: Vec<&str> = text.lines().filter(|line| line.contains('{')).collect();
        let expected = "edgerunner_runner_version_end_timestamp_seconds\
                        {pool=\"small\",version=\"2.335.0\"} 1796000000";
        assert_eq!(samples, [expected]);
    }

    #[test]
    fn nodes_are_counted_once_and_those_with_one_name_are_added_up() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let exported = recorder.handle();
        let nodes = [
            Node { runners: 2, reserved_cpus: 1.5, ..Node::example("build-1") },
            Node { runners: 1, state: "down".into(), ..Node::example("build-1") },
            Node { too_old: true, ..Node::example("build-2") },
        ];
        metrics::with_local_recorder(&recorder, || set_nodes(&nodes));
        let text = exported.render();
        for sample in [
            r#"edgerunner_nodes{state="ready"} 1"#,
            r#"edgerunner_nodes{state="drained"} 0"#,
            r#"edgerunner_nodes{state="down"} 1"#,
            r#"edgerunner_nodes{state="too_old"} 1"#,
            r#"edgerunner_node_runners{node="build-1"} 3"#,
            r#"edgerunner_node_cpus{node="build-1"} 8"#,
            r#"edgerunner_node_cpus_reserved{node="build-1"} 1.5"#,
            r#"edgerunner_node_cpus_reserved{node="build-2"} 0"#,
        ] {
            assert!(text.lines().any(|line| line == sample), "no {sample} in {text}");
        }
        assert_eq!(text.matches("edgerunner_nodes{").count(), 4, "{text}");
    }
}
