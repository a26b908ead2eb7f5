//! `edgerunner status`.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{
    client::get,
    drain,
    output::{Output, Table, age, parse},
    pools,
};
use crate::{
    config::Config,
    control::{
        clock,
        snapshot::{BudgetView, Draining, Snapshot},
    },
};

pub(super) fn show(config: &Config, output: Output) -> Result<()> {
    output.show(|| get(config, "/api/v1/status"), describe)
}

fn describe(status: &Value) -> Result<String> {
    let status: Snapshot = parse(status.clone())?;
    let draining = Draining::new(&status);
    let mut text = pools::to_table(&status.pools).fitted();
    if !status.budgets.is_empty() {
        write!(text, "\n{}", budgets(&status.budgets).fitted())?;
    }
    let silence = match (&status.provider_error, status.recovered) {
        (_, false) => "Docker has not responded yet",
        (Some(_), true) => "Docker does not respond",
        (None, true) => "",
    };
    if !silence.is_empty() {
        writeln!(text, "\n{silence}: events are stored, but no runners are launched.")?;
    }
    if let Some(error) = &status.provider_error {
        writeln!(text, "{error}")?;
    }
    if draining.draining || !draining.pools.is_empty() {
        writeln!(text, "\n{}", drain::describe(&draining))?;
    }
    for failure in status.failures {
        writeln!(text, "\nFailing: {}: {}", failure.blocks, failure.message)?;
    }
    Ok(text)
}

fn budgets(budgets: &[BudgetView]) -> Table {
    let now = clock::now().wall;
    let names =
        ["CREDENTIAL", "ACCOUNT", "REQUESTS LEFT", "LIMIT", "RESETS IN", "WEBHOOK RECOVERY"];
    let mut table = Table::new(names, &[]);
    for budget in budgets {
        let missed = budget.missed.as_ref().map(|missed| {
            let spent = format!("{} of {}", missed.spent, missed.allowed);
            match missed.waits_until_ms {
                Some(until) => format!("{spent}, resumes in {}", age(now, until)),
                None => spent,
            }
        });
        table.push([
            budget.credential.clone(),
            budget.account.clone(),
            budget.remaining.to_string(),
            budget.limit.to_string(),
            age(now, budget.reset_ms),
            missed.unwrap_or_default(),
        ]);
    }
    table
}
