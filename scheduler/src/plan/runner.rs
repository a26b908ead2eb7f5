//! A runner and the phases of its life.

use super::LaneKey;
use crate::model::{Cause, JobKey, Target, UnixMs};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    pub name: String,
    pub pool: String,
    pub target: Target,
    /// `None`: its pool is no longer configured.
    pub lane: Option<LaneKey>,
    pub phase: Phase,
    pub created_at: UnixMs,
    /// In this phase since.
    pub since: UnixMs,
    pub registration_id: Option<u64>,
    /// The job that it took.
    pub job: Option<JobKey>,
    /// Its job is completed.
    pub finished: bool,
    pub(super) deadline: Option<UnixMs>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    Provisioning(Stage),
    /// The container runs; GitHub has not heard of the runner yet.
    Starting,
    /// Online, without a job.
    Idle,
    Busy,
    /// Being removed.
    Removing(Removing),
}

impl Phase {
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Provisioning(_) => "provisioning",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Removing(_) => "leaving",
        }
    }

    /// Whether a container may be running: this is what `max` limits.
    pub(super) fn may_run(&self) -> bool {
        !matches!(self, Self::Removing(Removing { stopped: true, .. }))
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// How far a launch is, in the order of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Nothing is known of it yet.
    Accepted,
    Image,
    Credentials,
    Container,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removing {
    pub why: EndReason,
    /// The container is known not to run any more.
    pub(super) stopped: bool,
    pub(super) attempts: u32,
    pub(super) registration: RegistrationState,
}

/// What is presumed of a leaving runner's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistrationState {
    /// An ephemeral runner that ends its job well deregisters itself, so a call to
    /// GitHub is saved.
    Gone,
    /// The container is removed; the end of its job has yet to confirm it.
    Unconfirmed,
    There,
    /// GitHub was asked for one and the answer was lost: it may be made yet after it was
    /// found to be absent.
    Possible,
}

impl RegistrationState {
    pub(super) fn to_be_removed(self) -> bool {
        matches!(self, Self::There | Self::Possible)
    }
}

/// Why a runner left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// Its job is done.
    Done,
    /// It took a job and ended with an error.
    Exited {
        exit_code: i64,
    },
    /// It ended without a job.
    Unused {
        exit_code: i64,
    },
    LaunchFailed(Cause),
    LaunchTimedOut,
    NeverOnline,
    IdleTooLong,
    /// Idle, while a job elsewhere waited for its place.
    Preempted,
    JobTooLong,
    /// Its job is completed, its container did not end.
    DidNotEnd,
    Drained,
    /// Somebody asked for it.
    Removed,
    /// The same, whether or not it ran a job.
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

    /// Whether it goes although GitHub holds it to be busy.
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
            // News of a short job often come later than its runner's end.
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
            Self::Preempted => f.write_str("idle while a job elsewhere waited for its place"),
            Self::JobTooLong => f.write_str("its job took longer than allowed"),
            Self::DidNotEnd => f.write_str("its job is done, but its container did not end"),
            Self::Drained => f.write_str("drained"),
            Self::Removed => f.write_str("removed at somebody's request"),
            Self::RemovedByForce => f.write_str("removed by force at somebody's request"),
            Self::Vanished => f.write_str("its container is gone"),
        }
    }
}
