//! `edgerunner sidecars`.

use anyhow::Result;
use serde_json::Value;

use super::{
    client::Client,
    output::{Output, Table, Width, age, names_in, parse, printable},
};
use crate::control::{
    clock,
    sidecars::{SidecarState, SidecarView, name, short_id},
};
use edgerunner_scheduler::model::UnixMs;

const NONE_PLANS: &str = "No sidecar plans: webhooks are stored, but no runners are launched.";

pub(super) fn show(client: &Client, output: Output) -> Result<()> {
    output.show(
        || client.get("/api/v1/sidecars"),
        |sidecars| names_in(sidecars, "name"),
        |sidecars, width| table(sidecars, clock::now().wall, width),
    )
}

fn table(sidecars: &Value, now: UnixMs, width: Width) -> Result<String> {
    let sidecars: Vec<SidecarView> = parse(sidecars.clone())?;
    if sidecars.is_empty() {
        let alone = "Only one sidecar: set store.url to let several share a Postgres database.\n";
        return Ok(alone.into());
    }
    let names = [
        "SIDECAR",
        "ID",
        "STATE",
        "TERM",
        "PLANS FOR",
        "REPORTED",
        "BEHIND",
        "WRITES",
        "STARTED",
        "VERSION",
    ];
    let mut table = Table::new(names, &[2]).cut(&[(0, 12)]).optional(&[7, 8, 1, 9]);
    for sidecar in &sidecars {
        let behind = sidecar.behind.as_ref().map(|behind| match behind.oldest_ms {
            Some(oldest) => format!("{} ({})", behind.deliveries, age(oldest, now)),
            None => behind.deliveries.to_string(),
        });
        table.push([
            sidecar.name.clone(),
            short_id(&sidecar.id).to_owned(),
            sidecar.state.clone(),
            sidecar.term.map(|term| term.to_string()).unwrap_or_default(),
            sidecar.since_ms.map(|since| age(since, now)).unwrap_or_default(),
            format!("{} ago", age(sidecar.seen_ms, now)),
            behind.unwrap_or_default(),
            sidecar.queued_writes.to_string(),
            format!("{} ago", age(sidecar.started_ms, now)),
            sidecar.version.clone(),
        ]);
    }
    let mut text = table.within(width);
    if !sidecars.iter().any(|sidecar| sidecar.is(SidecarState::Plans)) {
        text += &format!("\n{NONE_PLANS}\n");
    }
    Ok(text)
}

/// Which one plans, and how the others are, in a line or two.
pub(super) fn summary(sidecars: &[SidecarView], now: UnixMs) -> String {
    let mut text = match sidecars.iter().find(|sidecar| sidecar.is(SidecarState::Plans)) {
        None => NONE_PLANS.to_owned(),
        Some(planner) => {
            let name = name(planner, sidecars);
            let since = age(planner.since_ms.unwrap_or(now), now);
            let term = planner.term.unwrap_or_default();
            format!("Sidecar {name} plans (for {since}, term {term})")
        }
    };
    let of = |state| sidecars.iter().filter(move |sidecar| sidecar.is(state));
    let accepting: Vec<String> =
        of(SidecarState::Accepts).map(|sidecar| name(sidecar, sidecars)).collect();
    if !accepting.is_empty() {
        text += &format!("; {} also accept deliveries", accepting.join(", "));
        if let [_] = accepting[..] {
            text = text.replace("also accept ", "also accepts ");
        }
    }
    let silent: Vec<String> = of(SidecarState::Silent)
        .map(|it| format!("{} for {}", name(it, sidecars), age(it.seen_ms, now)))
        .collect();
    if !silent.is_empty() {
        text += &format!("\nSilent: {}", silent.join(", "));
    }
    text.lines().map(|line| printable(line.to_owned())).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::to_value;

    use super::*;
    use crate::control::sidecars::BehindView;

    const NOW: UnixMs = 10_000_000;

    fn sidecar(name: &str, state: SidecarState, seen_s_ago: u64) -> SidecarView {
        let plans = state == SidecarState::Plans;
        SidecarView {
            id: format!("{name}-0123456789"),
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            started_ms: NOW - 300_000,
            seen_ms: NOW - seen_s_ago * 1000,
            state: state.as_str().to_owned(),
            term: plans.then_some(7),
            since_ms: plans.then_some(NOW - 60_000),
            queued_writes: 2,
            behind: plans.then_some(BehindView { deliveries: 3, oldest_ms: Some(NOW - 4000) }),
        }
    }

    fn all() -> Vec<SidecarView> {
        vec![
            sidecar("edge-a", SidecarState::Plans, 1),
            sidecar("edge-b", SidecarState::Accepts, 0),
            sidecar("edge-c\u{1b}", SidecarState::Silent, 40),
        ]
    }

    #[test]
    fn sidecars_are_listed_with_the_one_that_plans() {
        let text = table(&to_value(all()).unwrap(), NOW, Width::FULL).unwrap();
        let text = anstream::adapter::strip_str(&text).to_string();
        let lines: Vec<String> = text
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            lines,
            [
                "SIDECAR ID STATE TERM PLANS FOR REPORTED BEHIND WRITES STARTED VERSION",
                "edge-a edge-a-0 plans 7 60 s 1 s ago 3 (4 s) 2 5 min ago 1.2.3",
                "edge-b edge-b-0 accepts 0 s ago 2 5 min ago 1.2.3",
                "edge-c edge-c - silent 40 s ago 2 5 min ago 1.2.3",
            ]
        );
        let others = table(&to_value(&all()[1..]).unwrap(), NOW, Width::FULL).unwrap();
        assert!(others.ends_with(&format!("\n{NONE_PLANS}\n")), "{others}");
        let alone = table(&to_value([(); 0]).unwrap(), NOW, Width::FULL).unwrap();
        assert!(alone.contains("store.url"), "{alone}");
    }

    #[test]
    fn a_summary_names_the_one_that_plans_first() {
        assert_eq!(
            summary(&all(), NOW),
            "Sidecar edge-a plans (for 60 s, term 7); edge-b also accepts deliveries\n\
             Silent: edge-c  for 40 s"
        );
        assert_eq!(summary(&all()[..1], NOW), "Sidecar edge-a plans (for 60 s, term 7)");
    }
}
