//! The current state as Prometheus gauges, set at each scrape.

use std::collections::BTreeMap;

use metrics::{Gauge, Unit, describe_gauge, gauge};

use crate::{
    control::{
        clock,
        figures::{Figures, PHASES},
        sidecars::{Gauged, SidecarState},
        snapshot::{MachineView, RunnerVersionView},
    },
    provider::{Node, node::Condition},
    telemetry::metrics::{launch_failures_from_zero, missed_from_zero, terms_from_zero},
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
const RUNNERS_PARKED: &str = "edgerunner_runners_parked_wanted";
const RUNNER_VERSION_END: &str = "edgerunner_runner_version_end_timestamp_seconds";
const JOBS_QUEUED: &str = "edgerunner_jobs_queued";
const JOBS_WAITING: &str = "edgerunner_jobs_waiting";
const JOBS_WAITING_LONGEST: &str = "edgerunner_jobs_waiting_longest_seconds";
const RECOVERED: &str = "edgerunner_recovered";
const NODES: &str = "edgerunner_nodes";
const NODE_RUNNERS: &str = "edgerunner_node_runners";
const NODE_CPUS: &str = "edgerunner_node_cpus";
const NODE_CPUS_RESERVED: &str = "edgerunner_node_cpus_reserved";
const HOST_MEMORY: &str = "edgerunner_host_memory_bytes";
const HOST_MEMORY_PROMISED: &str = "edgerunner_host_memory_promised_bytes";
const HOST_CPUS: &str = "edgerunner_host_cpus";
const HOST_CPUS_PROMISED: &str = "edgerunner_host_cpus_promised";
const HOST_DISK_FREE: &str = "edgerunner_host_disk_free_bytes";
const PLANNING: &str = "edgerunner_planning";
const TERM: &str = "edgerunner_term";
const BEHIND: &str = "edgerunner_deliveries_behind";
const BEHIND_OLDEST: &str = "edgerunner_deliveries_behind_seconds";
const SIDECARS: &str = "edgerunner_sidecars";
const STORE_UP: &str = "edgerunner_store_up";

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
    describe_gauge!(RUNNERS_PARKED, "Runners to keep parked at each target");
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
    describe_gauge!(HOST_MEMORY, Unit::Bytes, "Memory of Docker's machine without the reserve");
    describe_gauge!(HOST_MEMORY_PROMISED, Unit::Bytes, "Memory that its runners may use together");
    describe_gauge!(HOST_CPUS, "CPUs of Docker's machine without the reserve");
    describe_gauge!(HOST_CPUS_PROMISED, "CPUs that its runners may use together");
    describe_gauge!(HOST_DISK_FREE, Unit::Bytes, "Free space of the disk that containers are on");
    describe_gauge!(PLANNING, "1 while this sidecar plans; without others, always");
    describe_gauge!(TERM, "Number of the term in which this sidecar plans; 0 if it does not");
    describe_gauge!(BEHIND, "Stored deliveries that this sidecar has yet to plan for");
    describe_gauge!(BEHIND_OLDEST, Unit::Seconds, "How long ago the oldest of them was received");
    describe_gauge!(SIDECARS, "Sidecars that share the store, by state, as this one sees them");
    describe_gauge!(STORE_UP, "Whether the shared store answered this sidecar's last report");
}

/// The gauges that a planner last exported.
#[derive(Default)]
pub(crate) struct Exported(Vec<Gauge>);

impl Exported {
    /// `figures`: `None` if this sidecar does not plan. What another one exports then must not count
    /// twice: the gauges go to zero, and soon they are no longer exported.
    pub(crate) fn set(&mut self, figures: Option<&Figures>) {
        for gauge in self.0.drain(..).filter(|_| figures.is_none()) {
            gauge.set(0.0);
        }
        if let Some(figures) = figures {
            self.set_figures(figures);
        }
    }

    fn put(&mut self, gauge: Gauge, value: f64) {
        gauge.set(value);
        self.0.push(gauge);
    }

    /// Counters that were never incremented are exported as 0 too: Prometheus sees no increase from
    /// a series that is missing.
    fn set_figures(&mut self, figures: &Figures) {
        self.put(gauge!(RECOVERED), flag(figures.recovered));
        for pool in &figures.pools {
            for (phase, count) in PHASES.into_iter().zip(pool.runners) {
                let gauge = gauge!(RUNNERS, "pool" => pool.name.clone(), "phase" => phase);
                self.put(gauge, count as f64);
            }
            self.put(gauge!(RUNNERS_MAX, "pool" => pool.name.clone()), pool.max as f64);
            self.put(gauge!(RUNNERS_MIN_IDLE, "pool" => pool.name.clone()), pool.min_idle as f64);
            self.put(gauge!(RUNNERS_PARKED, "pool" => pool.name.clone()), pool.parked as f64);
            self.put(gauge!(JOBS_QUEUED, "pool" => pool.name.clone()), pool.queued as f64);
            launch_failures_from_zero(&pool.name);
        }
        for cause in Cause::ALL.map(Cause::as_str) {
            let on_hold = figures.back_offs.get(cause).copied().unwrap_or_default();
            self.put(gauge!(BACK_OFFS, "cause" => cause), on_hold as f64);
        }
        for budget in &figures.budgets {
            let labels =
                [("credential", budget.credential.clone()), ("account", budget.account.clone())];
            self.put(gauge!(RATE_LIMIT, &labels), budget.limit as f64);
            self.put(gauge!(RATE_LIMIT_REMAINING, &labels), budget.remaining as f64);
            self.put(gauge!(RATE_LIMIT_RESET, &labels), budget.reset_ms as f64 / 1000.0);
            if let Some(missed) = &budget.missed {
                self.put(gauge!(MISSED_REQUESTS_ALLOWED, &labels), missed.allowed as f64);
                self.put(gauge!(MISSED_WAITING, &labels), flag(missed.waits_until_ms.is_some()));
                missed_from_zero(&budget.credential);
            }
        }
        set_versions(&figures.versions);
        self.set_nodes(&figures.nodes);
        if let Some(machine) = &figures.machine {
            self.set_machine(machine);
        }
        let now = clock::now().wall;
        // Jobs that other runners are expected to run do not wait.
        for reason in Waiting::NAMES.into_iter().filter(|it| *it != Waiting::NOT_SELF_HOSTED) {
            let waiting = figures.waiting.get(reason);
            let jobs = waiting.map_or(0, |it| it.jobs);
            self.put(gauge!(JOBS_WAITING, "reason" => reason), jobs as f64);
            let oldest = waiting.map_or(now, |it| it.oldest);
            let longest = now.saturating_sub(oldest) as f64 / 1000.0;
            self.put(gauge!(JOBS_WAITING_LONGEST, "reason" => reason), longest);
        }
    }

    fn set_machine(&mut self, machine: &MachineView) {
        let bytes = |mib: u64| mib as f64 * f64::from(1 << 20);
        if let Some(memory_mib) = machine.memory_mib {
            self.put(gauge!(HOST_MEMORY), bytes(memory_mib));
            self.put(gauge!(HOST_MEMORY_PROMISED), bytes(machine.promised_memory_mib));
        }
        if let Some(cpus) = machine.cpus {
            self.put(gauge!(HOST_CPUS), cpus);
            self.put(gauge!(HOST_CPUS_PROMISED), machine.promised_cpus);
        }
        if let Some(free_mib) = machine.free_disk_mib {
            self.put(gauge!(HOST_DISK_FREE), bytes(free_mib));
        }
    }

    fn set_nodes(&mut self, nodes: &[Node]) {
        for condition in Condition::ALL {
            let count = nodes.iter().filter(|node| node.condition() == condition).count();
            self.put(gauge!(NODES, "state" => condition.as_str()), count as f64);
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
            self.put(gauge!(NODE_RUNNERS, "node" => name.to_owned()), runners);
            self.put(gauge!(NODE_CPUS, "node" => name.to_owned()), cpus);
            self.put(gauge!(NODE_CPUS_RESERVED, "node" => name.to_owned()), reserved);
        }
    }
}

/// `sidecars`: `None` if this one shares its store with none.
pub(crate) fn set_sidecars(sidecars: Option<&Gauged>) {
    let Some(Gauged { term, overview, store_answers }) = sidecars else {
        return gauge!(PLANNING).set(1.0);
    };
    terms_from_zero();
    gauge!(PLANNING).set(flag(term.is_some()));
    gauge!(TERM).set(term.unwrap_or_default() as f64);
    gauge!(STORE_UP).set(flag(*store_answers));
    for state in SidecarState::ALL {
        let count = overview.sidecars.iter().filter(|sidecar| sidecar.is(state)).count();
        gauge!(SIDECARS, "state" => state.as_str()).set(count as f64);
    }
    // What the store last said may be about another term.
    let planner = overview.planner().filter(|planner| term.is_some() && planner.term == *term);
    let behind = planner.and_then(|planner| planner.behind.as_ref());
    gauge!(BEHIND).set(behind.map_or(0, |it| it.deliveries) as f64);
    let now = clock::now().wall;
    let oldest = behind.and_then(|it| it.oldest_ms).unwrap_or(now);
    gauge!(BEHIND_OLDEST).set(now.saturating_sub(oldest) as f64 / 1000.0);
}

/// Versions without a known end are left out. They never go to zero, which would be an end.
fn set_versions(versions: &BTreeMap<String, RunnerVersionView>) {
    for (pool, known) in versions {
        if let (Some(version), Some(ends)) = (&known.version, known.ends_ms) {
            let labels = [("pool", pool.clone()), ("version", version.clone())];
            gauge!(RUNNER_VERSION_END, &labels).set(ends as f64 / 1000.0);
        }
    }
}

fn flag(is_so: bool) -> f64 {
    if is_so { 1.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;
    use crate::control::{
        figures::PoolFigures,
        sidecars::{BehindView, Overview, SidecarView},
    };

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
        metrics::with_local_recorder(&recorder, || Exported::default().set_nodes(&nodes));
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
    /// All samples, without those of histograms and counters.
    fn render(of: impl Fn()) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, of);
        recorder.handle().render()
    }

    #[test]
    fn a_sidecar_that_plans_no_more_counts_no_runners() {
        let figures = Figures {
            recovered: true,
            pools: vec![PoolFigures {
                name: "default".into(),
                runners: [1; PHASES.len()],
                queued: 2,
                min_idle: 3,
                parked: 2,
                max: 4,
            }],
            waiting: BTreeMap::new(),
            back_offs: BTreeMap::new(),
            budgets: Vec::new(),
            nodes: vec![Node::example("build-1")],
            machine: Some(MachineView {
                memory_mib: Some(3),
                promised_memory_mib: 2,
                cpus: None,
                promised_cpus: 1.5,
                free_disk_mib: Some(5),
                reserve_disk_mib: Some(4),
            }),
            versions: BTreeMap::new(),
        };
        let planned = render(|| Exported::default().set(Some(&figures)));
        assert!(planned.contains(r#"edgerunner_runners_max{pool="default"} 4"#), "{planned}");
        let ended = render(|| {
            let mut exported = Exported::default();
            exported.set(Some(&figures));
            exported.set(Some(&figures));
            exported.set(None);
        });
        assert_eq!(ended.lines().count(), planned.lines().count());
        let samples = ended.lines().filter(|line| line.starts_with("edgerunner_"));
        for sample in samples {
            assert!(sample.ends_with(" 0"), "{sample}");
        }
        assert_eq!(render(|| Exported::default().set(None)), "");
    }

    /// Zero would be an end that is long over.
    #[test]
    fn the_end_of_a_version_stays_when_a_sidecar_plans_no_more() {
        let version = RunnerVersionView {
            version: Some("2.335.0".to_owned()),
            ends_ms: Some(1_796_000_000_000),
            problem: None,
        };
        let figures = Figures {
            recovered: true,
            pools: Vec::new(),
            waiting: BTreeMap::new(),
            back_offs: BTreeMap::new(),
            budgets: Vec::new(),
            nodes: Vec::new(),
            machine: None,
            versions: BTreeMap::from([("default".to_owned(), version)]),
        };
        let ended = render(|| {
            let mut exported = Exported::default();
            exported.set(Some(&figures));
            exported.set(None);
        });
        assert!(ended.contains(r#"version="2.335.0"} 1796000000"#), "{ended}");
    }

    #[test]
    fn only_the_sidecar_that_plans_says_how_far_it_is_behind() {
        let sidecar = |state: SidecarState, term: Option<u64>| SidecarView {
            id: "a".into(),
            name: "edge-a".into(),
            version: "1.0.0".into(),
            started_ms: 0,
            seen_ms: 0,
            state: state.as_str().into(),
            term,
            since_ms: term,
            queued_writes: 0,
            behind: term.map(|_| BehindView { deliveries: 5, oldest_ms: Some(0) }),
        };
        let sidecars =
            vec![sidecar(SidecarState::Plans, Some(7)), sidecar(SidecarState::Silent, None)];
        let overview = Overview { sidecars, ..Overview::default() };
        let exported = |term| {
            let overview = overview.clone();
            let gauged = Gauged { term, overview, store_answers: true };
            render(|| set_sidecars(Some(&gauged)))
        };
        let (planner, other) = (exported(Some(7)), exported(None));
        for (text, samples) in [
            (&planner, ["edgerunner_planning 1", "edgerunner_term 7"]),
            (
                &planner,
                ["edgerunner_deliveries_behind 5", r#"edgerunner_sidecars{state="plans"} 1"#],
            ),
            (&other, ["edgerunner_planning 0", "edgerunner_term 0"]),
            (
                &other,
                ["edgerunner_deliveries_behind 0", r#"edgerunner_sidecars{state="silent"} 1"#],
            ),
            (&other, ["edgerunner_deliveries_behind_seconds 0", "edgerunner_store_up 1"]),
        ] {
            for sample in samples {
                assert!(text.lines().any(|line| line == sample), "no {sample} in {text}");
            }
        }
        let alone = render(|| set_sidecars(None));
        let samples: Vec<&str> = alone.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.concat(), "edgerunner_planning 1");
    }
}
