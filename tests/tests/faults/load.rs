//! Jobs at random moments.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::time::Duration;

use edgerunner_sandbox::{JobRequest, Sandbox};
use fastrand::Rng;
use tokio::time::sleep;

/// The pause between two jobs.
const INTERVAL_MS: RangeInclusive<u64> = 50..=300;
/// The duration of jobs, so that faults meet runners in every phase.
const WORK_MS: RangeInclusive<u32> = 10..=500;

/// Queues jobs at random moments until it is dropped.
pub(crate) async fn stream(sandbox: &Sandbox, mut random: Rng) -> Infallible {
    loop {
        sandbox.queue_job(&request(&mut random, 1));
        sleep(Duration::from_millis(random.u64(INTERVAL_MS))).await;
    }
}

pub(crate) fn burst(sandbox: &Sandbox, random: &mut Rng, count: u32) -> Vec<u64> {
    sandbox.queue_jobs(&request(random, count))
}

fn request(random: &mut Rng, count: u32) -> JobRequest {
    let seconds = f64::from(random.u32(WORK_MS)) / 1_000.0;
    JobRequest { seconds, count, ..JobRequest::default() }
}
