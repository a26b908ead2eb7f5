//! Jobs at random moments.

use std::convert::Infallible;
use std::ops::RangeInclusive;
use std::time::Duration;

use edgerunner_sandbox::{JobRequest, JobStatus, Sandbox};
use fastrand::Rng;
use tokio::time::sleep;

/// The pause between two jobs.
const INTERVAL_MS: RangeInclusive<u64> = 50..=300;
/// The duration of jobs, so that faults meet runners in every phase.
const WORK_MS: RangeInclusive<u32> = 10..=500;
/// The same on many nodes, where a runner starts more slowly.
const BOUNDED_INTERVAL_MS: RangeInclusive<u64> = 100..=800;
const BOUNDED_WORK_MS: RangeInclusive<u32> = 500..=4_000;

/// Queues jobs at random moments until it is dropped.
pub(crate) async fn stream(sandbox: &Sandbox, mut random: Rng) -> Infallible {
    loop {
        sandbox.queue_job(&request(&mut random, 1));
        sleep(Duration::from_millis(random.u64(INTERVAL_MS))).await;
    }
}

/// Queues longer jobs at random moments until it is dropped; none while `max` are not over.
pub(crate) async fn bounded(sandbox: &Sandbox, mut random: Rng, max: usize) -> Infallible {
    loop {
        let left = sandbox.jobs().iter().filter(|it| it.status != JobStatus::Completed).count();
        if left < max {
            let seconds = f64::from(random.u32(BOUNDED_WORK_MS)) / 1_000.0;
            sandbox.queue_job(&JobRequest { seconds, ..JobRequest::default() });
        }
        sleep(Duration::from_millis(random.u64(BOUNDED_INTERVAL_MS))).await;
    }
}

pub(crate) fn burst(sandbox: &Sandbox, random: &mut Rng, count: u32) -> Vec<u64> {
    sandbox.queue_jobs(&request(random, count))
}

fn request(random: &mut Rng, count: u32) -> JobRequest {
    let seconds = f64::from(random.u32(WORK_MS)) / 1_000.0;
    JobRequest { seconds, count, ..JobRequest::default() }
}
