//! Ids of new jobs, runs, runners, deliveries and delivery queues.

use jiff::Timestamp;

/// Ids grow with a time, by default that of the sandbox's start, so that they never repeat ids that
/// a client stored while an earlier sandbox was running.
pub(super) struct Ids {
    job: u64,
    run: u64,
    run_number: u64,
    runner: u64,
    delivery: u64,
    queue: u64,
    message: u64,
}

impl Ids {
    pub(super) fn new(since: Timestamp) -> Self {
        let age = u64::try_from(since.as_second() - 1_700_000_000).unwrap_or_default();
        Self {
            job: 40_000_000_000 + age * 1_000,
            run: 10_000_000_000 + age * 100,
            run_number: 0,
            runner: age * 10,
            delivery: 200_000_000_000 + age * 10_000,
            // A job's queue has the job's id, which stays below this.
            queue: u64::MAX / 2,
            message: 0,
        }
    }

    pub(super) fn job(&mut self) -> u64 {
        next(&mut self.job)
    }

    /// The id and the number of a new run.
    pub(super) fn run(&mut self) -> (u64, u64) {
        (next(&mut self.run), next(&mut self.run_number))
    }

    pub(super) fn runner(&mut self) -> u64 {
        next(&mut self.runner)
    }

    pub(super) fn delivery(&mut self) -> u64 {
        next(&mut self.delivery)
    }

    pub(super) fn message(&mut self) -> u64 {
        next(&mut self.message)
    }

    pub(super) fn queue(&mut self) -> u64 {
        next(&mut self.queue)
    }
}

fn next(id: &mut u64) -> u64 {
    *id += 1;
    *id
}
