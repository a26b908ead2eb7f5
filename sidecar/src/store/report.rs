//! Reports: what completed jobs used, as groups that the database computes.

use edgerunner_scheduler::{model::UnixMs, plan::EndReason};

/// Groups of one report, those that ran longest.
const GROUPS_MAX: u32 = 1_000;
/// Conclusions that count as a failure. Not one of them is a job that somebody cancelled.
const FAILED: &str = "'failure', 'timed_out', 'startup_failure'";
/// Conclusions of jobs whose end was never reported.
const UNKNOWN: &str = "'gone', 'unknown'";
/// Whether the times of a job are those that it had. A start that was never reported is stored as the
/// same time as the end, and a clock that was set may have turned the order round. $2 is the end of
/// the period.
const HAS_TIMES: &str = "jobs.queued_ms <= jobs.started_ms AND jobs.started_ms < jobs.completed_ms
    AND jobs.completed_ms <= $2";

/// What the jobs of a report are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReportBy {
    Repository,
    /// Within its repository.
    Workflow,
    Pool,
    /// A job counts for each of its labels.
    Label,
}

/// When the jobs of a report were completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Period {
    pub since: UnixMs,
    pub until: UnixMs,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Those that ran longest first.
    pub groups: Vec<ReportGroup>,
    /// There are more groups.
    pub more: bool,
    /// All jobs together, each once; `None` if there is none.
    pub total: Option<ReportGroup>,
    pub left_out: LeftOut,
}

/// Jobs of one repository, workflow, pool or label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportGroup {
    /// Host of the GitHub server; empty unless it is a part of the group.
    pub host: String,
    /// Empty unless it is a part of the group.
    pub repository: String,
    /// Workflow, pool or label; empty if the group is a repository.
    pub name: String,
    pub jobs: u64,
    pub ran_ms: u64,
    /// From the job's announcement to its start.
    pub waited_median_ms: u64,
    pub waited_p95_ms: u64,
    pub failed: u64,
    /// Jobs whose runner was killed because its memory was used up.
    pub out_of_memory: u64,
    /// Jobs of whose runner it is not known why it ended.
    pub end_unknown: u64,
    /// The most that one runner used at a time; `None` if none was measured.
    pub memory_peak_bytes: Option<u64>,
    /// In thousandths of a processor.
    pub cpu_peak_millis: Option<u64>,
}

/// Completed jobs that no group counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Cancelled before a runner took them.
    pub never_started: u64,
    /// Runners that are not on record took them, such as those of GitHub.
    pub on_other_runners: u64,
    /// Their start or end was not reported, or a clock was set meanwhile.
    pub without_times: u64,
}

impl Report {
    /// `groups`: as [`groups_query`] returns them.
    pub(super) fn new(
        mut groups: Vec<ReportGroup>,
        total: Vec<ReportGroup>,
        left_out: LeftOut,
    ) -> Self {
        let more = groups.len() > GROUPS_MAX as usize;
        groups.truncate(GROUPS_MAX as usize);
        Self { groups, more, total: total.into_iter().next(), left_out }
    }
}

/// How a database reads the labels of a job.
pub(super) struct Dialect {
    /// Joins a row for each label.
    pub(super) join_labels: &'static str,
    /// The label of such a row.
    pub(super) label: &'static str,
}

/// The groups of the period from $1 to $2, one more than a report has. `by`: `None` makes one group of
/// all jobs.
pub(super) fn groups_query(by: Option<ReportBy>, dialect: &Dialect) -> String {
    let in_repository = ("jobs.host", "lower(jobs.repository)", "jobs.repository");
    let (join, (host, key, repository), name) = match by {
        None => ("", ("''", "''", "''"), "''"),
        Some(ReportBy::Repository) => ("", in_repository, "''"),
        Some(ReportBy::Workflow) => ("", in_repository, "jobs.workflow_name"),
        Some(ReportBy::Pool) => ("", ("''", "''", "''"), "runners.pool"),
        Some(ReportBy::Label) => (dialect.join_labels, ("''", "''", "''"), dialect.label),
    };
    let out_of_memory = EndReason::OutOfMemory { exit_code: 0 }.as_str();
    // A job may name a label twice.
    let distinct = if by == Some(ReportBy::Label) { "DISTINCT" } else { "" };
    // The rank of a median or percentile is rounded up, so that it is a time that a job waited.
    format!(
        "WITH completed AS (
             SELECT {distinct} jobs.id, jobs.run_attempt, jobs.host AS job_host,
                 {host} AS host, {key} AS repository_key, {repository} AS repository,
                 {name} AS name,
                 jobs.completed_ms - jobs.started_ms AS ran_ms,
                 jobs.started_ms - jobs.queued_ms AS waited_ms,
                 jobs.conclusion, runners.end_reason, runners.memory_peak_bytes,
                 runners.cpu_peak_millis
             FROM jobs JOIN runners ON runners.name = jobs.runner_name {join}
             WHERE jobs.state = 2 AND jobs.changed_ms >= $1 AND jobs.completed_ms >= $1
                 AND {HAS_TIMES} AND jobs.conclusion NOT IN ({UNKNOWN})
         ), ranked AS (
             SELECT *,
                 row_number() OVER (
                     PARTITION BY host, repository_key, name ORDER BY waited_ms
                 ) AS place,
                 count(*) OVER (PARTITION BY host, repository_key, name) AS places
             FROM completed
         )
         SELECT host, max(repository) AS repository, name,
             count(*) AS jobs,
             CAST(sum(ran_ms) AS bigint) AS ran_ms,
             max(CASE WHEN place = (places + 1) / 2 THEN waited_ms END) AS waited_median_ms,
             max(CASE WHEN place = (places * 95 + 99) / 100 THEN waited_ms END) AS waited_p95_ms,
             sum(CASE WHEN conclusion IN ({FAILED}) THEN 1 ELSE 0 END) AS failed,
             sum(CASE WHEN end_reason = '{out_of_memory}' THEN 1 ELSE 0 END) AS out_of_memory,
             sum(CASE WHEN end_reason IS NULL THEN 1 ELSE 0 END) AS end_unknown,
             max(memory_peak_bytes) AS memory_peak_bytes,
             max(cpu_peak_millis) AS cpu_peak_millis
         FROM ranked GROUP BY host, repository_key, name
         ORDER BY ran_ms DESC, host, repository_key, name LIMIT {}",
        GROUPS_MAX + 1
    )
}

/// Jobs of the period from $1 to $2 that the groups leave out.
pub(super) fn left_out_query() -> String {
    format!(
        "SELECT coalesce(sum(CASE WHEN jobs.runner_name = '' THEN 1 ELSE 0 END), 0)
                 AS never_started,
             coalesce(sum(CASE WHEN jobs.runner_name <> '' AND runners.name IS NULL
                 THEN 1 ELSE 0 END), 0) AS on_other_runners,
             coalesce(sum(CASE WHEN runners.name IS NOT NULL AND NOT coalesce({HAS_TIMES}
                 AND jobs.conclusion NOT IN ({UNKNOWN}), false) THEN 1 ELSE 0 END), 0)
                 AS without_times
         FROM jobs LEFT JOIN runners ON runners.name = jobs.runner_name
         WHERE jobs.state = 2 AND jobs.changed_ms >= $1
             AND coalesce(jobs.completed_ms, jobs.changed_ms) >= $1"
    )
}
