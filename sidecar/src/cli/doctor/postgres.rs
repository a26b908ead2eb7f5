//! Checks a Postgres store and the sidecars that share it.

use std::collections::BTreeMap;

use super::report::Report;
use crate::{
    config::Database,
    control::{
        clock,
        sidecars::{Overview, SidecarState, SidecarView, describe, differing_sections, name},
    },
    store::{CONNECTIONS, Inspection, LeaseRecord, Member, inspect},
};

/// More is a mistake in the set-up of a clock.
const AHEAD_MS_MAX: u64 = 2_000;
const POSTGRES: &str = "Postgres";
const SIDECARS: &str = "sidecars";

pub(super) async fn check(database: &Database, report: &mut Report) {
    // A standby is refused, with what to do instead.
    let found = match inspect(database, || clock::now().wall).await {
        Ok(found) => found,
        Err(error) if error.is_unreachable() => {
            let advice = "check that Postgres runs there, and that this machine can reach it";
            return report.failed(POSTGRES, format!("{error}; {advice}"));
        }
        Err(error) => return report.failed(POSTGRES, error),
    };
    report.ok(POSTGRES, format!("version {}, a primary, at {}", found.version, database.url));
    check_connections(&found, report);
    check_clock(&found, report);
    match &found.sidecars {
        None => report.skipped(SIDECARS, "none has used this database yet"),
        Some((members, lease)) => check_sidecars(members, lease, report),
    }
}

fn check_connections(found: &Inspection, report: &mut Report) {
    let Inspection { connections_left: left, connections_max: max, .. } = found;
    let text = format!("{left} of {max} are left; a sidecar needs {CONNECTIONS}");
    match *left < CONNECTIONS {
        false => report.ok("connections", text),
        true => report.warning(
            "connections",
            format!("{text}: raise max_connections of the server, or end other sessions"),
        ),
    }
}

fn check_clock(found: &Inspection, report: &mut Report) {
    let off = found.ahead_ms.unsigned_abs().saturating_sub(found.round_trip_ms / 2);
    let direction = if found.ahead_ms < 0 { "behind" } else { "ahead of" };
    let text = format!("Postgres' clock is {off} ms {direction} this machine's");
    match off > AHEAD_MS_MAX {
        false => report.ok("clock", text),
        true => report.warning(
            "clock",
            format!("{text}: times that you see are wrong by that; synchronize both with NTP"),
        ),
    }
}

fn check_sidecars(members: &[Member], lease: &LeaseRecord, report: &mut Report) {
    let now = clock::now().wall;
    let overview = Overview::new(members.to_vec(), lease, now);
    let all = &overview.sidecars;
    match overview.planner() {
        Some(planner) => report.ok(SIDECARS, living(all, now) + &takes_over(planner, all)),
        None if all.is_empty() => {
            report.failed(SIDECARS, "none has reported within the last hour: start one");
        }
        None => {
            let (title, text) = overview.why_nothing_is_planned(now);
            report.failed(SIDECARS, format!("{title}. {text} The log of each says why"));
        }
    }
    for silent in all.iter().filter(|it| it.is(SidecarState::Silent)) {
        let text = format!(
            "{}: it was killed, or hangs, or cannot reach Postgres. Read its log. If you have \
             removed it, it is listed for an hour",
            describe(silent, all, now)
        );
        report.warning(format!("sidecar {}", name(silent, all)), text);
    }
    let mut versions: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for sidecar in all.iter().filter(|it| !it.is(SidecarState::Silent)) {
        versions.entry(&sidecar.version).or_default().push(name(sidecar, all));
    }
    if versions.len() > 1 {
        let versions = versions.iter().map(|(it, names)| format!("{it} on {}", names.join(", ")));
        let text = versions.collect::<Vec<_>>().join("; ");
        report.warning("sidecars' versions", format!("{text}: finish the upgrade"));
    }
    let differing = differing_sections(members, &overview);
    if differing.is_empty() && !all.is_empty() {
        report.ok("sidecars' configurations", "the same everywhere");
    }
    for (section, text) in differing {
        let advice = "whichever plans uses its own: make them the same, then reload or restart";
        report.warning(format!("configuration [{section}]"), format!("{text}; {advice}"));
    }
}

fn living(all: &[SidecarView], now: u64) -> String {
    let living = all.iter().filter(|it| !it.is(SidecarState::Silent));
    living.map(|it| describe(it, all, now)).collect::<Vec<_>>().join("; ")
}

/// What happens if the one that plans is lost.
fn takes_over(planner: &SidecarView, all: &[SidecarView]) -> String {
    let others = all.iter().filter(|it| it.id != planner.id && it.is(SidecarState::Accepts));
    match others.count() {
        0 => "; no other one would take over".to_owned(),
        _ => String::new(),
    }
}
