//! Whether Envoy grows under many deliveries, and how long the largest holds up
//! the others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::progress::Step;
use crate::stack::Stack;

use super::delivery::{Factory, Kind};
use super::load::{self, Expected};
use super::one_worker::{self, Envoy, OneWorker};

const CONNECTIONS: usize = 4;
/// One in a hundred has [`LARGE`] bytes.
const BATCH: usize = 1_000;
const LARGE_EVERY: usize = 100;
const LARGE: usize = 5_000_000;
/// The most that GitHub sends.
const LARGEST: usize = 25_000_000;
const LARGEST_COUNT: usize = 10;

/// Several batches are sent first, until everything is as large as it needs to
/// be. V8 tells Envoy nothing of the memory of its VMs, so this is the process.
pub(super) async fn measure(
    stack: &Stack,
    one_worker: &OneWorker,
    secret: &str,
    deliveries: usize,
) -> Result<String> {
    let address = one_worker.filter();
    let envoy = one_worker::process(stack, Envoy::Filter)?;
    let mut factory = Factory::new(secret)?;
    let mut step = Step::start(format!("{deliveries} deliveries, 1 % of them of 5 MB"));
    for _ in 0..3 {
        batch(address, &mut factory).await?;
    }
    let (before, begun) = (envoy.memory_kib()?, Instant::now());
    let mut sent = 0;
    while sent < deliveries {
        batch(address, &mut factory).await?;
        sent += BATCH;
        step.detail(&format!("{sent} sent"));
    }
    let after = envoy.memory_kib()?;
    step.done("");
    Ok(format!(
        "memory of Envoy: {} MiB before, {} MiB after {sent} deliveries in {:.0?}, 1 % of 5 MB",
        before / 1024,
        after / 1024,
        begun.elapsed(),
    ))
}

async fn batch(address: SocketAddr, factory: &mut Factory) -> Result<()> {
    let mut deliveries = factory.make(Kind::Queued, BATCH);
    for delivery in deliveries.iter_mut().step_by(LARGE_EVERY) {
        *delivery = factory.padded(LARGE);
    }
    load::round(address, deliveries, CONNECTIONS, Expected::ACCEPTED).await?;
    Ok(())
}

/// Small deliveries, one after the other, while one of the largest is on its way.
pub(super) async fn largest(address: SocketAddr, secret: &str) -> Result<String> {
    let mut factory = Factory::new(secret)?;
    let step = Step::start("small deliveries beside one of 25 MB".to_owned());
    let mut took = Vec::new();
    let mut beside = load::histogram()?;
    let quiet = load::round(address, factory.make(Kind::Queued, BATCH), 1, Expected::ACCEPTED)
        .await?
        .latencies_us;
    for _ in 0..LARGEST_COUNT {
        let largest = vec![factory.padded(LARGEST)];
        let begun = Instant::now();
        let mut large = std::pin::pin!(load::round(address, largest, 1, Expected::ACCEPTED));
        let done = loop {
            let small = load::round(address, factory.make(Kind::Queued, 1), 1, Expected::ACCEPTED);
            tokio::select! {
                done = &mut large => break done?,
                small = small => beside.add(small?.latencies_us)?,
            }
        };
        drop(done);
        took.push(begun.elapsed());
    }
    step.done("");
    let longest = Duration::from_micros(beside.max());
    let p50 = Duration::from_micros(beside.value_at_quantile(0.5));
    took.sort_unstable();
    Ok(format!(
        "one of 25 MB takes {:.0?}; small ones beside it {p50:.1?} (p50) and {longest:.1?} at most, \
         without it {:.1?} and {:.1?}",
        took.get(took.len() / 2).copied().unwrap_or_default(),
        Duration::from_micros(quiet.value_at_quantile(0.5)),
        Duration::from_micros(quiet.max()),
    ))
}
