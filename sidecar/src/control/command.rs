//! Commands to the driver, and why it may refuse them.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::{
    config::PoolConfig,
    control::{
        figures::Figures,
        snapshot::{QueuedJob, RunnerView, Snapshot},
    },
};
use edgerunner_scheduler::{
    model::{Job, JobKey, JobState},
    plan::Event,
};

/// Commands that may be queued. When the queue is full, senders wait; nothing is dropped.
const WAITING_MAX: usize = 1024;

/// Where the result of a command goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, CommandError>>;

pub(crate) enum Command {
    /// An event for the planner.
    Event(Box<Event>),
    /// Reply with the current state, for people to read.
    GetSnapshot(Answer<Snapshot>),
    /// Reply whether launches may begin.
    GetReadiness(oneshot::Sender<Readiness>),
    /// Reply with the numbers of the current state; `None` if this sidecar does not plan.
    GetFigures(oneshot::Sender<Option<Figures>>),
    /// Reply with the pool and the waiting reason of each job, in the order of `jobs`.
    GetQueued { jobs: Vec<JobKey>, reply: Answer<Vec<QueuedJob>> },
    /// Start or stop draining. The reply says whether it will survive a restart.
    Drain {
        /// `None`: all pools.
        pool: Option<String>,
        draining: bool,
        reply: Answer<()>,
    },
    /// Try launches that wait after a failure again now.
    Retry { reply: Answer<Retried> },
    /// Replace the pools with those of a reloaded configuration.
    SetPools(Vec<PoolConfig>),
    /// Remove a runner; one that runs a job only with `force`.
    RemoveRunner { runner: String, force: bool, reply: Answer<RunnerView> },
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Retried {
    /// Failures whose wait was ended.
    pub retried: usize,
    /// Those that wait because GitHub asks to, which goes on.
    pub rate_limited: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    /// No provider has answered yet, and perhaps why.
    Recovering(Option<String>),
}

/// Why a command was not carried out.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub(crate) enum CommandError {
    #[error("no such pool; the pools are {}", pools.join(", "))]
    NoSuchPool { pools: Vec<String> },
    #[error(
        "all pools are draining, so no single pool can be resumed: run `edgerunner resume`, and \
         then `edgerunner drain --pool NAME` for each pool that must stay drained"
    )]
    AllDraining,
    #[error("no such runner")]
    NoSuchRunner,
    #[error("the runner is running a job: wait until it ends, or remove it with --force")]
    Busy,
    #[error("the runner is being launched: wait until it has started, or remove it with --force")]
    Launching,
    #[error(
        "the runner is already being removed ({why}): to remove its container without waiting \
         for GitHub, use --force"
    )]
    Leaving { why: String },
    #[error("done, but a restart will undo it: {0}")]
    NotStored(String),
    #[error(
        "none of the sidecars plans at the moment, or it does not answer: try again in a few \
         seconds; `edgerunner doctor` shows why if that does not help"
    )]
    NoPlanner,
    /// This sidecar shares its store with others, and the store failed.
    #[error("the sidecar that plans cannot be asked: {0}")]
    NotAsked(String),
}

/// Sends commands to the driver. Cheap to clone.
pub(crate) type CommandSender = mpsc::Sender<Command>;

pub(crate) fn channel() -> (CommandSender, mpsc::Receiver<Command>) {
    mpsc::channel(WAITING_MAX)
}

/// Sends events to the driver, and nothing else. Cheap to clone.
#[derive(Clone)]
pub(crate) struct EventSender(CommandSender);

impl EventSender {
    pub(crate) fn new(commands: CommandSender) -> Self {
        Self(commands)
    }

    /// Waits while too many commands are queued. An event is lost only when the process
    /// ends: the next start reads the store.
    pub(crate) async fn send(&self, event: Event) {
        let _ = self.0.send(Command::Event(Box::new(event))).await;
    }
}

/// The event that announces a job in this state.
pub(crate) fn job_event(state: JobState, job: Job, runner: String) -> Event {
    match state {
        JobState::Queued => Event::JobQueued(job),
        JobState::InProgress => Event::JobStarted { job, runner },
        JobState::Completed => Event::JobCompleted { job, runner },
    }
}
