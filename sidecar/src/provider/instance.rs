//! A runner as the provider reports it.

use super::labels::Labels;
use edgerunner_scheduler::plan::ExitStatus;

/// A runner that was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launched {
    /// The provider's ID for it, for the log.
    pub id: String,
    /// The name of the machine, if the provider has several.
    pub node: Option<String>,
}

/// A runner and its state at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    pub labels: Labels,
    /// The provider's ID for it, for the log.
    pub id: String,
    /// The name of the machine, if the provider has several and has chosen one.
    pub node: Option<String>,
    pub state: InstanceState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InstanceState {
    /// It has not started.
    Created,
    /// It has processes. Includes paused, restarting and stopping.
    Running,
    Exited(ExitStatus),
    /// Its machine does not answer: the runner may work on, or be lost.
    Unreachable,
    /// Being removed, or left over from a removal that failed.
    Removing,
}

/// A runner's main process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub runner: String,
    pub status: ExitStatus,
}
