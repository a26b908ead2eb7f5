//! Records: the plain data that the store takes and returns, independent of the database and of
//! JSON.

use edgerunner_scheduler::model::{Host, Job, JobKey, JobState, UnixMs};

pub(crate) const DAY_MS: u64 = 86_400_000;
/// Longer than the 3 days for which GitHub redelivers.
pub(super) const DELIVERIES_KEPT_MS: u64 = 7 * DAY_MS;
/// For jobs and runners that ended, and webhooks without deliveries: a report may cover the longest
/// month, some days after its end.
pub(crate) const HISTORY_KEPT_DAYS: u64 = 35;
pub(super) const HISTORY_KEPT_MS: u64 = HISTORY_KEPT_DAYS * DAY_MS;
pub(super) const AUDIT_KEPT_MS: u64 = 400 * DAY_MS;
/// More than people make: a program with the API token must not fill the disk.
pub(super) const AUDIT_KEPT_MAX: u32 = 100_000;

/// A time in which one sidecar plans. The writes of an earlier one are not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Term(pub i64);

/// A delivery to store: what a webhook, or a job listed by GitHub, says about one job.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// Name of the webhook in the filter's configuration.
    pub hook: String,
    pub hook_id: u64,
    pub hook_target_type: String,
    pub hook_target_id: u64,
    pub received_at: UnixMs,
    pub state: JobState,
    /// `job.delivery` is the ID of this delivery.
    pub job: Job,
    pub details: JobDetails,
    pub conclusion: String,
    /// Empty until a runner takes the job.
    pub runner_name: String,
}

impl Delivery {
    /// When a runner had the job, if this delivery is the first to say so. A job that is completed and
    /// names no runner was cancelled before it started, as far as is known.
    pub(super) fn started_at(&self) -> Option<UnixMs> {
        let started = match self.state {
            JobState::Queued => false,
            JobState::InProgress => true,
            JobState::Completed => !self.runner_name.is_empty(),
        };
        started.then_some(self.received_at)
    }
}

/// Details of a job for people to read; the scheduler does not need them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct JobDetails {
    pub name: String,
    pub workflow_name: String,
    pub head_branch: String,
    pub html_url: String,
    /// When GitHub queued the job, by GitHub's clock.
    pub created_at: Option<UnixMs>,
}

/// The outcome of storing a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreOutcome {
    /// The job is new or has moved forward.
    Advanced,
    /// The delivery is new, but the job had already reached this state.
    Stale,
    /// The delivery was already stored.
    Duplicate,
}

impl StoreOutcome {
    /// Stable name for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Advanced => "advanced",
            Self::Stale => "stale",
            Self::Duplicate => "duplicate",
        }
    }
}

/// A stored delivery and the job it was about.
#[derive(Clone, Debug)]
pub(crate) struct DeliveryRecord {
    pub id: String,
    pub received_at: UnixMs,
    pub hook: String,
    pub state: JobState,
    pub key: JobKey,
    pub repository: String,
    pub job_name: String,
    /// An earlier delivery had already announced this state or a later one.
    pub stale: bool,
}

/// A delivery about one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobDelivery {
    pub id: String,
    pub received_at: UnixMs,
    pub hook: String,
    pub state: JobState,
}

/// A stored job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobRecord {
    /// `job.delivery` is the first delivery about it, `job.queued_at` when that was stored.
    pub job: Job,
    pub state: JobState,
    pub details: JobDetails,
    pub conclusion: String,
    pub runner_name: String,
    pub started_at: Option<UnixMs>,
    pub completed_at: Option<UnixMs>,
    /// Stable name of the reason why it is still queued.
    pub waiting: Option<String>,
    /// The same reason in words.
    pub waiting_message: Option<String>,
}

/// A state of a job that was found at GitHub instead of being delivered.
#[derive(Clone, Debug)]
pub(crate) struct JobUpdate {
    pub key: JobKey,
    pub state: JobState,
    pub runner_name: String,
    pub conclusion: String,
    pub found_at: UnixMs,
}

/// Which jobs to read; `None` means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct JobFilter {
    pub state: Option<JobState>,
    /// `owner/name`, in any case.
    pub repository: Option<String>,
    /// Only jobs that a runner of this pool took. The store does not know which pool a queued
    /// job waits for.
    pub pool: Option<String>,
    /// One of the job's labels, in any case.
    pub label: Option<String>,
}

/// A job and the runner that took it.
#[derive(Clone, Debug)]
pub(crate) struct JobHistory {
    pub record: JobRecord,
    /// `None` unless the runner is one of ours.
    pub pool: Option<String>,
    /// Name of the machine that ran it, if its provider has several.
    pub node: Option<String>,
    pub launched_at: Option<UnixMs>,
    /// When the runner's container started.
    pub container_at: Option<UnixMs>,
}

/// How long a job waited until a runner took it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueTime {
    pub started_at: UnixMs,
    pub waited_ms: u64,
}

/// A runner, without its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerRecord {
    pub name: String,
    pub pool: String,
    /// Name of the provider that runs it; empty if an earlier version launched it.
    pub provider: String,
    /// Name of the machine, if its provider has several.
    pub node: Option<String>,
    /// The server that the target is on.
    pub host: Host,
    pub target: String,
    pub phase: String,
    pub created_at: UnixMs,
    /// When its container started.
    pub started_at: Option<UnixMs>,
    /// When GitHub first listed it as online without a job; `None` if it took one before that.
    pub online_at: Option<UnixMs>,
    /// Name of the credential that it was launched with; `None` if an earlier version did.
    pub credential: Option<String>,
    pub registration_id: Option<u64>,
    pub job: Option<JobKey>,
    /// Why it was removed.
    pub why: Option<String>,
    /// The stable name of that reason; `None` if an earlier version recorded its end.
    pub end: Option<String>,
    /// It was removed for a reason that someone should investigate.
    pub failed: bool,
    pub gone_at: Option<UnixMs>,
    pub peak: Peak,
}

/// The most that a runner used at a time, as far as it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Peak {
    pub memory_bytes: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_millis: Option<u64>,
}

/// A runner and its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunnerHistory {
    pub runner: RunnerRecord,
    /// The last lines of its log, if it failed.
    pub log: Option<String>,
}

/// An image that an installation pulled, and that was not on the machine before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ImageRecord {
    /// The ID of the Engine that has it: sidecars that share a store may have one each.
    pub engine: String,
    /// The Engine's ID for it.
    pub id: String,
    /// By which it was pulled.
    pub name: String,
    pub pulled_at: UnixMs,
}

/// A change that somebody made, or tried to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AuditRecord {
    pub at: UnixMs,
    pub who: String,
    /// Their IP address; empty if it is not known.
    pub address: String,
    pub action: String,
    /// The pool, runner or node; empty for all.
    pub target: String,
    /// `done`, or why not.
    pub outcome: String,
}

/// A webhook that deliveries came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WebhookRecord {
    /// The server that it is on.
    pub host: Host,
    /// Its path in the REST API, without the leading slash.
    pub path: String,
    /// The GitHub App that the webhook belongs to; 0 for other webhooks.
    pub app_id: u64,
    pub seen_at: UnixMs,
    /// Every delivery before this time has arrived or was given up.
    pub settled_until: UnixMs,
}
