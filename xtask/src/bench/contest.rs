//! Sides that are measured in turns: what disturbs one disturbs the others.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::process::{Process, own_cpu};
use crate::progress::Step;

use super::delivery::{Factory, Kind};
use super::load::{self, Expected, Round};
use super::spread::Spread;

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
const LOOKS_MAX: usize = 50;

pub(super) struct Side<'a> {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// Whose processor time counts.
    pub(super) processes: Vec<&'a Process>,
    pub(super) kind: Kind,
    pub(super) expected: Expected,
}

pub(super) struct Plan {
    pub(super) connections: usize,
    /// Requests of a round.
    pub(super) requests: usize,
    pub(super) rounds: u32,
}

pub(super) struct Measured {
    pub(super) per_second: Spread,
    latencies_us: Histogram<u64>,
    /// For a request, of each process.
    pub(super) cpu_us: Vec<f64>,
    /// For a request, of the load generator.
    pub(super) generator_us: f64,
}

impl Measured {
    pub(super) fn latency_us(&self, quantile: f64) -> f64 {
        micros(Duration::from_micros(self.latencies_us.value_at_quantile(quantile)))
    }

    pub(super) fn mean_latency_us(&self) -> f64 {
        self.latencies_us.mean()
    }

    pub(super) fn all_cpu_us(&self) -> f64 {
        self.cpu_us.iter().sum()
    }
}

/// One result for each side, after rounds that do not count.
pub(super) async fn run(
    step: &mut Step,
    factory: &mut Factory,
    sides: &[Side<'_>],
    plan: &Plan,
) -> Result<Vec<Measured>> {
    for side in sides {
        let requests = factory.make(side.kind, plan.requests.div_ceil(4));
        send(side, requests, plan.connections).await?;
    }
    // The filter looks now and then whether it needs its stream to the sidecar.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut tallies = Vec::new();
    for side in sides {
        tallies.push(Tally::new(side.processes.len())?);
    }
    for round in 1..=plan.rounds {
        step.detail(&format!("round {round} of {}", plan.rounds));
        for (side, tally) in sides.iter().zip(&mut tallies) {
            let requests = factory.make(side.kind, plan.requests);
            let before = cpu(side)?;
            let generator_before = own_cpu()?;
            let round = send(side, requests, plan.connections).await?;
            let generator = own_cpu()?.saturating_sub(generator_before);
            let after = at_rest(side).await?;
            #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
            let answered = round.latencies_us.len() as f64;
            for (index, cpu) in tally.cpu_us.iter_mut().enumerate() {
                if let (Some(before), Some(after)) = (before.get(index), after.get(index)) {
                    cpu.push(micros(after.saturating_sub(*before)) / answered);
                }
            }
            tally.generator_us.push(micros(generator) / answered);
            tally.per_second.push(round.per_second);
            tally.latencies_us.add(round.latencies_us)?;
        }
    }
    Ok(tallies.into_iter().map(Tally::measured).collect())
}

async fn send(side: &Side<'_>, requests: Vec<Bytes>, connections: usize) -> Result<Round> {
    Box::pin(load::round(side.address, requests, connections, side.expected)).await
}

/// Their processor time once they have done what they put off until after the answer: it
/// is part of the price, and would disturb the next side.
async fn at_rest(side: &Side<'_>) -> Result<Vec<Duration>> {
    let mut before = cpu(side)?;
    for _ in 0..LOOKS_MAX {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let now = cpu(side)?;
        let busy = now.iter().sum::<Duration>().saturating_sub(before.iter().sum());
        before = now;
        if busy < LOOK_INTERVAL / 5 {
            break;
        }
    }
    Ok(before)
}

fn cpu(side: &Side<'_>) -> Result<Vec<Duration>> {
    side.processes.iter().map(|process| process.cpu()).collect()
}

/// A value for each round.
struct Tally {
    per_second: Vec<f64>,
    latencies_us: Histogram<u64>,
    cpu_us: Vec<Vec<f64>>,
    generator_us: Vec<f64>,
}

impl Tally {
    fn new(processes: usize) -> Result<Self> {
        Ok(Self {
            per_second: Vec::new(),
            latencies_us: load::histogram()?,
            cpu_us: vec![Vec::new(); processes],
            generator_us: Vec::new(),
        })
    }

    fn measured(self) -> Measured {
        Measured {
            per_second: Spread::of(&self.per_second),
            latencies_us: self.latencies_us,
            cpu_us: self.cpu_us.iter().map(|rounds| Spread::of(rounds).median).collect(),
            generator_us: Spread::of(&self.generator_us).median,
        }
    }
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
