//! Lost jobs: those that ended because their runner did.

use edgerunner_scheduler::{
    model::{JobKey, UnixMs},
    plan::EndReason,
};

/// Jobs that one look finds.
const FOUND_MAX: u32 = 100;

/// A job that failed in the first attempt of its run, together with its runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LostJob {
    pub key: JobKey,
    pub run_id: u64,
    pub repository: String,
    pub pool: String,
    /// That its runner was registered at.
    pub target: String,
    /// First delivery about it.
    pub delivery: String,
}

/// A request to run jobs again, or that this is given up.
#[derive(Clone, Debug)]
pub(crate) struct Rerun {
    pub jobs: Vec<JobKey>,
    pub at: UnixMs,
}

/// The lost jobs that changed since $1, whose run has no later attempt and that nobody was asked to
/// run again. A person who cancels a job does not lose it.
pub(super) fn query() -> String {
    let lost =
        [EndReason::MachineLost, EndReason::Vanished, EndReason::OutOfMemory { exit_code: 0 }];
    let lost = lost.map(|reason| format!("'{}'", reason.as_str())).join(", ");
    format!(
        "SELECT jobs.id, jobs.run_attempt, jobs.host, jobs.run_id, jobs.repository, jobs.delivery,
             runners.pool, runners.target
         FROM jobs JOIN runners ON runners.name = jobs.runner_name
         WHERE jobs.state = 2 AND jobs.changed_ms >= $1 AND jobs.run_attempt = 1
             AND jobs.rerun_ms IS NULL AND jobs.conclusion = 'failure'
             AND runners.end_reason IN ({lost})
             AND NOT EXISTS (SELECT 1 FROM jobs AS later
                 WHERE later.changed_ms >= $1 AND later.run_id = jobs.run_id
                     AND later.host = jobs.host AND later.run_attempt > 1)
         ORDER BY jobs.changed_ms LIMIT {FOUND_MAX}"
    )
}
