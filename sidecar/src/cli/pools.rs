//! `edgerunner pools`, with `show`.

mod show;

use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::{
    client::Client,
    output::{Form, Output, Table, Width, names_in, parse},
};
use crate::control::snapshot::PoolView;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Show everything about a pool, with its runners and the jobs that wait for it.
    Show {
        /// Name of the pool, as shown by `edgerunner pools`.
        name: String,
        #[command(flatten)]
        form: Form,
    },
}

impl Arguments {
    pub(super) fn run(&self, client: &Client) -> Result<()> {
        match &self.command {
            None => self.output.show(
                || client.get("/api/v1/pools"),
                |pools| names_in(pools, "name"),
                table,
            ),
            Some(Command::Show { name, form }) => {
                let pool = show::find(&client.get("/api/v1/status")?, name)?;
                form.print(&pool, |_| vec![name.clone()], show::describe)
            }
        }
    }
}

fn table(pools: &Value, width: Width) -> Result<String> {
    let pools: Vec<PoolView> = parse(pools.clone())?;
    Ok(to_table(&pools).within(width))
}

pub(super) fn to_table(pools: &[PoolView]) -> Table {
    let names = [
        "POOL",
        "LABELS",
        "QUEUED",
        "LAUNCHING",
        "STARTING",
        "IDLE",
        "MIN IDLE",
        "PARKED",
        "BUSY",
        "LEAVING",
        "MAX",
        "DRAINING",
        "VERSION",
        "ENDS",
    ];
    let table = Table::new(names, &[]).cut(&[(0, 22), (1, 16)]).optional(&[1, 6, 12, 3, 4, 9]);
    let mut table = table.if_any(7).if_any(12).if_any(13);
    for pool in pools {
        table.push([
            pool.name.clone(),
            pool.labels.join(" "),
            pool.queued.to_string(),
            pool.provisioning.to_string(),
            pool.starting.to_string(),
            pool.idle.to_string(),
            pool.min_idle.to_string(),
            parked(pool),
            pool.busy.to_string(),
            pool.leaving.to_string(),
            pool.max.to_string(),
            draining(pool).to_owned(),
            version(pool),
            ends(pool),
        ]);
    }
    table
}

/// Empty for a pool that parks no runners.
fn parked(pool: &PoolView) -> String {
    let PoolView { parked, parked_not_started, parked_wanted, .. } = pool;
    match (parked, parked_wanted) {
        (0, 0) => String::new(),
        _ if *parked_not_started > 0 => format!("{parked} ({parked_not_started} not started)"),
        _ => parked.to_string(),
    }
}

fn draining(pool: &PoolView) -> &'static str {
    match (pool.all_draining, pool.draining) {
        (true, _) => "all pools",
        (false, true) => "yes",
        (false, false) => "",
    }
}

/// Empty until something is known.
fn version(pool: &PoolView) -> String {
    let Some(known) = &pool.runner_version else { return String::new() };
    known.version.clone().unwrap_or_else(|| "unknown".to_owned())
}

/// When GitHub stops accepting the version; empty before it was asked.
fn ends(pool: &PoolView) -> String {
    let Some(known) = &pool.runner_version else { return String::new() };
    let unknown = || known.problem.as_ref().map(|_| "unknown".to_owned());
    known.end_date().or_else(unknown).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        control::{
            clock,
            snapshot::{RunnerVersionView, Snapshot},
        },
    };
    use edgerunner_scheduler::plan::{self, Event, State};

    #[test]
    fn the_version_of_the_runners_and_its_end_are_shown_as_far_as_they_are_known() {
        let state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let shown = |version: Option<&str>, ends_ms, problem: Option<&str>| {
            let mut pools = Snapshot::new(&state, clock::now()).pools;
            let version = version.map(str::to_owned);
            let problem = problem.map(str::to_owned);
            pools[0].runner_version = Some(RunnerVersionView { version, ends_ms, problem });
            (super::version(&pools[0]), ends(&pools[0]))
        };
        let of = |version: &str, ends: &str| (version.to_owned(), ends.to_owned());
        let ends_ms = Some(1_796_688_000_000);
        assert_eq!(shown(Some("2.335.0"), ends_ms, None), of("2.335.0", "2026-12-08"));
        assert_eq!(shown(Some("2.335.0"), None, None), of("2.335.0", ""));
        assert_eq!(shown(Some("2.335.0"), None, Some("404")), of("2.335.0", "unknown"));
        assert_eq!(shown(None, None, Some("no list")), of("unknown", "unknown"));
        let nothing = to_table(&Snapshot::new(&state, clock::now()).pools).within(Width::FULL);
        assert!(!nothing.contains("VERSION") && !nothing.contains("ENDS"), "{nothing}");
    }

    #[test]
    fn the_column_shows_whether_a_pool_or_all_pools_drain() {
        let mut state = State::new(Config::load(None, &|_| None).unwrap().planner_settings(), 1);
        let mut shown = |pool, drains| {
            plan::plan(&mut state, Event::Drain { pool, draining: drains }, clock::now());
            draining(&Snapshot::new(&state, clock::now()).pools[0])
        };
        assert_eq!(shown(Some(0), true), "yes");
        assert_eq!(shown(None, true), "all pools");
        assert_eq!(shown(None, false), "");
    }
}
