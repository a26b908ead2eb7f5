//! A runner, the phases of its life, and the reasons for its end.

use super::LaneKey;
use crate::model::{Cause, Instant, JobKey, Moment, ServerTarget};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    pub name: String,
    pub pool: String,
    pub target: ServerTarget,
    /// `None`: its pool is no longer configured.
    pub lane: Option<LaneKey>,
    pub phase: Phase,
    /// When it was launched, also if by an earlier process.
    pub created: Moment,
    /// When it entered its phase.
    pub since: Moment,
    pub registration_id: Option<u64>,
    /// The job that it took.
    pub job: Option<JobKey>,
    /// Its job is completed.
    pub finished: bool,
    pub(super) deadline: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Provisioning(Stage),
    /// Its container runs; GitHub does not list it as online yet.
    Starting,
    /// Online, without a job.
    Idle,
    Busy,
    Removing(Removing),
}

impl Phase {
    /// Stable name for metrics, the API and scripts.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Provisioning(_) => "provisioning",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Removing(_) => "leaving",
        }
    }

    /// Whether a container may be running: `max` limits those.
    pub(super) fn may_run(&self) -> bool {
        !matches!(self, Self::Removing(Removing { stopped: true, .. }))
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// The stages of a launch, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waits for its turn.
    Accepted,
    Image,
    Credentials,
    Container,
}

/// A removal in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removing {
    pub reason: EndReason,
    /// The container is known not to run any more.
    pub(super) stopped: bool,
    pub(super) attempts: u32,
    pub(super) registration: RegistrationState,
}

/// The state, as far as it is known, of the registration of a runner that is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistrationState {
    /// Presumed gone: an ephemeral runner deregisters itself after its job, which saves a call
    /// to GitHub.
    Gone,
    /// The container is removed; the end of its job has yet to confirm that the registration
    /// is gone.
    Unconfirmed,
    There,
    /// GitHub was asked to register it and did not respond: it may appear even after it was
    /// found to be absent.
    Possible,
}

impl RegistrationState {
    pub(super) fn needs_removal(self) -> bool {
        matches!(self, Self::There | Self::Possible)
    }
}

/// Why a runner was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its job is completed.
    Done,
    /// It took a job and exited with an error.
    Exited {
        exit_code: i64,
    },
    /// It exited without a job.
    Unused {
        exit_code: i64,
    },
    LaunchFailed(Cause),
    LaunchTimedOut,
    NeverOnline,
    IdleTooLong,
    /// It was idle while a job in another lane needed its capacity.
    Preempted,
    JobTooLong,
    /// Its job is completed, but its container did not exit.
    DidNotEnd,
    Drained,
    /// An operator removed it.
    Removed,
    /// An operator removed it by force, whether or not it ran a job.
    RemovedByForce,
    /// Its container is gone.
    Vanished,
}

impl EndReason {
    /// Stable name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Exited { .. } => "exited",
            Self::Unused { .. } => "unused",
            Self::LaunchFailed(_) => "launch_failed",
            Self::LaunchTimedOut => "launch_timed_out",
            Self::NeverOnline => "never_online",
            Self::IdleTooLong => "idle_too_long",
            Self::Preempted => "made_room",
            Self::JobTooLong => "job_too_long",
            Self::DidNotEnd => "did_not_end",
            Self::Drained => "drained",
            Self::Removed => "removed",
            Self::RemovedByForce => "removed_by_force",
            Self::Vanished => "vanished",
        }
    }

    /// Whether it is removed even if GitHub considers it busy.
    pub(super) fn ends_its_job(self) -> bool {
        matches!(self, Self::JobTooLong | Self::RemovedByForce)
    }

    pub fn is_failure(self) -> bool {
        match self {
            Self::Done
            | Self::IdleTooLong
            | Self::Preempted
            | Self::Drained
            | Self::Removed
            | Self::RemovedByForce
            | Self::Vanished => false,
            // Events about a short job often arrive after its runner's exit.
            Self::Unused { exit_code } => exit_code != 0,
            _ => true,
        }
    }
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done => f.write_str("its job is done"),
            Self::Exited { exit_code } => {
                write!(f, "exited with code {exit_code} during its job")
            }
            Self::Unused { exit_code } => write!(f, "exited with code {exit_code} without a job"),
            Self::LaunchFailed(cause) => write!(f, "launch failed: {}", cause.as_str()),
            Self::LaunchTimedOut => f.write_str("launch took too long"),
            Self::NeverOnline => f.write_str("did not come online in time"),
            Self::IdleTooLong => f.write_str("idle for too long"),
            Self::Preempted => f.write_str("preempted: idle while a job elsewhere needed capacity"),
            Self::JobTooLong => f.write_str("its job took longer than allowed"),
            Self::DidNotEnd => f.write_str("its job is done, but its container did not exit"),
            Self::Drained => f.write_str("drained"),
            Self::Removed => f.write_str("removed by an operator"),
            Self::RemovedByForce => f.write_str("removed by force by an operator"),
            Self::Vanished => f.write_str("its container is gone"),
        }
    }
}
