//! A runner, the phases of its life, and the reasons for its end.

use super::{LaneKey, Parameters, Resources};
use crate::model::{Cause, Instant, JobKey, Moment, ServerTarget};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runner {
    pub name: String,
    pub pool: String,
    /// Index into [`super::Settings::providers`]: where it runs.
    pub provider: usize,
    pub target: ServerTarget,
    pub parameters: Parameters,
    /// `None`: its pool is no longer configured.
    pub lane: Option<LaneKey>,
    pub phase: Phase,
    /// When it was launched, also if by an earlier process.
    pub created: Moment,
    /// When it entered its phase, or began or ceased to wait for room in it.
    pub since: Moment,
    /// The revision of its pool's settings that it was launched with; see
    /// [`super::Pool::revision`].
    pub(super) revision: u64,
    /// It was parked, and its command was to begin.
    pub woken: bool,
    /// The credential that it is launched with. `None`: an earlier process launched it.
    pub(super) credential: Option<usize>,
    pub registration_id: Option<u64>,
    /// The job that it took.
    pub job: Option<JobKey>,
    /// Its job is completed.
    pub finished: bool,
    /// Why its provider has no room for it; `None` unless it waits in [`Stage::Room`].
    pub no_room: Option<String>,
    /// Since when its machine does not answer. It may run all the same.
    pub unreachable: Option<Moment>,
    /// What it may use of its machine.
    pub(super) promised: Resources,
    pub(super) deadline: Option<Instant>,
    pub(super) seen: Seen,
}

/// The exit code of a process that was killed.
const KILLED: i64 = 137;

/// What GitHub's lists of runners have shown of a runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// It was online at some time, so its pool's image works.
    pub(super) online: bool,
    /// When the last list was requested, if it was missing there although it had been registered.
    pub(super) missing: Option<Instant>,
    /// A list was requested and received since it entered its phase.
    pub(super) listed: bool,
    /// When it was last in a list.
    pub(super) at: Option<Instant>,
    /// The number of that list.
    pub(super) list: u64,
    /// That list had it as online or busy.
    pub(super) alive: bool,
    /// It was looked up because its time is over.
    pub(super) looked_up: bool,
    /// Since when no list has it as online or busy, while it is unreachable.
    pub(super) offline: Option<Instant>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The launch of a runner that is to be parked.
    Parking(Stage),
    /// It is registered and its container is created, but its command has not begun, so GitHub has
    /// it as offline. It takes no place.
    Parked {
        /// Whether its container runs a shell that waits, or was only created.
        started: bool,
    },
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
            Self::Parking(_) => "parking",
            Self::Parked { .. } => "parked",
            Self::Provisioning(_) => "provisioning",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Removing(_) => "leaving",
        }
    }

    /// Whether the command of its container may be running: `max` limits those.
    pub(super) fn may_run(&self) -> bool {
        match self {
            Self::Parking(_) | Self::Parked { .. } => false,
            Self::Removing(removing) => !removing.stopped && !removing.parked,
            Self::Provisioning(_) | Self::Starting | Self::Idle | Self::Busy => true,
        }
    }

    /// The stage of its launch, if that is under way.
    pub(super) fn launch_stage(&self) -> Option<Stage> {
        match self {
            Self::Parking(stage) | Self::Provisioning(stage) => Some(*stage),
            _ => None,
        }
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.waits_for_room() == other.waits_for_room()
    }

    /// Whether its launch waits until its provider has room. Such a launch can be ended.
    pub fn waits_for_room(&self) -> bool {
        matches!(self, Self::Provisioning(Stage::Room))
    }

    /// Whether its container runs, as far as is known, and is not being removed.
    pub(super) fn runs(&self) -> bool {
        matches!(self, Self::Starting | Self::Idle | Self::Busy)
    }

    /// The same, or it is parked: a container is there.
    pub(super) fn has_container(&self) -> bool {
        self.runs() || matches!(self, Self::Parked { .. })
    }
}

/// The stages of a launch, in their order. One that got room is in `Container` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Waits for its turn.
    Accepted,
    Image,
    Credentials,
    Container,
    /// Waits until its provider has room: see [`super::Event::NoRoom`].
    Room,
}

/// A removal in progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removing {
    pub reason: EndReason,
    /// The container is known not to run any more.
    pub(super) stopped: bool,
    /// Its launch was under way, so a container may still appear.
    pub(super) launching: bool,
    /// Its command has not begun.
    pub(super) parked: bool,
    /// The time limit of the job that it ran, or may have run, when the removal began.
    pub(super) job_deadline: Option<Instant>,
    pub(super) registration: RegistrationState,
    pub(super) container: ContainerState,
    /// Failures in a row.
    pub(super) attempts: u32,
    /// The attempt under way.
    pub(super) attempt: Option<Attempt>,
    /// Why the registration is not removed yet.
    pub(super) refusal: Option<Refusal>,
    /// The provider's answer to the last request to remove the container, if it failed.
    pub(super) container_problem: Option<String>,
    /// The runner is on record as gone, and only its container is still there.
    pub(super) on_record_as_gone: bool,
}

/// One request to remove a runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) registration: bool,
    pub(super) container: bool,
    /// As it was requested: what is known of the runner may change meanwhile.
    pub(super) container_first: bool,
    pub(super) began: Instant,
}

/// The state, as far as it is known, of the registration of a runner that is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RegistrationState {
    /// It never was, or GitHub removed it.
    Absent,
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
    /// GitHub did not remove it in time, so the runner ends without.
    Left,
}

impl RegistrationState {
    pub(super) fn needs_removal(self) -> bool {
        matches!(self, Self::There | Self::Possible)
    }
}

/// The container of a runner that is being removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContainerState {
    /// It may exist.
    There,
    Removed,
    /// The provider did not remove it in time, and it does not run, so the runner ends without.
    Left,
}

/// Why GitHub did not remove a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) kind: RefusalKind,
    pub(super) message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RefusalKind {
    /// It considers the runner busy, although nothing runs any more.
    Busy,
    /// For another reason, which does not change by itself.
    Refused,
    /// It did not answer, or asked to wait.
    Unanswered,
}

impl RefusalKind {
    pub(super) fn for_cause(cause: Cause) -> Self {
        match cause {
            Cause::RateLimited | Cause::GitHubUnavailable | Cause::TimedOut => Self::Unanswered,
            _ => Self::Refused,
        }
    }
}

impl Removing {
    pub(super) fn new(
        reason: EndReason,
        stopped: bool,
        registration: RegistrationState,
        container: ContainerState,
    ) -> Self {
        Self {
            reason,
            stopped,
            launching: false,
            parked: false,
            job_deadline: None,
            registration,
            container,
            attempts: 0,
            attempt: None,
            refusal: None,
            container_problem: None,
            on_record_as_gone: false,
        }
    }

    /// Removes the container of a runner that is on record as gone.
    pub(super) fn of_gone_runner(stopped: bool) -> Self {
        let (registration, container) = (RegistrationState::Absent, ContainerState::There);
        Self {
            on_record_as_gone: true,
            ..Self::new(EndReason::OnRecordAsGone, stopped, registration, container)
        }
    }

    /// Whether neither the registration nor the container is removed or given up yet.
    pub(super) fn is_undecided(&self) -> bool {
        self.registration.needs_removal() && self.container == ContainerState::There
    }

    /// Whether the container is removed before the registration, because no job can suffer:
    /// nothing runs, or whatever runs is to end.
    pub(super) fn container_first(&self) -> bool {
        // That its container is gone is known from a list only.
        let certainly_stopped = self.stopped && self.reason != EndReason::Vanished;
        certainly_stopped || self.parked || self.reason.ends_its_job()
    }

    /// What is left at GitHub or at the provider, and why. `None`: nothing is.
    pub fn left(&self) -> Option<String> {
        let refusal =
            self.refusal.as_ref().filter(|_| self.registration == RegistrationState::Left);
        if let Some(Refusal { message, .. }) = refusal {
            return Some(format!("its registration may be left at GitHub: {message}"));
        }
        let problem = self.container_problem.as_ref();
        problem
            .filter(|_| self.container == ContainerState::Left)
            .map(|problem| format!("its container is left: {problem}"))
    }

    /// Whether GitHub may still list the runner after its end.
    pub fn leaves_registration(&self) -> bool {
        self.registration == RegistrationState::Left
    }

    /// Why the last attempt to remove it failed.
    fn problem(&self) -> Option<&str> {
        let refusal = self.refusal.as_ref().map(|refusal| refusal.message.as_str());
        self.container_problem.as_deref().or(refusal)
    }
}

impl std::fmt::Display for Removing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.reason.fmt(f)?;
        match (self.left(), self.problem()) {
            (Some(left), _) => write!(f, "; {left}"),
            (None, Some(problem)) => write!(f, "; not removed yet: {problem}"),
            (None, None) => Ok(()),
        }
    }
}

/// How the main process of a runner's container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    pub code: i64,
    /// The kernel killed it, or another process in the container, for lack of memory.
    pub out_of_memory: bool,
}

impl From<i64> for ExitStatus {
    fn from(code: i64) -> Self {
        Self { code, out_of_memory: false }
    }
}

impl ExitStatus {
    /// Why the runner ends, if it is not for lack of memory.
    pub(super) fn end_reason(self, otherwise: EndReason) -> EndReason {
        match self.out_of_memory {
            true => EndReason::OutOfMemory { exit_code: self.code },
            false => otherwise,
        }
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
    /// It exited, and a process in its container was killed for lack of memory.
    OutOfMemory {
        exit_code: i64,
    },
    LaunchFailed(Cause),
    LaunchTimedOut,
    NeverOnline,
    /// It was parked, and its command could not be made to begin.
    WakeFailed,
    /// Its container ended while it was parked.
    DiedParked {
        exit_code: i64,
    },
    /// It was parked for too long, or its pool's settings or image changed.
    Renewed,
    /// It was online, went offline, and did not come back.
    WentOffline,
    /// GitHub no longer lists it.
    Unregistered,
    IdleTooLong,
    /// Its launch waited for room until no job needed the runner any more, or fewer are to be parked.
    NotNeeded,
    /// Its launch waited for room until its credentials were about to end.
    CredentialsExpired,
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
    /// Its machine did not answer, and GitHub had it as offline for too long.
    MachineLost,
    /// It is on record as gone, but its container still runs.
    OnRecordAsGone,
}

impl EndReason {
    /// Stable name for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Exited { .. } => "exited",
            Self::Unused { .. } => "unused",
            Self::OutOfMemory { .. } => "out_of_memory",
            Self::LaunchFailed(_) => "launch_failed",
            Self::LaunchTimedOut => "launch_timed_out",
            Self::NeverOnline => "never_online",
            Self::WakeFailed => "wake_failed",
            Self::DiedParked { .. } => "died_parked",
            Self::Renewed => "renewed",
            Self::WentOffline => "went_offline",
            Self::Unregistered => "unregistered",
            Self::IdleTooLong => "idle_too_long",
            Self::NotNeeded => "not_needed",
            Self::CredentialsExpired => "credentials_expired",
            Self::Preempted => "made_room",
            Self::JobTooLong => "job_too_long",
            Self::DidNotEnd => "did_not_end",
            Self::Drained => "drained",
            Self::Removed => "removed",
            Self::RemovedByForce => "removed_by_force",
            Self::Vanished => "vanished",
            Self::MachineLost => "machine_lost",
            Self::OnRecordAsGone => "on_record_as_gone",
        }
    }

    /// Whether it is removed even if GitHub considers it busy.
    pub(super) fn ends_its_job(self) -> bool {
        matches!(self, Self::JobTooLong | Self::RemovedByForce | Self::OnRecordAsGone)
    }

    /// Whether it took its job with it, if it had one, and nobody wanted that.
    pub fn is_death(self) -> bool {
        match self {
            Self::Exited { .. } | Self::WentOffline | Self::Vanished | Self::MachineLost => true,
            // A runner that exits with code 0 has reported its job, in which something was killed.
            Self::OutOfMemory { exit_code } => exit_code != 0,
            Self::Done
            | Self::Unused { .. }
            | Self::WakeFailed
            | Self::DiedParked { .. }
            | Self::Renewed
            | Self::LaunchFailed(_)
            | Self::LaunchTimedOut
            | Self::NeverOnline
            | Self::Unregistered
            | Self::IdleTooLong
            | Self::NotNeeded
            | Self::CredentialsExpired
            | Self::Preempted
            | Self::JobTooLong
            | Self::DidNotEnd
            | Self::Drained
            | Self::Removed
            | Self::RemovedByForce
            | Self::OnRecordAsGone => false,
        }
    }

    pub fn is_failure(self) -> bool {
        match self {
            Self::Done
            | Self::Unregistered
            | Self::Renewed
            | Self::IdleTooLong
            | Self::NotNeeded
            | Self::CredentialsExpired
            | Self::Preempted
            | Self::Drained
            | Self::Removed
            | Self::RemovedByForce
            | Self::Vanished
            | Self::OnRecordAsGone => false,
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
            Self::OutOfMemory { exit_code: KILLED } => f.write_str(
                "killed for lack of memory: raise memory_mib, or run fewer runners at a time",
            ),
            Self::OutOfMemory { exit_code } => write!(
                f,
                "a process was killed for lack of memory, and it exited with code {exit_code}: \
                 raise memory_mib, or run fewer runners at a time"
            ),
            Self::LaunchFailed(cause) => write!(f, "launch failed: {}", cause.as_str()),
            Self::LaunchTimedOut => f.write_str("launch took too long"),
            Self::NeverOnline => f.write_str("did not come online in time"),
            Self::WakeFailed => f.write_str("was parked and could not be woken"),
            Self::DiedParked { exit_code } => {
                write!(f, "exited with code {exit_code} while it was parked")
            }
            Self::Renewed => f.write_str("parked with old settings, or for too long"),
            Self::WentOffline => f.write_str("went offline and did not come back in time"),
            Self::Unregistered => f.write_str("GitHub no longer lists it"),
            Self::IdleTooLong => f.write_str("idle for too long"),
            Self::NotNeeded => f.write_str("not needed any more"),
            Self::CredentialsExpired => {
                f.write_str("waited for room until its credentials were about to expire")
            }
            Self::Preempted => f.write_str("preempted: idle while a job elsewhere needed capacity"),
            Self::JobTooLong => f.write_str("its job took longer than allowed"),
            Self::DidNotEnd => f.write_str("its job is done, but its container did not exit"),
            Self::Drained => f.write_str("drained"),
            Self::Removed => f.write_str("removed by an operator"),
            Self::RemovedByForce => f.write_str("removed by force by an operator"),
            Self::Vanished => f.write_str("its container is gone"),
            Self::MachineLost => f.write_str("its machine is lost"),
            Self::OnRecordAsGone => {
                f.write_str("on record as gone, but its container is still there")
            }
        }
    }
}
