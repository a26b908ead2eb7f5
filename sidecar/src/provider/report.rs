//! What a launcher reports: one line of JSON each, which the Swarm provider reads from the log
//! of the launcher's service.

use serde::{Deserialize, Serialize};

use super::error::ErrorKind;

/// Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The runner's container runs.
    Started { container: String },
    /// Nothing was started.
    Failed { kind: ErrorKind, message: String },
    /// The runner ended or was ended, and is removed. `exit_code`: `None` if its container was
    /// gone already.
    Ended { exit_code: Option<i64>, log: String },
    /// The order's runner has already run on this node: nothing was done.
    Refused { message: String },
    /// The end of a runner's log.
    Log { log: String },
    /// `failed`: one line for each error.
    Swept { removed: usize, failed: Vec<String> },
}
