//! The current state of pools, runners and jobs, as the API, page and command line show it.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::github::clients::{CredentialBudget, MissedBudget};
use edgerunner_scheduler::{
    model::{Moment, UnixMs},
    plan::{Phase, Runner, State},
};

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Snapshot {
    /// Hosts of the GitHub servers that there are credentials for.
    pub hosts: Vec<String>,
    /// Whether the containers of an earlier process are adopted; nothing is launched before.
    pub recovered: bool,
    /// Whether all pools are drained: nothing is launched until they are resumed.
    pub draining: bool,
    pub runners_live: usize,
    /// Limit over all pools; `null` without one.
    pub runners_max: Option<usize>,
    pub pools: Vec<PoolView>,
    pub runners: Vec<RunnerView>,
    /// Queued jobs, each with its waiting reason.
    pub waiting: Vec<WaitingView>,
    /// Recent failures that put launches on hold.
    pub failures: Vec<FailureView>,
    /// Remaining API quota of each credential, as far as GitHub has reported it.
    pub budgets: Vec<BudgetView>,
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
    pub max: usize,
    /// Whether this pool is drained by itself.
    pub draining: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct RunnerView {
    pub name: String,
    pub pool: String,
    /// Host of the GitHub server that the target is on.
    pub host: String,
    pub target: String,
    pub phase: String,
    pub since_ms: UnixMs,
    pub created_ms: UnixMs,
    pub registration_id: Option<u64>,
    pub job_id: Option<u64>,
    /// Why it is being removed, and why it is not removed yet.
    pub why: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct WaitingView {
    pub job_id: u64,
    pub run_attempt: u32,
    /// Host of the GitHub server, on which the id is unique.
    pub host: String,
    pub repository: String,
    pub labels: Vec<String>,
    pub queued_ms: UnixMs,
    pub delivery: String,
    /// Stable name of the waiting reason.
    pub reason: String,
    /// The waiting reason in words.
    pub message: String,
    /// When the reason ends by itself, if that is known.
    pub until_ms: Option<UnixMs>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct FailureView {
    pub blocks: String,
    pub cause: String,
    pub message: String,
    pub failures: u32,
    pub since_ms: UnixMs,
    pub until_ms: UnixMs,
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

impl From<MissedBudget> for MissedView {
    fn from(MissedBudget { allowed, spent, waits_until_ms }: MissedBudget) -> Self {
        Self { allowed, spent, waits_until_ms }
    }
}

impl RunnerView {
    pub(crate) fn new(runner: &Runner) -> Self {
        Self {
            name: runner.name.clone(),
            pool: runner.pool.clone(),
            host: runner.target.host.to_string(),
            target: runner.target.to_string(),
            phase: runner.phase.as_str().into(),
            since_ms: runner.since.wall,
            created_ms: runner.created.wall,
            registration_id: runner.registration_id,
            job_id: runner.job.map(|job| job.id),
            why: match &runner.phase {
                Phase::Removing(removing) => Some(removing.to_string()),
                _ => None,
            },
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
    pub(crate) fn new(state: &State, now: Moment) -> Self {
        let mut runners: Vec<RunnerView> = state.runners().map(RunnerView::new).collect();
        runners.sort_by(|a, b| (a.created_ms, &a.name).cmp(&(b.created_ms, &b.name)));
        let settings = state.settings();
        let pools = settings
            .pools
            .iter()
            .enumerate()
            .map(|(index, pool)| {
                let in_phase = |phase: &str| {
                    runners
                        .iter()
                        .filter(|runner| runner.pool == pool.name && runner.phase == phase)
                        .count()
                };
                PoolView {
                    name: pool.name.clone(),
                    labels: pool.labels.iter().cloned().collect(),
                    queued: state.queued(index),
                    provisioning: in_phase("provisioning"),
                    starting: in_phase("starting"),
                    idle: in_phase("idle"),
                    busy: in_phase("busy"),
                    leaving: in_phase("leaving"),
                    min_idle: pool.min_idle,
                    max: pool.max,
                    draining: state.pool_draining(index),
                }
            })
            .collect();
        let waiting = state
            .waiting(now.instant)
            .into_iter()
            .map(|(job, waiting)| WaitingView {
                job_id: job.key.id,
                run_attempt: job.key.run_attempt,
                host: job.key.host.to_string(),
                repository: job.repository.clone(),
                labels: job.labels.clone(),
                queued_ms: job.queued_at,
                delivery: job.delivery.clone(),
                reason: waiting.as_str().into(),
                message: waiting.to_string(),
                until_ms: waiting.until().map(|until| now.wall_of(until)),
            })
            .collect();
        let failures = state
            .backoffs()
            .map(|(blocked, backoff)| FailureView {
                blocks: state.describe(blocked),
                cause: backoff.cause.as_str().into(),
                message: backoff.message.clone(),
                failures: backoff.failures,
                since_ms: backoff.since.wall,
                until_ms: now.wall_of(backoff.until),
            })
            .collect();
        let hosts: BTreeSet<_> = settings.credentials.iter().map(|it| it.host.as_str()).collect();
        Self {
            hosts: hosts.into_iter().map(str::to_owned).collect(),
            recovered: state.recovered(),
            draining: state.draining(),
            runners_live: state.live(),
            runners_max: (settings.max != usize::MAX).then_some(settings.max),
            pools,
            runners,
            waiting,
            failures,
            budgets: Vec::new(),
        }
    }
}
