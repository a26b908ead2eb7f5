//! The results of all checks, as a table or as JSON.

use std::fmt::Display;

use anyhow::{Result, bail};
use serde::Serialize;

use crate::cli::output::{Table, json, print};

#[derive(Default)]
pub(super) struct Report(Vec<Finding>);

#[derive(Serialize)]
struct Finding {
    check: String,
    outcome: Outcome,
    /// What was found and, if it failed, what to do.
    message: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Outcome {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

impl Report {
    pub(super) fn ok(&mut self, check: impl Into<String>, message: impl Display) {
        self.push(check.into(), Outcome::Ok, &message);
    }

    /// It works, but should be changed.
    pub(super) fn warning(&mut self, check: impl Into<String>, message: impl Display) {
        self.push(check.into(), Outcome::Warning, &message);
    }

    pub(super) fn failed(&mut self, check: impl Into<String>, message: impl Display) {
        self.push(check.into(), Outcome::Failed, &message);
    }

    /// Not checked, which is not a failure.
    pub(super) fn skipped(&mut self, check: impl Into<String>, reason: impl Display) {
        self.push(check.into(), Outcome::Skipped, &reason);
    }

    pub(super) fn add<E: Into<anyhow::Error>>(
        &mut self,
        check: impl Into<String>,
        result: Result<impl Display, E>,
    ) {
        match result {
            Ok(message) => self.ok(check, message),
            Err(error) => self.failed(check, format!("{:#}", error.into())),
        }
    }

    fn push(&mut self, check: String, outcome: Outcome, message: &dyn Display) {
        let message = message.to_string().replace('\n', " ");
        self.0.push(Finding { check, outcome, message });
    }

    #[cfg(test)]
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.0).unwrap()
    }

    /// Prints the report. Fails if a check failed.
    pub(super) fn finish(self, as_json: bool) -> Result<()> {
        let failed = self.0.iter().filter(|it| it.outcome == Outcome::Failed).count();
        let all = self.0.len();
        if as_json {
            print(&json(&self.0)?)?;
        } else {
            let mut table =
                Table::new(["CHECK", "RESULT", "FOUND"], &[1]).cut(&[(0, 24)]).wrapped();
            for Finding { check, outcome, message } in self.0 {
                table.push([check, outcome.as_str().to_owned(), message]);
            }
            print(&table.fitted())?;
        }
        match failed {
            0 => Ok(()),
            _ => bail!("{failed} of {all} checks failed"),
        }
    }
}
