//! `edgerunner audit`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, Width, age, names_in, parse},
};
use crate::{api::audit::AuditView, control::clock};
use edgerunner_scheduler::model::UnixMs;

pub(super) fn show(client: &Client, output: Output) -> Result<()> {
    let get = || client.get("/api/v1/audit?limit=1000");
    output.show(
        get,
        |changes| names_in(changes, "target"),
        |changes, width| table(changes, clock::now().wall, width),
    )
}

fn table(changes: &Value, now: UnixMs, width: Width) -> Result<String> {
    let changes: Vec<AuditView> = parse(changes.clone())?;
    if changes.is_empty() {
        return Ok("Nobody has drained, resumed, retried or removed anything yet.\n".into());
    }
    let names = ["AGE", "WHO", "FROM", "ACTION", "TARGET", "OUTCOME"];
    let mut table = Table::new(names, &[]).wrapped();
    for change in changes {
        let all = || "all".to_owned();
        table.push([
            age(change.at_ms, now),
            change.who,
            change.address,
            change.action,
            Some(change.target).filter(|target| !target.is_empty()).unwrap_or_else(all),
            change.outcome,
        ]);
    }
    Ok(table.within(width))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_are_listed_with_who_made_them_and_how_they_ended() {
        let changes = json!([
            {
                "at_ms": 940_000, "who": "ann@example.com", "address": "192.0.2.7",
                "action": "drain", "target": "", "outcome": "done",
            },
            {
                "at_ms": 400_000, "who": "API token", "address": "127.0.0.1",
                "action": "resume", "target": "gpo", "outcome": "no such pool",
            },
        ]);
        let text = table(&changes, 1_000_000, Width::FULL).unwrap();
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "AGE WHO FROM ACTION TARGET OUTCOME",
                "60 s ann@example.com 192.0.2.7 drain all done",
                "10 min API token 127.0.0.1 resume gpo no such pool",
            ]
        );
        assert!(table(&json!([]), 0, Width::FULL).unwrap().starts_with("Nobody has"));
    }
}
