//! The dashboard: everything that the page shows at one moment, in bounded size.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use super::{merge_patch::without_nulls, queue_times::QueueTimes};
use crate::{
    control::{
        attention::{self, Finding},
        clock,
        sidecars::SidecarView,
        snapshot::{
            BudgetView, DenialView, MachineView, NodeView, PoolView, RunnerView, Snapshot,
            SpendingView, WaitingView, on_server,
        },
    },
    missed::LOOK_UP_PREFIX,
    provider::node::Condition,
    store::{DeliveryRecord, Error, JobHistory, JobRecord, RunnerRecord, Store},
};
use edgerunner_scheduler::model::{JobKey, JobState, UnixMs};

/// Rows of each kind. The page shows the totals separately.
const WAITING_MAX: u32 = 5_000;
const RUNNING_MAX: u32 = 80;
const DONE_MAX: u32 = 40;
const RUNNERS_MAX: usize = 100;
const NODES_MAX: usize = 100;
const DELIVERIES_MAX: u32 = 25;
const DENIALS_MAX: usize = 100;

#[derive(Serialize)]
pub(super) struct Dashboard {
    /// Of this sidecar.
    version: &'static str,
    draining: bool,
    waiting: usize,
    /// When the oldest of them was queued.
    oldest_waiting_ms: Option<UnixMs>,
    runners_live: usize,
    runners_max: Option<usize>,
    pools: BTreeMap<String, PoolView>,
    /// Jobs by ID, attempt and host.
    jobs: BTreeMap<String, JobRow>,
    /// Why jobs wait, in words: many share one reason, whose text may change every second.
    reasons: BTreeMap<String, String>,
    machine: Option<MachineView>,
    runners: BTreeMap<String, RunnerRow>,
    failed: BTreeMap<String, FailedRow>,
    /// By ID.
    nodes: BTreeMap<String, NodeRow>,
    /// All nodes, by condition.
    node_counts: BTreeMap<&'static str, usize>,
    deliveries: BTreeMap<String, DeliveryRow>,
    /// By ID; empty if the store cannot be shared.
    sidecars: BTreeMap<String, SidecarView>,
    /// Why the rest is not of this moment.
    outdated: Option<Outdated>,
    budgets: Vec<BudgetView>,
    spending: Vec<SpendingView>,
    /// The most urgent first.
    attention: Vec<Finding>,
    /// The latest first.
    egress: Vec<DenialView>,
    /// Queue times by the start of each five-minute step.
    queue_times: BTreeMap<UnixMs, QueueTimes>,
}

/// The page cannot show the present.
#[derive(Clone, Serialize)]
pub(super) struct Outdated {
    /// When it last could; `None` if it never could.
    pub(super) since_ms: Option<UnixMs>,
    pub(super) title: String,
    pub(super) message: String,
}

#[derive(Serialize)]
struct JobRow {
    id: u64,
    state: &'static str,
    repository: String,
    name: String,
    workflow: Option<String>,
    labels: String,
    pool: Option<String>,
    /// Of the job at GitHub.
    url: Option<String>,
    conclusion: Option<String>,
    runner: Option<String>,
    node: Option<String>,
    /// Found by polling GitHub; no webhook announced it.
    looked_up: Option<bool>,
    created_ms: Option<UnixMs>,
    queued_ms: UnixMs,
    launched_ms: Option<UnixMs>,
    container_ms: Option<UnixMs>,
    started_ms: Option<UnixMs>,
    completed_ms: Option<UnixMs>,
    /// One of `reasons`.
    reason: Option<String>,
}

#[derive(Serialize)]
struct RunnerRow {
    pool: String,
    node: Option<String>,
    target: String,
    phase: String,
    created_ms: UnixMs,
    since_ms: UnixMs,
    unreachable_ms: Option<UnixMs>,
    job: Option<u64>,
    why: Option<String>,
}

#[derive(Serialize)]
struct FailedRow {
    pool: String,
    target: String,
    created_ms: UnixMs,
    gone_ms: Option<UnixMs>,
    job: Option<u64>,
    why: Option<String>,
}

#[derive(Serialize)]
struct NodeRow {
    name: String,
    state: String,
    condition: String,
    message: Option<String>,
    role: &'static str,
    engine: String,
    cpus: f64,
    memory_mib: u64,
    reserved_cpus: f64,
    reserved_memory_mib: u64,
    runners: usize,
}

#[derive(Serialize)]
struct DeliveryRow {
    received_ms: UnixMs,
    state: &'static str,
    job: u64,
    attempt: u32,
    repository: String,
    name: String,
    hook: Option<String>,
    stale: bool,
}

impl Dashboard {
    pub(super) async fn load(
        snapshot: Snapshot,
        store: &Store,
        queue_times: BTreeMap<UnixMs, QueueTimes>,
    ) -> Result<Value, Error> {
        let states = [
            (JobState::Queued, WAITING_MAX),
            (JobState::InProgress, RUNNING_MAX),
            (JobState::Completed, DONE_MAX),
        ];
        let mut jobs = Vec::new();
        for (state, limit) in states {
            jobs.extend(store.jobs_in(state, limit).await?);
        }
        let failed = store.failed_runners(attention::FAILED_MAX).await?;
        let deliveries = store.recent_deliveries(DELIVERIES_MAX).await?;
        // With thousands of jobs it takes a while, for which webhooks must not wait.
        let compute = move || Self::new(snapshot, jobs, failed, deliveries, queue_times).to_json();
        spawn_blocking(compute).await.map_err(|_| Error::Closed)
    }

    /// While nothing is known.
    pub(super) fn unknown() -> Value {
        let nothing =
            Self::new(Snapshot::unknown(), Vec::new(), Vec::new(), Vec::new(), BTreeMap::new());
        nothing.to_json()
    }

    /// What was shown before, with what is known now.
    pub(super) fn outdated(before: Value, outdated: &Outdated, sidecars: &[SidecarView]) -> Value {
        let mut dashboard = before;
        let by_id: BTreeMap<&str, &SidecarView> =
            sidecars.iter().map(|sidecar| (&*sidecar.id, sidecar)).collect();
        // What is known of sidecars is of this moment.
        let of_sidecars = attention::sidecars(sidecars);
        let mut findings = vec![Finding::broken(&outdated.title, &outdated.message)];
        findings.extend(of_sidecars);
        let mut attention = serde_json::to_value(findings).unwrap_or_default();
        if let (Value::Array(new), Some(Value::Array(old))) =
            (&mut attention, dashboard.get("attention"))
        {
            let is_kept = |it: &&Value| it["command"] != attention::SIDECARS;
            new.extend(old.iter().filter(is_kept).cloned());
        }
        let mut new = json!({ "outdated": outdated, "sidecars": by_id, "attention": attention });
        without_nulls(&mut new);
        if let (Value::Object(dashboard), Value::Object(new)) = (&mut dashboard, new) {
            dashboard.extend(new);
        }
        dashboard
    }

    fn to_json(&self) -> Value {
        // Its keys are strings or numbers, so it is always valid JSON.
        let mut dashboard = serde_json::to_value(self).unwrap_or_default();
        without_nulls(&mut dashboard);
        dashboard
    }

    fn new(
        snapshot: Snapshot,
        jobs: Vec<JobHistory>,
        failed: Vec<RunnerRecord>,
        deliveries: Vec<DeliveryRecord>,
        queue_times: BTreeMap<UnixMs, QueueTimes>,
    ) -> Self {
        let waiting: HashMap<(u64, u32, &str), &WaitingView> = snapshot
            .waiting
            .iter()
            .map(|waiting| ((waiting.job_id, waiting.run_attempt, &*waiting.host), waiting))
            .collect();
        let mut reasons = Reasons::default();
        let attention = attention::findings(&snapshot, &failed, clock::now().wall);
        let hosts = &snapshot.hosts;
        let key = |job: &JobHistory| {
            let JobKey { id, run_attempt, host } = job.record.job.key;
            format!("{id}.{run_attempt}.{host}")
        };
        let jobs: BTreeMap<String, JobRow> = jobs
            .into_iter()
            .map(|job| (key(&job), JobRow::new(job, &waiting, hosts, &mut reasons)))
            .collect();
        let runners = snapshot.runners.into_iter().take(RUNNERS_MAX);
        let mut node_counts = BTreeMap::new();
        for condition in Condition::ALL.map(Condition::as_str) {
            let count = snapshot.nodes.iter().filter(|node| node.condition == condition).count();
            node_counts.insert(condition, count);
        }
        Self {
            version: env!("CARGO_PKG_VERSION"),
            attention,
            draining: snapshot.draining,
            waiting: snapshot.waiting.len(),
            oldest_waiting_ms: snapshot.waiting.iter().map(|job| job.queued_ms).min(),
            runners_live: snapshot.runners_live,
            runners_max: snapshot.runners_max,
            jobs,
            reasons: reasons.texts,
            machine: snapshot.machine,
            pools: snapshot.pools.into_iter().map(|pool| (pool.name.clone(), pool)).collect(),
            runners: runners.map(|runner| RunnerRow::named(runner, hosts)).collect(),
            failed: failed.into_iter().map(|runner| FailedRow::named(runner, hosts)).collect(),
            nodes: nodes(snapshot.nodes),
            node_counts,
            sidecars: snapshot.sidecars.into_iter().map(|it| (it.id.clone(), it)).collect(),
            outdated: None,
            deliveries: deliveries.into_iter().map(|it| DeliveryRow::named(it, hosts)).collect(),
            budgets: snapshot.budgets,
            spending: snapshot.spending,
            egress: snapshot.egress.into_iter().take(DENIALS_MAX).collect(),
            queue_times,
        }
    }
}

/// The waiting reasons of the jobs, each once. A key is the name of the reason and a number, so that
/// it stays the same while a time in the text changes.
#[derive(Default)]
struct Reasons {
    texts: BTreeMap<String, String>,
    keys: HashMap<String, String>,
    counts: HashMap<String, usize>,
}

impl Reasons {
    fn key(&mut self, name: &str, text: &str) -> String {
        if let Some(key) = self.keys.get(text) {
            return key.clone();
        }
        let count = self.counts.entry(name.to_owned()).or_default();
        *count += 1;
        let key = format!("{name}.{count}");
        self.keys.insert(text.to_owned(), key.clone());
        self.texts.insert(key.clone(), text.to_owned());
        key
    }
}

impl JobRow {
    fn new(
        history: JobHistory,
        waiting: &HashMap<(u64, u32, &str), &WaitingView>,
        hosts: &[String],
        reasons: &mut Reasons,
    ) -> Self {
        let JobHistory { record, pool, node, launched_at, container_at } = history;
        let JobRecord { job, details, .. } = record;
        let now = waiting.get(&(job.key.id, job.key.run_attempt, job.key.host.as_str()));
        Self {
            id: job.key.id,
            state: record.state.as_str(),
            repository: on_server(&job.repository, job.key.host.as_str(), hosts),
            name: details.name,
            workflow: non_empty(details.workflow_name),
            labels: job.labels.join(", "),
            pool: now.and_then(|waiting| waiting.pool.clone()).or(pool),
            url: non_empty(details.html_url),
            conclusion: non_empty(record.conclusion),
            runner: non_empty(record.runner_name),
            node,
            looked_up: job.delivery.starts_with(LOOK_UP_PREFIX).then_some(true),
            created_ms: details.created_at,
            queued_ms: job.queued_at,
            launched_ms: launched_at,
            container_ms: container_at,
            started_ms: record.started_at,
            completed_ms: record.completed_at,
            reason: now
                .map(|waiting| (waiting.reason.as_str(), waiting.message.as_str()))
                .or(record.waiting.as_deref().zip(record.waiting_message.as_deref()))
                .map(|(name, text)| reasons.key(name, text)),
        }
    }
}

impl RunnerRow {
    fn named(runner: RunnerView, hosts: &[String]) -> (String, Self) {
        let row = Self {
            pool: runner.pool,
            node: runner.node,
            target: on_server(&runner.target, &runner.host, hosts),
            phase: runner.phase,
            created_ms: runner.created_ms,
            since_ms: runner.since_ms,
            unreachable_ms: runner.unreachable_ms,
            job: runner.job_id,
            why: runner.why,
        };
        (runner.name, row)
    }
}

impl FailedRow {
    fn named(runner: RunnerRecord, hosts: &[String]) -> (String, Self) {
        let row = Self {
            pool: runner.pool,
            target: on_server(&runner.target, runner.host.as_str(), hosts),
            created_ms: runner.created_at,
            gone_ms: runner.gone_at,
            job: runner.job.map(|job| job.id),
            why: runner.why,
        };
        (runner.name, row)
    }
}

impl NodeRow {
    fn with_id(node: NodeView) -> (String, Self) {
        let row = Self {
            role: node.role(),
            name: node.name,
            state: node.state,
            condition: node.condition,
            message: non_empty(node.message),
            engine: node.engine,
            cpus: node.cpus,
            memory_mib: node.memory_mib,
            reserved_cpus: node.reserved_cpus,
            reserved_memory_mib: node.reserved_memory_mib,
            runners: node.runners,
        };
        (node.id, row)
    }
}

impl DeliveryRow {
    fn named(delivery: DeliveryRecord, hosts: &[String]) -> (String, Self) {
        let row = Self {
            received_ms: delivery.received_at,
            state: delivery.state.as_str(),
            job: delivery.key.id,
            attempt: delivery.key.run_attempt,
            repository: on_server(&delivery.repository, delivery.key.host.as_str(), hosts),
            name: delivery.job_name,
            hook: non_empty(delivery.hook),
            stale: delivery.stale,
        };
        (delivery.id, row)
    }
}

/// Of too many, those that are ready are left out first.
fn nodes(mut nodes: Vec<NodeView>) -> BTreeMap<String, NodeRow> {
    nodes.sort_by_key(|node| node.condition == Condition::Ready.as_str());
    nodes.into_iter().take(NODES_MAX).map(NodeRow::with_id).collect()
}

fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_with_one_waiting_reason_share_its_text_under_a_key_that_stays() {
        let mut reasons = Reasons::default();
        let keys = [("back_off", "retrying in 4 s"), ("pool_max", "max"), ("back_off", "other")]
            .map(|(name, text)| reasons.key(name, text));
        assert_eq!(keys, ["back_off.1", "pool_max.1", "back_off.2"]);
        assert_eq!(reasons.key("back_off", "retrying in 4 s"), "back_off.1");
        assert_eq!(reasons.texts.len(), 3);
        assert_eq!(Reasons::default().key("back_off", "retrying in 3 s"), "back_off.1");
    }
}
