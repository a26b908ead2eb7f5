//! `edgerunner status`.

use std::fmt::Write as _;

use anyhow::Result;
use serde_json::Value;

use super::{
    client::Client,
    findings, nodes,
    output::{Output, Table, Width, age, names_in, parse, printable},
    pools, sidecars,
};
use crate::{
    api::status::StatusView,
    control::{
        clock,
        snapshot::{BudgetView, MachineView, SpendingView, UnmatchedView},
    },
};
use edgerunner_scheduler::{model::UnixMs, plan::Waiting};

pub(super) fn show(client: &Client, output: Output) -> Result<()> {
    let titles = |status: &Value| names_in(&status["attention"], "title");
    output.show(|| client.get("/api/v1/status"), titles, describe)
}

fn describe(status: &Value, width: Width) -> Result<String> {
    let StatusView { attention, snapshot: status } = parse(status.clone())?;
    let now = clock::now().wall;
    let mut text = findings::describe(&attention, now);
    write!(text, "\n{}", pools::to_table(&status.pools).within(width))?;
    if !status.budgets.is_empty() {
        write!(text, "\n{}", budgets(&status.budgets).within(width))?;
    }
    if !status.spending.is_empty() {
        write!(text, "\n{}", spending(&status.spending).within(width))?;
    }
    if !status.sidecars.is_empty() {
        writeln!(text, "\n{}", sidecars::summary(&status.sidecars, now))?;
    }
    if !status.nodes.is_empty() {
        writeln!(text, "\n{}", nodes::summary(&status.nodes))?;
    }
    if let Some(machine) = status.machine.as_ref().and_then(machine) {
        writeln!(text, "\n{machine}")?;
    }
    for set in status.unmatched.iter().filter(|it| it.reason == Waiting::NOT_SELF_HOSTED) {
        write!(text, "\n{}", not_served(set, now))?;
    }
    Ok(text)
}

/// One line about labels whose jobs other runners are expected to run.
fn not_served(set: &UnmatchedView, now: UnixMs) -> String {
    let UnmatchedView { labels, message, jobs, queued_ms, repository, .. } = set;
    let labels = match &labels[..] {
        [] => "without labels".to_owned(),
        labels => format!("for {}", labels.join(", ")),
    };
    let text = match jobs {
        1 => format!("1 job {labels} is not served, queued for"),
        _ => format!("{jobs} jobs {labels} are not served, the oldest queued for"),
    };
    let age = age(*queued_ms, now);
    printable(format!("{text} {age} ({repository}): {message}")) + "\n"
}

/// What launches depend on; `None` if that is nothing.
fn machine(machine: &MachineView) -> Option<String> {
    let memory = machine.memory_mib.map(|memory_mib| {
        format!("{} of {memory_mib} MiB of memory promised", machine.promised_memory_mib)
    });
    let cpus =
        machine.cpus.map(|cpus| format!("{} of {cpus} CPUs promised", machine.promised_cpus));
    let disk = machine.free_disk_mib.filter(|_| machine.disk_is_short()).map(|free_mib| {
        format!("{free_mib} MiB of disk free: nothing is launched until there is more")
    });
    let parts: Vec<String> = [memory, cpus, disk].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("Docker's machine: {}", parts.join(", ")))
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

/// What the last hour's requests were for.
fn spending(spending: &[SpendingView]) -> Table {
    let names = ["CREDENTIAL", "REQUESTS FOR", "LAST HOUR", "REFUSED", "FAILED"];
    let mut table = Table::new(names, &[]);
    for spent in spending {
        table.push([
            spent.credential.clone(),
            spent.purpose.replace('_', " ").replace("look ups", "look-ups"),
            spent.requests.to_string(),
            spent.refused.to_string(),
            spent.failed.to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;
    use crate::{config::Config, control::snapshot::Snapshot};
    use edgerunner_scheduler::plan::State;

    #[test]
    fn what_needs_attention_comes_first_and_jobs_for_other_runners_last() {
        let state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let snapshot = Snapshot::new(&state, clock::now());
        let attention = findings::tests::findings(clock::now().wall);
        let mut status = to_value(StatusView { attention, snapshot }).unwrap();
        let set = |labels: &[&str], reason: &str, message: &str, jobs: usize| {
            json!({ "labels": labels, "reason": reason, "message": message, "jobs": jobs,
                "queued_ms": clock::now().wall - 300_000, "repository": "acme/app" })
        };
        status["unmatched"] = json!([
            set(&["self-hosted", "gpu"], "no_pool_has_labels", "no pool has the label \"gpu\"", 2),
            set(&["large\u{1b}"], Waiting::NOT_SELF_HOSTED, "GitHub", 1),
        ]);
        let text = describe(&status, Width::FULL).unwrap();
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "Broken", "{text}");
        assert!(!text.contains("self-hosted, gpu"), "a finding says it: {text}");
        assert!(text.contains("POOL"), "{text}");
        let last = "1 job for large  is not served, queued for 5 min (acme/app): GitHub";
        assert_eq!(lines.last(), Some(&last), "{text}");
    }
}
