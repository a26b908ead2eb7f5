//! What is refused, beside an Envoy that answers the same without the filter.

use anyhow::Result;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use crate::progress::Step;
use crate::stack::Stack;

use super::contest::{self, Plan};
use super::delivery::{Factory, Kind};
use super::one_worker::{Envoy, OneWorker};

const PLAN: Plan = Plan { connections: 64, requests: 20_000, rounds: 0 };

pub(super) async fn measure(
    stack: &Stack,
    one_worker: &OneWorker,
    secret: &str,
    rounds: u32,
) -> Result<String> {
    let mut step = Step::start("refusals");
    let side = |envoy, kind, name| one_worker.side(stack, envoy, kind, name);
    let sides = [
        side(Envoy::Filter, Kind::Unsigned, "no signature, no body: the filter")?,
        side(Envoy::Plain, Kind::Unsigned, "  the same, plain Envoy")?,
        side(Envoy::Filter, Kind::WronglySigned, "wrongly signed: the filter")?,
        side(Envoy::Buffering, Kind::WronglySigned, "  the same, plain Envoy that reads the body")?,
    ];
    let mut factory = Factory::new(secret)?;
    let results = contest::run(&mut step, &mut factory, &sides, &Plan { rounds, ..PLAN }).await?;
    step.done("");

    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "refusals by one worker, 64 connections",
        "per second",
        "(lowest to highest)",
        "CPU µs each",
        "per second of CPU",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (sides, results) in sides.chunks(2).zip(results.chunks(2)) {
        for (side, result) in sides.iter().zip(results) {
            let cpu = result.all_cpu_us();
            let per_second = &result.per_second;
            table.add_row([
                side.name.clone(),
                format!("{:.0}", per_second.median),
                format!("{:.0} to {:.0}", per_second.lowest, per_second.highest),
                format!("{cpu:.0}"),
                format!("{:.0}", 1e6 / cpu),
            ]);
        }
        if let [filter, plain] = results {
            let cpu = filter.all_cpu_us() / plain.all_cpu_us();
            table.add_row([
                "  filter to plain".to_owned(),
                format!("{:.2} ×", filter.per_second.median / plain.per_second.median),
                String::new(),
                format!("{cpu:.2} ×"),
                format!("{:.2} ×", 1.0 / cpu),
            ]);
        }
    }
    Ok(table.to_string())
}
