//! Webhooks per second, their latency, and the processor time of each.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use edgerunner_testkit::Deployment;
use edgerunner_testkit::deployment::Secrets;
use edgerunner_testkit::ports::free;

use crate::compare::{self, Measured, Plan, Side};
use crate::delivery::{Factory, Kind};
use crate::load::{self, Expected};
use crate::table::table;
use crate::{debian_webhook, fastapi, machine};

/// Connections, and deliveries in a round.
const LOADS: [(usize, usize); 2] = [(1, 2_000), (64, 10_000)];

/// The addresses of the other receivers.
pub(crate) struct Others {
    fastapi: SocketAddr,
    verifying: SocketAddr,
    running: SocketAddr,
}

pub(crate) async fn start_others(deployment: &mut Deployment, secrets: &Secrets) -> Result<Others> {
    let others = Others { fastapi: free()?, verifying: free()?, running: free()? };
    let gunicorn = fastapi::command(others.fastapi, secrets)?;
    deployment.start(fastapi::NAME, gunicorn, (others.fastapi, "/openapi.json")).await?;
    for (name, address) in
        [(debian_webhook::VERIFYING, others.verifying), (debian_webhook::RUNNING, others.running)]
    {
        let webhook =
            debian_webhook::command(name, &deployment.settings.directory, address, secrets)?;
        deployment.start(name, webhook, (address, "/")).await?;
    }
    Ok(others)
}

pub(crate) async fn measure(
    deployment: &Deployment,
    others: &Others,
    secret: &str,
    rounds: u32,
) -> Result<String> {
    let workers = machine::cores();
    let side = |name: String, address, processes| Side {
        name,
        address,
        processes,
        kind: Kind::Queued,
        expected: Expected::ACCEPTED,
    };
    let envoy = deployment.envoy()?;
    let sides = [
        side(
            format!("edgerunner: Envoy, {workers} workers; verified and stored"),
            envoy.address(),
            vec![envoy.process(), deployment.sidecar()?.process()?],
        ),
        side(
            format!("FastAPI: gunicorn, {workers} uvicorn workers; verified"),
            others.fastapi,
            vec![deployment.other(fastapi::NAME)?],
        ),
        side(
            format!("webhook, {workers} threads; verified, /bin/true run"),
            others.running,
            vec![deployment.other(debian_webhook::RUNNING)?],
        ),
        side(
            format!("webhook, {workers} threads; verified, nothing run"),
            others.verifying,
            vec![deployment.other(debian_webhook::VERIFYING)?],
        ),
    ];
    let mut factory = Factory::new(secret)?;
    for side in &sides {
        for forged in factory.make(Kind::WronglySigned, 1) {
            let status = load::status(side.address, &forged).await?;
            ensure!(status >= 400, "{} accepted a forged delivery", side.name);
        }
    }
    let mut table = table([
        "webhooks",
        "connections",
        "per second",
        "(lowest to highest)",
        "p50",
        "p99",
        "CPU µs each",
    ]);
    let mut generator = Vec::new();
    for (connections, requests) in LOADS {
        eprintln!("  {connections} connection(s)");
        let plan = Plan { connections, requests, rounds };
        let results = compare::run(&mut factory, &sides, &plan).await?;
        for (side, result) in sides.iter().zip(&results) {
            table.add_row(row(&side.name, connections, result));
        }
        if let [ours, others @ ..] = results.as_slice() {
            for (name, theirs) in
                ["FastAPI", "webhook", "webhook that runs nothing"].iter().zip(others)
            {
                table.add_row(ratios(name, connections, ours, theirs));
            }
            generator.push(format!("{:.0}", ours.generator_us()));
        }
    }
    Ok(format!(
        "{table}\n\
         Each has as many workers as there are cores. CPU is the sum of a side's processes; for \
         edgerunner: Envoy + sidecar.\n\
         webhook responds before its command has run; the command counts as CPU, not as \
         latency.\n\
         The load generator uses the same cores: {} µs per delivery to edgerunner over 1 and 64 \
         connections.",
        generator.join(" and ")
    ))
}

fn row(name: &str, connections: usize, measured: &Measured) -> Vec<String> {
    let per_second = measured.per_second();
    let parts: Vec<String> = measured.cpu_us().iter().map(|us| format!("{us:.0}")).collect();
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
        format!("  edgerunner compared with {name}"),
        connections.to_string(),
        times(ours.per_second().median, theirs.per_second().median),
        String::new(),
        times(ours.latency_us(0.50), theirs.latency_us(0.50)),
        times(ours.latency_us(0.99), theirs.latency_us(0.99)),
        times(ours.all_cpu_us(), theirs.all_cpu_us()),
    ]
}

fn milliseconds(us: f64) -> String {
    format!("{:.2} ms", us / 1_000.0)
}
