//! Measures several sides in turns, so that a disturbance affects all of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use edgerunner_testkit::Process;
use edgerunner_testkit::process::own_cpu;
use hdrhistogram::Histogram;

use crate::delivery::{Factory, Kind};
use crate::load::{self, Expected, Round};
use crate::spread::Spread;

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const POLLS_MAX: usize = 50;

pub(crate) struct Side<'a> {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    /// The processes whose processor time counts.
    pub(crate) processes: Vec<&'a Process>,
    pub(crate) kind: Kind,
    pub(crate) expected: Expected,
}

pub(crate) struct Plan {
    pub(crate) connections: usize,
    /// Requests in a round.
    pub(crate) requests: usize,
    pub(crate) rounds: u32,
}

/// The results of one side, a value for each round.
pub(crate) struct Measured {
    per_second: Vec<f64>,
    latencies_us: Histogram<u64>,
    /// For one request, by process.
    cpu_us: Vec<Vec<f64>>,
    /// For one request, in the load generator.
    generator_us: Vec<f64>,
}

impl Measured {
    fn new(processes: usize) -> Result<Self> {
        Ok(Self {
            per_second: Vec::new(),
            latencies_us: load::histogram()?,
            cpu_us: vec![Vec::new(); processes],
            generator_us: Vec::new(),
        })
    }

    pub(crate) fn per_second(&self) -> Spread {
        Spread::of(&self.per_second)
    }

    pub(crate) fn latency_us(&self, quantile: f64) -> f64 {
        micros(Duration::from_micros(self.latencies_us.value_at_quantile(quantile)))
    }

    /// For one request, by process.
    pub(crate) fn cpu_us(&self) -> Vec<f64> {
        self.cpu_us.iter().map(|rounds| Spread::of(rounds).median).collect()
    }

    pub(crate) fn all_cpu_us(&self) -> f64 {
        self.cpu_us().iter().sum()
    }

    /// For one request, in the load generator.
    pub(crate) fn generator_us(&self) -> f64 {
        Spread::of(&self.generator_us).median
    }
}

/// Returns one result for each side. The first round of each is a warm-up.
pub(crate) async fn run(
    factory: &mut Factory,
    sides: &[Side<'_>],
    plan: &Plan,
) -> Result<Vec<Measured>> {
    for side in sides {
        let requests = factory.make(side.kind, plan.requests.div_ceil(4));
        send(side, requests, plan.connections).await?;
    }
    // The filter opens its stream to the sidecar on a timer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut results = Vec::new();
    for side in sides {
        results.push(Measured::new(side.processes.len())?);
    }
    for round in 1..=plan.rounds {
        eprintln!("  round {round} of {}", plan.rounds);
        for (side, result) in sides.iter().zip(&mut results) {
            let requests = factory.make(side.kind, plan.requests);
            let before = cpu(side)?;
            let generator_before = own_cpu()?;
            let round = send(side, requests, plan.connections).await?;
            let generator = own_cpu()?.saturating_sub(generator_before);
            let after = once_idle(side).await?;
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let answered = round.latencies_us.len() as f64;
            for ((cpu, before), after) in result.cpu_us.iter_mut().zip(before).zip(after) {
                cpu.push(micros(after.saturating_sub(before)) / answered);
            }
            result.generator_us.push(micros(generator) / answered);
            result.per_second.push(round.per_second);
            result.latencies_us.add(round.latencies_us)?;
        }
    }
    Ok(results)
}

async fn send(side: &Side<'_>, requests: Vec<Bytes>, connections: usize) -> Result<Round> {
    Box::pin(load::round(side.address, requests, connections, side.expected)).await
}

/// Their processor time once they are idle: work after the response is part of the cost,
/// and would disturb the next side.
async fn once_idle(side: &Side<'_>) -> Result<Vec<Duration>> {
    let mut before = cpu(side)?;
    for _ in 0..POLLS_MAX {
        tokio::time::sleep(POLL_INTERVAL).await;
        let now = cpu(side)?;
        let busy = now.iter().sum::<Duration>().saturating_sub(before.iter().sum());
        before = now;
        if busy < POLL_INTERVAL / 5 {
            break;
        }
    }
    Ok(before)
}

fn cpu(side: &Side<'_>) -> Result<Vec<Duration>> {
    side.processes.iter().map(|process| process.cpu()).collect()
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
