//! Checks until when GitHub accepts the version of each pool's runners.

use anyhow::Result;
use serde_json::Value;

use super::report::Report;
use crate::{
    cli::output::parse,
    control::{
        clock,
        snapshot::{PoolView, RunnerVersionView},
    },
};
use edgerunner_scheduler::model::UnixMs;

const PROGRAM: &str = "version";

/// Whether the sidecar and this command are of one release. `description`: of the sidecar's API, if
/// it is ready.
pub(super) fn check_program(description: Option<&Result<Value>>, report: &mut Report) {
    let Some(Ok(description)) = description else { return };
    let own = env!("CARGO_PKG_VERSION");
    match description["info"]["version"].as_str() {
        Some(running) if running == own => report.ok(PROGRAM, own),
        Some(running) => report.warning(
            PROGRAM,
            format!("the running sidecar is {running}, this command is {own}: restart `serve`"),
        ),
        None => report.warning(PROGRAM, "the running sidecar does not report its version"),
    }
}

/// `pools`: as the sidecar lists them, if it is ready.
pub(super) fn check(pools: Option<&Result<Value>>, report: &mut Report) {
    let pools: Vec<PoolView> = match pools {
        Some(Ok(pools)) => match parse(pools.clone()) {
            Ok(pools) => pools,
            Err(error) => return report.failed("runner versions", format!("{error:#}")),
        },
        Some(Err(error)) => return report.failed("runner versions", format!("{error:#}")),
        None => {
            return report.skipped("runner versions", "the sidecar knows them once it is ready");
        }
    };
    for PoolView { name, runner_version, .. } in pools {
        check_pool(&name, runner_version, clock::now().wall, report);
    }
}

fn check_pool(pool: &str, known: Option<RunnerVersionView>, now: UnixMs, report: &mut Report) {
    let check = format!("runner version of pool {pool}");
    let Some(known) = known else {
        return report.skipped(check, "known once a runner was online");
    };
    let (soon, date) = (known.ends_soon(now), known.end_date());
    let RunnerVersionView { version, ends_ms, problem } = known;
    let Some(version) = version else {
        return report.skipped(check, format!("unknown: {}", problem.unwrap_or_default()));
    };
    let advice = "pull the image again, or set runner_image to a newer one";
    match (date, problem) {
        (Some(date), _) if ends_ms.is_some_and(|at| at <= now) => {
            report.failed(check, format!("{version}: GitHub refuses it since {date}; {advice}"));
        }
        (Some(date), _) if soon => {
            report.warning(check, format!("{version}: GitHub refuses it from {date} on; {advice}"));
        }
        (Some(date), _) => report.ok(check, format!("{version}: GitHub accepts it until {date}")),
        (None, Some(problem)) => {
            report.ok(
                check,
                format!("{version}; until when GitHub accepts it is unknown: {problem}"),
            );
        }
        (None, None) => {
            report.skipped(check, format!("{version}; GitHub is asked once a runner was online"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_of_another_release_is_a_warning() {
        let found = |version: &str| {
            let mut report = Report::default();
            let description = Ok(serde_json::json!({ "info": { "version": version } }));
            check_program(Some(&description), &mut report);
            report.to_json()[0]["outcome"].clone()
        };
        assert_eq!(found(env!("CARGO_PKG_VERSION")), "ok");
        assert_eq!(found("0.0.1"), "warning");
    }

    #[test]
    fn an_end_is_a_warning_a_week_ahead_and_then_a_failure() {
        let day: UnixMs = 24 * 3_600_000;
        let ends = 1_796_688_000_000;
        let known = |ends_ms, problem: Option<&str>| RunnerVersionView {
            version: Some("2.335.0".into()),
            ends_ms,
            problem: problem.map(str::to_owned),
        };
        for (known, now, outcome, message) in [
            (known(Some(ends), None), ends - 8 * day, "ok", "accepts it until 2026-12-08"),
            (known(Some(ends), None), ends - 6 * day, "warning", "from 2026-12-08 on; pull"),
            (known(Some(ends), None), ends, "failed", "since 2026-12-08; pull"),
            (known(None, Some("404")), ends, "ok", "is unknown: 404"),
            (known(None, None), ends, "skipped", "asked once a runner was online"),
        ] {
            let mut report = Report::default();
            check_pool("small", Some(known), now, &mut report);
            let found = report.to_json().to_string();
            let outcome = format!("\"outcome\":\"{outcome}\"");
            assert!(found.contains(&outcome) && found.contains(message), "{found}");
        }
    }
}
