//! The results of all checks, as a table or as JSON.

use std::fmt::Display;

use anyhow::{Result, bail};
use serde::Serialize;

use super::fix::Fix;
use crate::cli::output::{Table, json, print};

#[derive(Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    fixes: Vec<Fix>,
}

#[derive(Serialize)]
struct Finding {
    check: String,
    outcome: Outcome,
    /// What was found and, if it failed, what to do.
    message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
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

    pub(super) fn push(&mut self, check: String, outcome: Outcome, message: &dyn Display) {
        let message = message.to_string().replace('\n', " ");
        self.findings.push(Finding { check, outcome, message });
    }

    /// Adds a change that would help and harms nothing.
    pub(super) fn fix(&mut self, fix: Fix) {
        self.fixes.push(fix);
    }

    pub(super) fn take_fixes(&mut self) -> Vec<Fix> {
        std::mem::take(&mut self.fixes)
    }

    #[cfg(test)]
    pub(super) fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(&self.findings).unwrap()
    }

    pub(super) fn to_table(&self) -> String {
        let mut table = Table::new(["CHECK", "RESULT", "FOUND"], &[1]).cut(&[(0, 24)]).wrapped();
        for Finding { check, outcome, message } in &self.findings {
            table.push([check.clone(), outcome.as_str().to_owned(), message.clone()]);
        }
        table.fitted()
    }

    /// Prints the report. Fails if a check failed.
    pub(super) fn finish(self, as_json: bool) -> Result<()> {
        let failed = self.findings.iter().filter(|it| it.outcome == Outcome::Failed).count();
        let all = self.findings.len();
        match as_json {
            true => print(&json(&self.findings)?)?,
            false => print(&self.to_table())?,
        }
        match failed {
            0 => Ok(()),
            _ => bail!("{failed} of {all} checks failed"),
        }
    }
}
