//! Reports: what completed jobs used.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Api, Problem, problem::ErrorBody};
use crate::{
    control::clock,
    store::{DAY_MS, LeftOut, Period, Report, ReportBy, ReportGroup},
};
use edgerunner_scheduler::model::UnixMs;

const PERIOD_DEFAULT_MS: UnixMs = 7 * DAY_MS;

/// What the jobs of a report are grouped by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportBy)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ReportByView {
    #[default]
    Repository,
    Workflow,
    Pool,
    Label,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReportQuery {
    #[serde(default)]
    by: ReportByView,
    since_ms: Option<UnixMs>,
}

/// What jobs used that runners of this installation have completed.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Report)]
pub(crate) struct ReportView {
    pub by: ReportByView,
    /// The jobs were completed from then on, ...
    pub since_ms: UnixMs,
    /// ... and until then.
    pub until_ms: UnixMs,
    /// At most 1,000, those whose jobs ran longest first.
    pub groups: Vec<ReportGroupView>,
    /// Whether there are more groups.
    pub more: bool,
    /// All jobs together, each once; `null` if there is none.
    pub total: Option<ReportGroupView>,
    pub left_out: LeftOutView,
}

/// Jobs of one repository, workflow, pool or label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ReportGroup)]
pub(crate) struct ReportGroupView {
    /// The repository as `OWNER/NAME`, or the workflow, pool or label; empty for all jobs.
    pub name: String,
    /// That of a workflow; `null` for other groups.
    pub repository: Option<String>,
    /// Host of the GitHub server of a repository or workflow; `null` for other groups.
    pub host: Option<String>,
    pub jobs: u64,
    /// How long the jobs ran, from the webhook of each start to the webhook of its end.
    pub ran_ms: u64,
    /// The median of how long the jobs waited for a runner.
    pub waited_median_ms: u64,
    /// 95 % of the jobs waited no longer than this.
    pub waited_p95_ms: u64,
    /// Jobs that failed or timed out; not those that somebody cancelled.
    pub failed: u64,
    /// Jobs whose runner was killed because its memory was used up; `null` if it is not known of
    /// any of them how its runner ended.
    pub out_of_memory: Option<u64>,
    /// The most memory that one runner used at a time; `null` if it was not measured.
    pub memory_peak_bytes: Option<u64>,
    /// The most of the processors that one runner used at a time, in thousandths of one; `null` if
    /// it was not measured.
    pub cpu_peak_millis: Option<u64>,
}

/// Completed jobs that no group counts.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = LeftOut)]
pub(crate) struct LeftOutView {
    /// Cancelled or skipped before a runner took them.
    pub never_started: u64,
    /// Taken by runners that are not on record here, such as those of GitHub.
    pub on_other_runners: u64,
    /// Their start or end was not reported, or a clock was set meanwhile.
    pub without_times: u64,
}

impl From<ReportByView> for ReportBy {
    fn from(by: ReportByView) -> Self {
        match by {
            ReportByView::Repository => Self::Repository,
            ReportByView::Workflow => Self::Workflow,
            ReportByView::Pool => Self::Pool,
            ReportByView::Label => Self::Label,
        }
    }
}

impl ReportView {
    fn new(by: ReportByView, Period { since, until }: Period, report: Report) -> Self {
        let Report { groups, more, total, left_out } = report;
        let LeftOut { never_started, on_other_runners, without_times } = left_out;
        Self {
            by,
            since_ms: since,
            until_ms: until,
            groups: groups.into_iter().map(|group| ReportGroupView::new(by, group)).collect(),
            more,
            total: total.map(|total| ReportGroupView::new(by, total)),
            left_out: LeftOutView { never_started, on_other_runners, without_times },
        }
    }
}

impl ReportGroupView {
    fn new(by: ReportByView, group: ReportGroup) -> Self {
        let (name, repository) = match by {
            ReportByView::Repository => (group.repository, None),
            ReportByView::Workflow => {
                (group.name, Some(group.repository).filter(|it| !it.is_empty()))
            }
            ReportByView::Pool | ReportByView::Label => (group.name, None),
        };
        Self {
            name,
            repository,
            host: Some(group.host).filter(|host| !host.is_empty()),
            jobs: group.jobs,
            ran_ms: group.ran_ms,
            waited_median_ms: group.waited_median_ms,
            waited_p95_ms: group.waited_p95_ms,
            failed: group.failed,
            out_of_memory: (group.end_unknown < group.jobs).then_some(group.out_of_memory),
            memory_peak_bytes: group.memory_peak_bytes,
            cpu_peak_millis: group.cpu_peak_millis,
        }
    }
}

/// What completed jobs used, by repository, workflow, pool or label
///
/// Counts the jobs that runners of this installation have completed. Jobs are kept for 35 days:
/// nothing older is counted.
#[utoipa::path(
    get,
    path = "/api/v1/report",
    params(
        (
            "by" = inline(Option<ReportByView>), Query,
            description = "What the jobs are grouped by; `repository` if left out. A job counts for \
                           each of its labels"
        ),
        (
            "since_ms" = Option<u64>, Query,
            description = "Only jobs that were completed since then; for the last 7 days if left out"
        ),
    ),
    responses(
        (status = OK, body = ReportView),
        (status = BAD_REQUEST, description = "The query is malformed", body = ErrorBody),
    )
)]
pub(super) async fn report(
    State(api): State<Api>,
    query: Result<Query<ReportQuery>, QueryRejection>,
) -> Result<Json<ReportView>, Problem> {
    let Query(ReportQuery { by, since_ms }) = query?;
    if since_ms.is_some_and(|since| i64::try_from(since).is_err()) {
        let message = "since_ms is too large: it is a time in milliseconds since 1970";
        return Err(Problem::new(StatusCode::BAD_REQUEST, message));
    }
    let until = clock::now().wall;
    let since = since_ms.unwrap_or(until.saturating_sub(PERIOD_DEFAULT_MS)).min(until);
    let period = Period { since, until };
    let report = api.store.report(by.into(), period).await?;
    Ok(Json(ReportView::new(by, period, report)))
}
