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
    /// The runner ended or was ended, and is removed. `exit_code`: `None` if it is not known, as
    /// that of a container that was gone already.
    Ended { exit_code: Option<i64>, log: String },
    /// The order's runner has already run on this node: nothing was done.
    Refused { message: String },
    /// The end of a runner's log.
    Log { log: String },
    /// `failed`: one line for each error.
    Swept { removed: usize, failed: Vec<String> },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_with_its_event() {
        let failed = Report::Failed { kind: ErrorKind::Image, message: "no\nimage".into() };
        let ended = Report::Ended { exit_code: None, log: String::new() };
        for (report, expected) in [
            (failed, r#"{"event":"failed","kind":"image","message":"no\nimage"}"#),
            (ended, r#"{"event":"ended","exit_code":null,"log":""}"#),
        ] {
            let line = serde_json::to_string(&report).unwrap();
            assert_eq!(line, expected);
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }
}
