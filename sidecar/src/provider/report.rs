//! What a launcher reports: one line of JSON each, which the Swarm provider reads from the log
//! of the launcher's service.

use serde::{Deserialize, Serialize};

use super::error::ErrorKind;
use edgerunner_scheduler::plan::ExitStatus;

/// Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Report {
    /// The runner's container runs.
    Started { container: String },
    /// Nothing was started.
    Failed { kind: ErrorKind, message: String },
    /// The runner ended or was ended, and is removed. `exit_code`: `None` if it is not known, as
    /// that of a container that was gone already. `out_of_memory`: see `ExitStatus`; launchers of
    /// earlier versions do not report it.
    Ended {
        exit_code: Option<i64>,
        #[serde(default)]
        out_of_memory: bool,
        log: String,
    },
    /// The order's runner has already run on this node: nothing was done.
    Refused { message: String },
    /// The end of a runner's log.
    Log { log: String },
    /// `failed`: one line for each error.
    Swept { removed: usize, failed: Vec<String> },
}

impl Report {
    /// The end of a runner, whose status may not be known.
    pub(crate) fn ended(status: Option<ExitStatus>, log: String) -> Self {
        Self::Ended {
            exit_code: status.map(|status| status.code),
            out_of_memory: status.is_some_and(|status| status.out_of_memory),
            log,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_one_line_with_its_event() {
        let failed = Report::Failed { kind: ErrorKind::Image, message: "no\nimage".into() };
        let ended = Report::ended(None, String::new());
        for (report, expected) in [
            (failed, r#"{"event":"failed","kind":"image","message":"no\nimage"}"#),
            (ended, r#"{"event":"ended","exit_code":null,"out_of_memory":false,"log":""}"#),
        ] {
            let line = serde_json::to_string(&report).unwrap();
            assert_eq!(line, expected);
            assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
        }
    }

    #[test]
    fn the_report_of_an_earlier_launcher_is_read() {
        let line = r#"{"event":"ended","exit_code":137,"log":""}"#;
        let status = Some(ExitStatus { code: 137, out_of_memory: false });
        assert_eq!(
            serde_json::from_str::<Report>(line).unwrap(),
            Report::ended(status, String::new())
        );
    }
}
