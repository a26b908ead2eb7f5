//! Webhooks accepted a second, and how long each takes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;

use crate::progress::Step;

use super::delivery::Factory;
use super::load;
use super::spread::Spread;

/// Connections, and deliveries a round.
const LOADS: [(usize, usize); 2] = [(1, 2_000), (64, 10_000)];
const WARM_UP: usize = 500;

struct Side {
    name: &'static str,
    address: SocketAddr,
}

struct Measured {
    per_second: Vec<f64>,
    latencies_us: Histogram<u64>,
}

pub(super) async fn measure(
    ours: SocketAddr,
    theirs: SocketAddr,
    secret: &str,
    rounds: u32,
) -> Result<Table> {
    let sides = [
        Side { name: "edgerunner: Envoy, 1 worker; verified and stored", address: ours },
        Side { name: "FastAPI: gunicorn, 2 uvicorn workers; verified", address: theirs },
    ];
    let mut factory = Factory::new(secret)?;
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "webhooks",
        "connections",
        "per second",
        "(lowest to highest)",
        "p50",
        "p99",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (connections, count) in LOADS {
        let mut step = Step::start(format!("webhooks over {connections} connection(s)"));
        for side in &sides {
            load::round(side.address, factory.make(WARM_UP), connections).await?;
        }
        let mut results = Vec::new();
        for _ in &sides {
            results.push(Measured { per_second: Vec::new(), latencies_us: load::histogram()? });
        }
        for round in 1..=rounds {
            step.detail(&format!("round {round} of {rounds}"));
            for (side, result) in sides.iter().zip(&mut results) {
                let round = load::round(side.address, factory.make(count), connections).await?;
                result.per_second.push(round.per_second);
                result.latencies_us.add(round.latencies_us)?;
            }
        }
        step.done("");
        for (side, result) in sides.iter().zip(&results) {
            table.add_row(row(side.name, connections, result));
        }
        if let [ours, theirs] = results.as_slice() {
            table.add_row(ratios(connections, ours, theirs));
        }
    }
    Ok(table)
}

fn row(name: &str, connections: usize, measured: &Measured) -> Vec<String> {
    let per_second = Spread::of(&measured.per_second);
    vec![
        name.to_owned(),
        connections.to_string(),
        format!("{:.0}", per_second.median),
        format!("{:.0} to {:.0}", per_second.lowest, per_second.highest),
        milliseconds(measured.latencies_us.value_at_quantile(0.50)),
        milliseconds(measured.latencies_us.value_at_quantile(0.99)),
    ]
}

fn ratios(connections: usize, ours: &Measured, theirs: &Measured) -> Vec<String> {
    let per_second = Spread::of(&ours.per_second).median / Spread::of(&theirs.per_second).median;
    let latency = |quantile| {
        let ours = micros(ours.latencies_us.value_at_quantile(quantile));
        format!("{:.2} ×", ours / micros(theirs.latencies_us.value_at_quantile(quantile)))
    };
    vec![
        "  edgerunner to FastAPI".to_owned(),
        connections.to_string(),
        format!("{per_second:.2} ×"),
        String::new(),
        latency(0.50),
        latency(0.99),
    ]
}

fn milliseconds(us: u64) -> String {
    format!("{:.2} ms", micros(us) / 1_000.0)
}

fn micros(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1e6
}
