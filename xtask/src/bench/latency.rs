//! The way of one delivery at a time, and where its time goes.

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use crate::http;
use crate::ports::local;
use crate::progress::Step;
use crate::stack::Stack;

use super::contest::{self, Plan};
use super::delivery::{Factory, Kind};
use super::one_worker::{Envoy, OneWorker};

const PLAN: Plan = Plan { connections: 1, requests: 2_000, rounds: 0 };

/// Of the sidecar: its sum and its count.
const COMMIT: &str = "edgerunner_store_commit_seconds";

pub(super) async fn measure(
    stack: &Stack,
    one_worker: &OneWorker,
    secret: &str,
    rounds: u32,
) -> Result<String> {
    let mut step = Step::start("the way of one delivery at a time");
    let side = |envoy, kind, name| one_worker.side(stack, envoy, kind, name);
    // Each goes one step further than the one before.
    let sides = [
        side(Envoy::Buffering, Kind::WronglySigned, "Envoy has read it and answers (no filter)")?,
        side(Envoy::Filter, Kind::WronglySigned, "the filter has hashed it and refuses")?,
        side(Envoy::Filter, Kind::Ignored, "the filter has parsed it and ignores it")?,
        side(Envoy::Filter, Kind::Queued, "the sidecar has it on disk: accepted")?,
    ];
    let mut factory = Factory::new(secret)?;
    let commits_before = Commits::read(stack).await?;
    let results = contest::run(&mut step, &mut factory, &sides, &Plan { rounds, ..PLAN }).await?;
    let commit_us = Commits::read(stack).await?.mean_us_since(&commits_before);
    step.done("");

    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "one delivery at a time, until",
        "p50",
        "mean",
        "share of the mean",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut before = 0.0;
    for (side, result) in sides.iter().zip(&results) {
        let mean = result.mean_latency_us();
        table.add_row([
            side.name.clone(),
            microseconds(result.latency_us(0.50)),
            microseconds(mean),
            microseconds(mean - before),
        ]);
        if side.kind == Kind::Queued {
            let rest = mean - before - commit_us;
            for (name, share) in [
                ("  in the commit, by the sidecar's own metric", commit_us),
                ("  on the way and in queues", rest),
            ] {
                table.add_row([name.to_owned(), String::new(), String::new(), microseconds(share)]);
            }
        }
        before = mean;
    }
    Ok(table.to_string())
}

struct Commits {
    seconds: f64,
    count: f64,
}

impl Commits {
    async fn read(stack: &Stack) -> Result<Self> {
        let (_, text) = Box::pin(http::get(local(stack.ports().http), "/metrics")).await?;
        let text = String::from_utf8_lossy(&text);
        let value = |suffix: &str| {
            let name = format!("{COMMIT}_{suffix} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&name));
            // It is there after the first commit.
            value.map_or(Ok(0.0), |value| value.trim().parse().context(COMMIT))
        };
        Ok(Self { seconds: value("sum")?, count: value("count")? })
    }

    fn mean_us_since(&self, before: &Self) -> f64 {
        (self.seconds - before.seconds) / (self.count - before.count) * 1e6
    }
}

fn microseconds(us: f64) -> String {
    format!("{us:.0} µs")
}
