//! The steps of `cargo xtask test`: how each ended, and how long it took.

use std::cell::RefCell;
use std::future::Future;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::progress::seconds;
use crate::stop::Interrupted;

/// A step that fails does not end the run, so that one run finds everything.
pub(crate) struct Report {
    started: Instant,
    rows: RefCell<Vec<Row>>,
}

struct Row {
    name: &'static str,
    outcome: Outcome,
    /// Since the start of the run.
    begun: Duration,
    elapsed: Duration,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ok,
    Stopped,
    Failed,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), rows: RefCell::new(Vec::new()) }
    }

    /// `None` if the step failed, which is printed. An error means that the run was stopped.
    pub(crate) async fn step<T>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<Option<T>> {
        let begun = self.started.elapsed();
        let result = work.await;
        let outcome = match &result {
            Ok(_) => Outcome::Ok,
            Err(error) if error.is::<Interrupted>() => Outcome::Stopped,
            Err(_) => Outcome::Failed,
        };
        let elapsed = self.started.elapsed().saturating_sub(begun);
        self.rows.borrow_mut().push(Row { name, outcome, begun, elapsed });
        match (outcome, result) {
            (Outcome::Failed, Err(error)) => {
                eprintln!("\nerror: {name}: {error:#}");
                Ok(None)
            }
            (_, result) => result.map(Some),
        }
    }

    /// Prints the steps in the order of their start. Some run at the same time.
    pub(crate) fn print(&self) {
        let mut rows = self.rows.borrow_mut();
        rows.sort_by_key(|row| row.begun);
        eprintln!("\n{:<30} {:<8} {:>12} {:>14}", "step", "outcome", "began after", "took");
        for Row { name, outcome, begun, elapsed } in rows.iter() {
            let outcome = match outcome {
                Outcome::Ok => "ok",
                Outcome::Stopped => "stopped",
                Outcome::Failed => "FAILED",
            };
            let (begun, elapsed) = (seconds(*begun), seconds(*elapsed));
            eprintln!("{name:<30} {outcome:<8} {begun:>12} {elapsed:>14}");
        }
        eprintln!("{:<30} {:<8} {:>12} {:>14}", "all", "", "", seconds(self.started.elapsed()));
    }

    /// Fails if a step has failed.
    pub(crate) fn verdict(&self) -> Result<()> {
        let rows = self.rows.borrow();
        let failed = rows.iter().filter(|row| row.outcome == Outcome::Failed);
        let failed: Vec<&str> = failed.map(|row| row.name).collect();
        if !failed.is_empty() {
            bail!("failed: {}; the reasons are above", failed.join(", "));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_step_that_fails_ends_nothing_and_fails_the_run() {
        let report = Report::new();
        assert_eq!(report.step("good", async { Ok(1) }).await.unwrap(), Some(1));
        report.verdict().unwrap();
        let failed = report.step("bad", async { bail!("broken") as Result<()> }).await;
        assert!(failed.unwrap().is_none());
        assert_eq!(report.step("later", async { Ok(2) }).await.unwrap(), Some(2));
        let verdict = report.verdict().unwrap_err().to_string();
        assert_eq!(verdict, "failed: bad; the reasons are above");
    }

    #[tokio::test]
    async fn a_step_that_was_stopped_ends_the_run() {
        let report = Report::new();
        let stopped = report.step("stopped", async { Err::<(), _>(Interrupted.into()) }).await;
        assert!(stopped.unwrap_err().is::<Interrupted>());
        report.verdict().unwrap();
    }
}
