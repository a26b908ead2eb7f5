//! The current state of pools, runners and jobs, as the API, page and command line show it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    control::{figures::PhaseCounts, sidecars::SidecarView},
    github::{
        RefusedWebhook, Spent,
        clients::{CredentialBudget, MissedBudget},
    },
    provider::Node,
};
use edgerunner_scheduler::{
    model::{Cause, JobKey, Moment, UnixMs},
    plan::{Blocked, Machine, Phase, Runner, State, Waiting, is_github_hosted},
};

/// Sets of labels in one snapshot.
const UNMATCHED_MAX: usize = 50;
/// The end of a runner version is a warning from then on.
const SOON_MS: UnixMs = 7 * 24 * 3_600_000;

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Snapshot {
    /// Hosts of the GitHub servers that there are credentials for.
    pub hosts: Vec<String>,
    /// Whether the containers of an earlier process are adopted; nothing is launched before.
    pub recovered: bool,
    /// Which providers do not answer, Docker or Docker Swarm, and why; `null` while all do. Nothing
    /// is launched there until they do.
    pub provider_error: Option<String>,
    /// Whether all pools are drained: nothing is launched until they are resumed.
    pub draining: bool,
    pub runners_live: usize,
    /// Limit over all pools; `null` without one.
    pub runners_max: Option<usize>,
    pub pools: Vec<PoolView>,
    pub runners: Vec<RunnerView>,
    /// Machines of a Docker Swarm, as it last listed them, by name; empty without one.
    #[serde(default)]
    pub nodes: Vec<NodeView>,
    /// The machine of the Docker Engine, as far as it is known; `null` until then.
    #[serde(default)]
    pub machine: Option<MachineView>,
    /// All sidecars that share the store, by name and start; empty with SQLite, which has one.
    #[serde(default)]
    pub sidecars: Vec<SidecarView>,
    /// Queued jobs, each with its waiting reason.
    pub waiting: Vec<WaitingView>,
    /// Queued jobs that no pool serves, by labels: at most 50 sets, those with the most jobs.
    /// Jobs for GitHub's standard runners are left out.
    pub unmatched: Vec<UnmatchedView>,
    /// Recent failures that put launches on hold.
    pub failures: Vec<FailureView>,
    /// Remaining API quota of each credential, as far as GitHub has reported it.
    pub budgets: Vec<BudgetView>,
    /// What each credential's requests to GitHub in the last hour were for.
    #[serde(default)]
    pub spending: Vec<SpendingView>,
    /// Connections that the `egress` of pools does not permit, by host, the latest first: at most
    /// 500.
    #[serde(default)]
    pub egress: Vec<DenialView>,
    /// Webhooks whose latest delivery Envoy refused with 401, as GitHub lists it.
    #[serde(default)]
    pub refused_webhooks: Vec<RefusedWebhookView>,
}

/// A webhook whose secret at GitHub is not the one that Envoy has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RefusedWebhookView {
    /// `repos/OWNER/NAME/hooks/ID`, `orgs/LOGIN/hooks/ID` or `app/hook`.
    pub webhook: String,
    /// `github.webhook_url`; `null` if it is not set.
    pub url: Option<String>,
    /// Refused deliveries of the last hour, among the latest 100.
    pub refused: usize,
    pub last_ms: UnixMs,
}

impl From<RefusedWebhook> for RefusedWebhookView {
    fn from(RefusedWebhook { webhook, url, refused, last_ms }: RefusedWebhook) -> Self {
        Self { webhook, url, refused, last_ms }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BudgetView {
    pub credential: String,
    /// Account where the GitHub App is installed; empty for the App itself and for a token.
    pub account: String,
    /// Requests per hour.
    pub limit: u64,
    pub remaining: u64,
    /// When the quota is reset.
    pub reset_ms: UnixMs,
    /// Share spent on missed webhooks; `null` if they are not looked for.
    pub missed: Option<MissedView>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct MissedView {
    /// Requests per hour.
    pub allowed: u64,
    /// In the current hour. Responses with status 304 cost nothing.
    pub spent: u64,
    /// When the next request may be sent; `null` unless the share is used up.
    pub waits_until_ms: Option<UnixMs>,
}

/// Requests of one credential for one purpose. Responses with status 304 are not counted.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct SpendingView {
    pub credential: String,
    /// `launches`, `removals`, `look_ups`, `missed_webhooks`, `tokens` or `other`.
    pub purpose: String,
    /// In the last hour.
    pub requests: u64,
    /// Those of `requests` that GitHub refused (status 4xx).
    pub refused: u64,
    /// Those of `requests` without a response, or with status 5xx.
    pub failed: u64,
}

/// Connections of a pool's jobs to one host that its `egress` does not permit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct DenialView {
    pub pool: String,
    /// As jobs asked for it, such as `example.com:443`.
    pub host: String,
    /// `host`: `egress` does not name it; `address`: it has an address that is always closed;
    /// `server_name`: no TLS for this host was sent; `request`: not a request that a proxy accepts.
    pub reason: String,
    /// They were permitted nevertheless, because the pool has `egress_mode = "observe"`.
    pub observed: bool,
    /// How many.
    pub connections: u64,
    pub first_ms: UnixMs,
    pub last_ms: UnixMs,
    /// That of the last one; `null` if it is not known.
    pub runner: Option<String>,
    /// The job of that runner; `null` if no webhook has named it.
    pub job_id: Option<u64>,
    pub repository: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct PoolView {
    pub name: String,
    pub labels: Vec<String>,
    pub queued: usize,
    pub provisioning: usize,
    pub starting: usize,
    pub idle: usize,
    pub busy: usize,
    pub leaving: usize,
    /// Runners kept idle at each repository or organization that is named, schedules included.
    pub min_idle: usize,
    /// Launches in progress of runners that are to be parked.
    #[serde(default)]
    pub parking: usize,
    /// Parked runners, which count in none of the others and not in `max`.
    #[serde(default)]
    pub parked: usize,
    /// Those of `parked` whose containers are created but not started: the image has no `/bin/sh`,
    /// or each has a Docker Engine of its own, which is started with it.
    #[serde(default)]
    pub parked_not_started: usize,
    /// Runners to keep parked at each repository or organization that is named.
    #[serde(default)]
    pub parked_wanted: usize,
    pub max: usize,
    /// Whether this pool is drained by itself.
    pub draining: bool,
    /// Whether all pools are drained, and this one with them.
    pub all_draining: bool,
    /// The version of its runners; `null` until a runner was online or the image shows it.
    #[serde(default)]
    pub runner_version: Option<RunnerVersionView>,
}

/// The version of the runners of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunnerVersionView {
    /// Such as `2.335.0`; `null` if neither GitHub nor the image shows it.
    pub version: Option<String>,
    /// When GitHub stops accepting it; `null` if that is unknown.
    pub ends_ms: Option<UnixMs>,
    /// Why the version or its end is unknown.
    pub problem: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunnerView {
    pub name: String,
    pub pool: String,
    /// Name of the machine that runs it, if its provider has several and has chosen one.
    #[serde(default)]
    pub node: Option<String>,
    /// Host of the GitHub server that the target is on.
    pub host: String,
    pub target: String,
    pub phase: String,
    pub since_ms: UnixMs,
    pub created_ms: UnixMs,
    pub registration_id: Option<u64>,
    pub job_id: Option<u64>,
    /// Why it is being removed, and why it is not removed yet; or why no machine has room for it.
    pub why: Option<String>,
    /// Since when its machine does not answer; `null` while it does. It may run all the same.
    #[serde(default)]
    pub unreachable_ms: Option<UnixMs>,
}

/// A machine of a Docker Swarm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct NodeView {
    pub name: String,
    pub id: String,
    /// `ready`, `down`, `disconnected` or `unknown`, as its manager reports it.
    pub state: String,
    /// Why, if it is not ready.
    pub message: String,
    /// `active`, `pause` or `drain`: runners are launched only while it is active.
    pub availability: String,
    pub manager: bool,
    pub leader: bool,
    /// Version of its Docker Engine.
    pub engine: String,
    /// Whether nothing is launched there because its Engine is older than 23.0.3.
    pub too_old: bool,
    pub cpus: f64,
    pub memory_mib: u64,
    /// By the runners of this installation.
    pub reserved_cpus: f64,
    pub reserved_memory_mib: u64,
    /// Runners of this installation.
    pub runners: usize,
    pub labels: BTreeMap<String, String>,
    /// `ready` if runners may be launched there; otherwise why not: `down`, `too_old` or
    /// `drained`.
    pub condition: String,
}

/// The machine of the Docker Engine: what it has for runners, and what they may use together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub(crate) struct MachineView {
    /// Without `docker.reserve_memory_mib`; `null` unless that is set.
    pub memory_mib: Option<u64>,
    pub promised_memory_mib: u64,
    /// Without `docker.reserve_cpus`; `null` unless that is set.
    pub cpus: Option<f64>,
    pub promised_cpus: f64,
    /// `null` if the sidecar cannot see the Engine's data directory.
    pub free_disk_mib: Option<u64>,
    /// Nothing is launched while less is free.
    pub reserve_disk_mib: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct WaitingView {
    pub job_id: u64,
    pub run_attempt: u32,
    /// Host of the GitHub server, on which the id is unique.
    pub host: String,
    pub repository: String,
    pub labels: Vec<String>,
    /// The pool that it waits for; `null` if none serves it.
    #[serde(default)]
    pub pool: Option<String>,
    pub queued_ms: UnixMs,
    pub delivery: String,
    /// Stable name of the waiting reason.
    pub reason: String,
    /// The waiting reason in words.
    pub message: String,
    /// When the reason ends by itself, if that is known.
    pub until_ms: Option<UnixMs>,
    /// Whether the job never runs unless somebody acts.
    #[serde(default)]
    pub blocked: bool,
    /// Whether one of `failures` is the cause, which then counts the job.
    #[serde(default)]
    pub failing: bool,
}

/// A set of labels that no pool serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct UnmatchedView {
    /// As the oldest job names them.
    pub labels: Vec<String>,
    /// Stable name of the waiting reason; `not_self_hosted` if other runners, such as GitHub's,
    /// are expected to run these jobs.
    pub reason: String,
    /// The waiting reason in words.
    pub message: String,
    pub jobs: usize,
    /// When the oldest of the jobs was queued.
    pub queued_ms: UnixMs,
    /// Repository of the oldest job.
    pub repository: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FailureView {
    pub blocks: String,
    pub cause: String,
    pub message: String,
    pub failures: u32,
    pub since_ms: UnixMs,
    pub until_ms: UnixMs,
    /// Jobs that wait because of it. Of several failures with the same cause and message, the first
    /// one has them all.
    #[serde(default)]
    pub jobs: usize,
    /// When the oldest of them was queued.
    #[serde(default)]
    pub oldest_ms: Option<UnixMs>,
}

impl From<CredentialBudget> for BudgetView {
    fn from(of: CredentialBudget) -> Self {
        let CredentialBudget { credential, account, budget, missed } = of;
        Self {
            credential,
            account,
            limit: budget.limit,
            remaining: budget.remaining,
            reset_ms: budget.reset.saturating_mul(1000),
            missed: missed.map(MissedView::from),
        }
    }
}

impl SpendingView {
    pub(crate) fn new(credential: &str, spent: Spent) -> Self {
        let Spent { purpose, requests, refused, failed } = spent;
        let (credential, purpose) = (credential.to_owned(), purpose.as_str().to_owned());
        Self { credential, purpose, requests, refused, failed }
    }
}

impl From<MissedBudget> for MissedView {
    fn from(MissedBudget { allowed, spent, waits_until_ms }: MissedBudget) -> Self {
        Self { allowed, spent, waits_until_ms }
    }
}

/// The failures, to be found by what jobs wait for.
struct Failures {
    views: Vec<FailureView>,
    /// The first one with this cause and message.
    by_message: HashMap<(Cause, String), usize>,
    /// Of credentials whose rate limit is reached, by name.
    by_credential: HashMap<String, usize>,
}

impl Failures {
    fn new(state: &State, now: Moment) -> Self {
        let mut failures =
            Self { views: Vec::new(), by_message: HashMap::new(), by_credential: HashMap::new() };
        for (index, (blocked, backoff)) in state.backoffs().enumerate() {
            let message = (backoff.cause, backoff.message.clone());
            failures.by_message.entry(message).or_insert(index);
            if let (Blocked::Credential(credential), Cause::RateLimited) = (blocked, backoff.cause)
            {
                let name = state.settings().credentials[*credential].name.clone();
                failures.by_credential.insert(name, index);
            }
            failures.views.push(FailureView {
                blocks: state.describe(blocked),
                cause: backoff.cause.as_str().into(),
                message: backoff.message.clone(),
                failures: backoff.failures,
                since_ms: backoff.since.wall,
                until_ms: now.wall_of(backoff.until),
                jobs: 0,
                oldest_ms: None,
            });
        }
        failures
    }

    /// Counts a job at the failure that is the cause of its waiting. Returns whether there is one.
    fn count(&mut self, waiting: &Waiting, queued_ms: UnixMs) -> bool {
        let index = match waiting {
            Waiting::BackOff { cause, message, .. } | Waiting::Probing { cause, message, .. } => {
                self.by_message.get(&(*cause, message.clone()))
            }
            Waiting::RateLimited { credential, .. } => self.by_credential.get(credential),
            _ => None,
        };
        let Some(failure) = index.map(|index| &mut self.views[*index]) else {
            return false;
        };
        failure.jobs += 1;
        failure.oldest_ms = failure.oldest_ms.into_iter().chain([queued_ms]).min();
        true
    }
}

/// What the planner knows of a job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuedJob {
    /// The pool that it waits for.
    pub pool: Option<String>,
    /// The stable name of its waiting reason, and the reason in words.
    pub waiting: Option<(String, String)>,
}

impl QueuedJob {
    /// For each of `jobs`, in their order. Empty for one that is not queued.
    pub(crate) fn of(state: &State, jobs: &[JobKey], now: Moment) -> Vec<Self> {
        let mut found: HashMap<JobKey, Self> = HashMap::new();
        for key in jobs {
            let pool = state.queued_job(*key).map(|(pool, _)| pool.to_owned());
            found.insert(*key, Self { pool, waiting: None });
        }
        let mut explanations = state.explanations(now.instant);
        state.visit_waiting(now.instant, |job, reason| {
            if let Some(found) = found.get_mut(&job.key) {
                let message = explanations.explain(job, &reason);
                found.waiting = Some((reason.as_str().to_owned(), message));
            }
        });
        jobs.iter().map(|key| found.get(key).cloned().unwrap_or_default()).collect()
    }
}

/// Those with the most jobs first.
fn unmatched(state: &State) -> Vec<UnmatchedView> {
    let mut sets: HashMap<(Vec<String>, &'static str), UnmatchedView> = HashMap::new();
    for (job, why) in state.unmatched() {
        if is_github_hosted(&job.labels) {
            continue;
        }
        let reason = Waiting::NoPool(why.clone());
        let mut labels: Vec<String> =
            job.labels.iter().map(|label| label.to_ascii_lowercase()).collect();
        labels.sort();
        let set = sets.entry((labels, reason.as_str())).or_insert_with(|| UnmatchedView {
            labels: job.labels.clone(),
            reason: reason.as_str().into(),
            message: reason.to_string(),
            jobs: 0,
            queued_ms: job.queued_at,
            repository: job.repository.clone(),
        });
        set.jobs += 1;
        if job.queued_at < set.queued_ms {
            set.queued_ms = job.queued_at;
            set.labels.clone_from(&job.labels);
            set.repository.clone_from(&job.repository);
        }
    }
    let mut sets: Vec<UnmatchedView> = sets.into_values().collect();
    sets.sort_by(|a, b| (b.jobs, a.queued_ms, &a.labels).cmp(&(a.jobs, b.queued_ms, &b.labels)));
    sets.truncate(UNMATCHED_MAX);
    sets
}

impl RunnerVersionView {
    /// Whether the version ends within seven days, or has ended.
    pub(crate) fn ends_soon(&self, now: UnixMs) -> bool {
        self.ends_ms.is_some_and(|at| at.saturating_sub(now) < SOON_MS)
    }

    /// In UTC, such as `2026-12-08`.
    pub(crate) fn end_date(&self) -> Option<String> {
        let at = Timestamp::from_millisecond(self.ends_ms?.try_into().ok()?).ok()?;
        Some(at.strftime("%F").to_string())
    }
}

impl RunnerView {
    pub(crate) fn new(runner: &Runner) -> Self {
        Self {
            name: runner.name.clone(),
            pool: runner.pool.clone(),
            node: None,
            host: runner.target.host.to_string(),
            target: runner.target.to_string(),
            phase: runner.phase.as_str().into(),
            since_ms: runner.since.wall,
            created_ms: runner.created.wall,
            registration_id: runner.registration_id,
            job_id: runner.job.map(|job| job.id),
            why: match &runner.phase {
                Phase::Removing(removing) => Some(removing.to_string()),
                _ => runner.no_room.as_ref().map(|message| format!("waits for room: {message}")),
            },
            unreachable_ms: runner.unreachable.map(|since| since.wall),
        }
    }
}

impl MachineView {
    /// Of the provider that has but one machine.
    pub(crate) fn of(state: &State) -> Option<Self> {
        let providers = 0..state.settings().providers.len();
        let known = |it: &usize| state.machine(*it) != Machine::default();
        let provider = providers.into_iter().find(known)?;
        let (machine, promised) = (state.machine(provider), state.promised(provider));
        let cpus = |millis: u64| millis as f64 / 1_000.0;
        Some(Self {
            memory_mib: machine.memory_mib,
            promised_memory_mib: promised.memory_mib,
            cpus: machine.cpu_millis.map(cpus),
            promised_cpus: cpus(promised.cpu_millis),
            free_disk_mib: machine.disk.map(|disk| disk.free_mib),
            reserve_disk_mib: machine.disk.map(|disk| disk.reserve_mib),
        })
    }

    /// Whether launches wait because of its disk.
    pub(crate) fn disk_is_short(&self) -> bool {
        self.free_disk_mib.zip(self.reserve_disk_mib).is_some_and(|(free, reserve)| free < reserve)
    }
}

impl NodeView {
    /// For people.
    pub(crate) fn role(&self) -> &'static str {
        match (self.leader, self.manager) {
            (true, _) => "leader",
            (false, true) => "manager",
            (false, false) => "worker",
        }
    }
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        Self {
            condition: node.condition().as_str().into(),
            availability: node.availability.as_str().into(),
            name: node.name,
            id: node.id,
            state: node.state,
            message: node.message,
            manager: node.manager,
            leader: node.leader,
            engine: node.engine,
            too_old: node.too_old,
            cpus: node.cpus,
            memory_mib: node.memory_mib,
            reserved_cpus: node.reserved_cpus,
            reserved_memory_mib: node.reserved_memory_mib,
            runners: node.runners,
            labels: node.labels,
        }
    }
}

/// Which pools are drained.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub(crate) struct Draining {
    /// Whether all pools are drained.
    pub draining: bool,
    /// Pools that are drained by themselves.
    pub pools: Vec<String>,
}

impl Draining {
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        let pools = snapshot.pools.iter().filter(|pool| pool.draining);
        Self { draining: snapshot.draining, pools: pools.map(|pool| pool.name.clone()).collect() }
    }
}

/// The name of a repository or target for people to read: with its server, unless that is the
/// only one of `hosts`.
pub(crate) fn on_server(name: &str, host: &str, hosts: &[String]) -> String {
    if host.is_empty() || hosts.iter().all(|it| it == host) {
        name.to_owned()
    } else {
        format!("{name} on {host}")
    }
}

impl Snapshot {
    /// While nobody can say what there is.
    pub(crate) fn unknown() -> Self {
        Self {
            hosts: Vec::new(),
            recovered: true,
            provider_error: None,
            draining: false,
            runners_live: 0,
            runners_max: None,
            pools: Vec::new(),
            runners: Vec::new(),
            nodes: Vec::new(),
            machine: None,
            sidecars: Vec::new(),
            waiting: Vec::new(),
            unmatched: Vec::new(),
            failures: Vec::new(),
            budgets: Vec::new(),
            spending: Vec::new(),
            egress: Vec::new(),
            refused_webhooks: Vec::new(),
        }
    }

    pub(crate) fn new(state: &State, now: Moment) -> Self {
        let mut runners: Vec<RunnerView> = state.runners().map(RunnerView::new).collect();
        runners.sort_by(|a, b| (a.created_ms, &a.name).cmp(&(b.created_ms, &b.name)));
        let settings = state.settings();
        let phases = PhaseCounts::new(state);
        let mut not_started: HashMap<&str, usize> = HashMap::new();
        let created = |runner: &&Runner| runner.phase == Phase::Parked { started: false };
        for runner in state.runners().filter(created) {
            *not_started.entry(&runner.pool).or_default() += 1;
        }
        let pools = settings
            .pools
            .iter()
            .enumerate()
            .map(|(index, pool)| {
                let [provisioning, starting, idle, busy, leaving, parking, parked] =
                    phases.of(&pool.name);
                let not_started = not_started.get(pool.name.as_str()).copied();
                PoolView {
                    name: pool.name.clone(),
                    labels: pool.labels.iter().cloned().collect(),
                    queued: state.queued(index),
                    provisioning,
                    starting,
                    idle,
                    busy,
                    leaving,
                    min_idle: pool.min_idle,
                    parking,
                    parked,
                    parked_not_started: not_started.unwrap_or_default(),
                    parked_wanted: pool.parked,
                    max: pool.max,
                    draining: state.pool_draining(index),
                    all_draining: state.draining(),
                    runner_version: None,
                }
            })
            .collect();
        let mut failures = Failures::new(state, now);
        let mut explanations = state.explanations(now.instant);
        let waiting = state
            .waiting(now.instant)
            .into_iter()
            .map(|(job, waiting)| WaitingView {
                blocked: waiting.is_blocked(),
                failing: failures.count(&waiting, job.queued_at),
                job_id: job.key.id,
                run_attempt: job.key.run_attempt,
                host: job.key.host.to_string(),
                repository: job.repository.clone(),
                labels: job.labels.clone(),
                pool: state.queued_job(job.key).map(|(pool, _)| pool.to_owned()),
                queued_ms: job.queued_at,
                delivery: job.delivery.clone(),
                reason: waiting.as_str().into(),
                message: explanations.explain(job, &waiting),
                until_ms: waiting.until().map(|until| now.wall_of(until)),
            })
            .collect();
        let hosts: BTreeSet<_> = settings.credentials.iter().map(|it| it.host.as_str()).collect();
        Self {
            hosts: hosts.into_iter().map(str::to_owned).collect(),
            recovered: state.recovered(),
            provider_error: None,
            draining: state.draining(),
            runners_live: state.live(),
            runners_max: (settings.max != usize::MAX).then_some(settings.max),
            pools,
            runners,
            nodes: Vec::new(),
            machine: MachineView::of(state),
            sidecars: Vec::new(),
            waiting,
            unmatched: unmatched(state),
            failures: failures.views,
            budgets: Vec::new(),
            spending: Vec::new(),
            egress: Vec::new(),
            refused_webhooks: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::Config, control::clock};
    use edgerunner_scheduler::{
        model::{Job, Visibility},
        plan::{self, Event},
    };

    fn state_with(jobs: &[(&str, &[&str])]) -> State {
        let mut state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        for (id, (repository, labels)) in (1..).zip(jobs) {
            let job = Job {
                key: JobKey::new(id, 1),
                repository: (*repository).into(),
                organization: String::new(),
                enterprise: String::new(),
                visibility: Visibility::Private,
                run_id: 0,
                from_fork: None,
                labels: labels.iter().map(ToString::to_string).collect(),
                queued_at: 100 - id,
                delivery: String::new(),
            };
            plan::plan(&mut state, Event::JobQueued(job), clock::now());
        }
        state
    }

    #[test]
    fn jobs_that_no_pool_serves_are_grouped_by_their_labels() {
        let state = state_with(&[
            ("acme/app", &["self-hosted", "gpu"]),
            ("acme/lib", &["gpu", "self-hosted"]),
            ("acme/app", &["self-hosted"]),
            ("acme/app", &["larger-runner"]),
            ("acme/app", &["ubuntu-latest"]),
        ]);
        let snapshot = Snapshot::new(&state, clock::now());
        let sets: Vec<_> = snapshot
            .unmatched
            .iter()
            .map(|set| (set.labels.join(" "), &*set.reason, set.jobs, &*set.repository))
            .collect();
        let expected = [
            ("gpu self-hosted".to_owned(), "no_pool_has_labels", 2, "acme/lib"),
            ("larger-runner".to_owned(), "not_self_hosted", 1, "acme/app"),
        ];
        assert_eq!(sets, expected);
        let waiting: Vec<u64> = snapshot.waiting.iter().map(|job| job.job_id).collect();
        assert_eq!(waiting.len(), 3, "jobs for other runners do not wait: {waiting:?}");
        assert!(!waiting.contains(&4) && !waiting.contains(&5), "{waiting:?}");
    }
}
