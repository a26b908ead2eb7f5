//! What the queries about jobs have in common, whichever database answers them.

use super::records::JobFilter;
use edgerunner_scheduler::model::JobState;

pub(super) const COLUMNS: &str = "id, run_attempt, host, state, run_id, repository, organization, \
    enterprise, name, workflow_name, head_branch, html_url, labels, conclusion, runner_name, \
    delivery, created_ms, queued_ms, started_ms, completed_ms, waiting, waiting_message, \
    visibility, from_fork";
/// Unambiguous only where `runners` is not joined as a whole.
pub(super) const RUNNER_COLUMNS: &str = "\
    (SELECT pool FROM runners WHERE runners.name = runner_name) AS pool, \
    (SELECT node FROM runners WHERE runners.name = runner_name) AS node, \
    (SELECT created_ms FROM runners WHERE runners.name = runner_name) AS launched_ms, \
    (SELECT started_ms FROM runners WHERE runners.name = runner_name) AS container_ms";

/// Jobs that one search returns.
pub(super) const FOUND_MAX: u32 = 200;
/// The jobs that changed last, among which a run's jobs are searched. No index has the run:
/// every webhook would have to write it.
pub(super) const SEARCHED_MAX: u32 = 100_000;
pub(super) const QUEUE_TIMES_MAX: u32 = 50_000;

impl JobFilter {
    /// The condition on the state.
    pub(super) fn in_state(&self) -> &'static str {
        // `state < 2` is what the index of open jobs has.
        match self.state {
            None => "true",
            Some(JobState::Queued) => "state < 2 AND state = 0",
            Some(JobState::InProgress) => "state < 2 AND state = 1",
            Some(JobState::Completed) => "state = 2",
        }
    }

    /// Limits a search among jobs that may be many; empty for others.
    pub(super) fn searched(&self) -> String {
        let is_open = matches!(self.state, Some(JobState::Queued | JobState::InProgress));
        match (&self.repository, &self.pool, &self.label) {
            _ if is_open => String::new(),
            (None, None, None) => String::new(),
            _ => format!(
                "AND changed_ms >= coalesce((SELECT changed_ms FROM jobs ORDER BY changed_ms DESC
                     LIMIT 1 OFFSET {SEARCHED_MAX}), 0)"
            ),
        }
    }
}
