//! Webhooks accepted a second, how long each takes, and what it costs.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};

use crate::ports::{Ports, local};
use crate::programs::Secrets;
use crate::progress::Step;
use crate::stack::Stack;
use crate::stop::Stop;

use super::contest::{self, Measured, Plan, Side};
use super::delivery::{Factory, Kind};
use super::load::{self, Expected};
use super::{debian_webhook, fastapi, machine};

/// Connections, and deliveries a round.
const LOADS: [(usize, usize); 2] = [(1, 2_000), (64, 10_000)];

/// Where the others listen.
pub(super) struct Others {
    pub(super) fastapi: SocketAddr,
    pub(super) verifying: SocketAddr,
    pub(super) running: SocketAddr,
}

impl Others {
    pub(super) async fn start(stop: &Stop, stack: &mut Stack, secrets: &Secrets) -> Result<Self> {
        let packages = fastapi::install(stop).await?;
        debian_webhook::install(stop).await?;
        let port = Ports::free()?.http;
        let gunicorn = fastapi::command(&packages, port, secrets);
        stack.start(stop, fastapi::NAME, gunicorn, (local(port), "/openapi.json")).await?;
        let fastapi = local(port);
        let mut webhooks = Vec::new();
        for name in [debian_webhook::VERIFYING, debian_webhook::RUNNING] {
            let port = Ports::free()?.http;
            let webhook = debian_webhook::command(name, stack.directory(), port, secrets)?;
            stack.start(stop, name, webhook, (local(port), "/")).await?;
            webhooks.push(local(port));
        }
        let [verifying, running] = webhooks[..] else {
            bail!("a receiver is missing");
        };
        Ok(Self { fastapi, verifying, running })
    }
}

pub(super) async fn measure(
    stack: &Stack,
    others: &Others,
    secret: &str,
    rounds: u32,
) -> Result<String> {
    let workers = machine::cores();
    let side = |name: String, address: SocketAddr, processes: &[&str]| {
        let processes = processes.iter().map(|name| stack.process(name));
        anyhow::Ok(Side {
            name,
            address,
            processes: processes.collect::<Option<_>>().context("a process is missing")?,
            kind: Kind::Queued,
            expected: Expected::ACCEPTED,
        })
    };
    let sides = [
        side(
            format!("edgerunner: Envoy, {workers} workers; verified and stored"),
            local(stack.ports().envoy),
            &["envoy", "sidecar"],
        )?,
        side(
            format!("FastAPI: gunicorn, {workers} uvicorn workers; verified"),
            others.fastapi,
            &[fastapi::NAME],
        )?,
        side(
            format!("webhook, {workers} threads; verified, /bin/true run"),
            others.running,
            &[debian_webhook::RUNNING],
        )?,
        side(
            format!("webhook, {workers} threads; verified, nothing run"),
            others.verifying,
            &[debian_webhook::VERIFYING],
        )?,
    ];
    let mut factory = Factory::new(secret)?;
    for side in &sides {
        for forged in factory.make(Kind::WronglySigned, 1) {
            let status = load::status(side.address, &forged).await?;
            ensure!(status >= 400, "{} took a forged delivery", side.name);
        }
    }
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "webhooks",
        "connections",
        "per second",
        "(lowest to highest)",
        "p50",
        "p99",
        "CPU µs each",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut generator = Vec::new();
    for (connections, requests) in LOADS {
        let mut step = Step::start(format!("webhooks over {connections} connection(s)"));
        let plan = Plan { connections, requests, rounds };
        let results = contest::run(&mut step, &mut factory, &sides, &plan).await?;
        step.done("");
        for (side, result) in sides.iter().zip(&results) {
            table.add_row(row(&side.name, connections, result));
        }
        if let [ours, others @ ..] = results.as_slice() {
            for (name, theirs) in
                ["FastAPI", "webhook", "webhook that runs nothing"].iter().zip(others)
            {
                table.add_row(ratios(name, connections, ours, theirs));
            }
            generator.push(format!("{:.0}", ours.generator_us));
        }
    }
    Ok(format!(
        "{table}\n\
         Each has as many workers as there are cores. CPU is of all processes of a side; of \
         edgerunner: Envoy + sidecar.\n\
         webhook answers before its command has run; what it then does counts as CPU, not as \
         time.\n\
         The load generator takes of the same cores, for a delivery to edgerunner: {} µs over 1 \
         and 64 connections.",
        generator.join(" and ")
    ))
}

fn row(name: &str, connections: usize, measured: &Measured) -> Vec<String> {
    let per_second = &measured.per_second;
    let parts: Vec<String> = measured.cpu_us.iter().map(|us| format!("{us:.0}")).collect();
    let cpu = match parts.as_slice() {
        [_] => parts.concat(),
        _ => format!("{:.0} = {}", measured.all_cpu_us(), parts.join(" + ")),
    };
    vec![
        name.to_owned(),
        connections.to_string(),
        format!("{:.0}", per_second.median),
        format!("{:.0} to {:.0}", per_second.lowest, per_second.highest),
        milliseconds(measured.latency_us(0.50)),
        milliseconds(measured.latency_us(0.99)),
        cpu,
    ]
}

fn ratios(name: &str, connections: usize, ours: &Measured, theirs: &Measured) -> Vec<String> {
    let times = |ours: f64, theirs: f64| format!("{:.2} ×", ours / theirs);
    vec![
        format!("  edgerunner to {name}"),
        connections.to_string(),
        times(ours.per_second.median, theirs.per_second.median),
        String::new(),
        times(ours.latency_us(0.50), theirs.latency_us(0.50)),
        times(ours.latency_us(0.99), theirs.latency_us(0.99)),
        times(ours.all_cpu_us(), theirs.all_cpu_us()),
    ]
}

fn milliseconds(us: f64) -> String {
    format!("{:.2} ms", us / 1_000.0)
}
