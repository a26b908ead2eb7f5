//! Checks whether the pools that park runners have them.

use anyhow::Result;
use serde_json::Value;

use super::report::Report;
use crate::{
    cli::output::parse,
    config::{Config, DockerAccess},
    control::snapshot::PoolView,
};

/// `pools`: as the sidecar lists them, if it is ready.
pub(super) fn check(config: &Config, pools: Option<&Result<Value>>, report: &mut Report) {
    let Some(Ok(pools)) = pools else { return };
    let Ok(pools) = parse::<Vec<PoolView>>(pools.clone()) else { return };
    for pool in pools.iter().filter(|pool| pool.parked_wanted > 0) {
        let configured = config.pools.iter().find(|it| it.name == pool.name);
        let has_engine = configured.is_some_and(|it| it.container.docker == DockerAccess::Dind);
        check_pool(pool, has_engine, report);
    }
}

/// `has_engine`: each runner has a Docker Engine of its own.
fn check_pool(pool: &PoolView, has_engine: bool, report: &mut Report) {
    let PoolView { parked, parked_wanted, parked_not_started, .. } = pool;
    let check = format!("parked runners of pool {}", pool.name);
    if *parked == 0 {
        let what = "none: see its failures in `edgerunner status`, and the sidecar's log";
        return report.warning(check, what);
    }
    let count = format!("{parked}, {parked_wanted} at each target are wanted");
    match (*parked_not_started, has_engine) {
        (0, _) => report.ok(check, count),
        (_, true) => {
            let why = "created but not started, because their own Docker Engines start with them";
            report.ok(check, format!("{count}; {why}"));
        }
        (created, false) => {
            let advice = "created but not started, because the image has no /bin/sh: add one to \
                          save the time of a start";
            report.warning(check, format!("{count}; {created} are {advice}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{clock, snapshot::Snapshot};
    use edgerunner_scheduler::plan::State;

    #[test]
    fn an_image_without_a_shell_and_a_pool_without_its_runners_are_warnings() {
        let state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let pool = Snapshot::new(&state, clock::now()).pools.remove(0);
        for (parked, created, has_engine, outcome, message) in [
            (2, 0, false, "ok", "2, 2 at each target are wanted"),
            (2, 2, true, "ok", "their own Docker Engines"),
            (2, 1, false, "warning", "1 are created but not started, because the image"),
            (0, 0, false, "warning", "none"),
        ] {
            let mut report = Report::default();
            let pool =
                PoolView { parked, parked_wanted: 2, parked_not_started: created, ..pool.clone() };
            check_pool(&pool, has_engine, &mut report);
            let found = report.to_json().to_string();
            let outcome = format!("\"outcome\":\"{outcome}\"");
            assert!(found.contains(&outcome) && found.contains(message), "{found}");
        }
    }
}
