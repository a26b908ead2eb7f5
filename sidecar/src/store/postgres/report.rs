//! Reports: what completed jobs used.

use tokio_postgres::{Row, types::Type};

use super::{
    reader::{Parameters, Reader},
    row::{get_number, get_optional, time},
};
use crate::store::{
    error::Error,
    report::{self, Dialect, LeftOut, Period, Report, ReportBy, ReportGroup},
};

const DIALECT: Dialect = Dialect {
    join_labels: "CROSS JOIN LATERAL jsonb_array_elements_text(jobs.labels::jsonb) AS label (value)",
    label: "lower(label.value)",
};

fn group(row: &Row) -> Result<ReportGroup, tokio_postgres::Error> {
    Ok(ReportGroup {
        host: row.try_get("host")?,
        repository: row.try_get("repository")?,
        name: row.try_get("name")?,
        jobs: get_number(row, "jobs")?,
        ran_ms: get_number(row, "ran_ms")?,
        waited_median_ms: get_number(row, "waited_median_ms")?,
        waited_p95_ms: get_number(row, "waited_p95_ms")?,
        failed: get_number(row, "failed")?,
        out_of_memory: get_number(row, "out_of_memory")?,
        end_unknown: get_number(row, "end_unknown")?,
        memory_peak_bytes: get_optional(row, "memory_peak_bytes")?,
        cpu_peak_millis: get_optional(row, "cpu_peak_millis")?,
    })
}

fn left_out(row: &Row) -> Result<LeftOut, tokio_postgres::Error> {
    Ok(LeftOut {
        never_started: get_number(row, "never_started")?,
        on_other_runners: get_number(row, "on_other_runners")?,
        without_times: get_number(row, "without_times")?,
    })
}

impl Reader {
    pub(in crate::store) async fn report(
        &self,
        by: ReportBy,
        Period { since, until }: Period,
    ) -> Result<Report, Error> {
        let (since, until) = (time(since), time(until));
        let period: Parameters<'_> = &[(&since, Type::INT8), (&until, Type::INT8)];
        let by_group = report::groups_query(Some(by), &DIALECT);
        let by_group = self.compute(&by_group, period, group).await?;
        let total = self.compute(&report::groups_query(None, &DIALECT), period, group).await?;
        let rest = self.compute(&report::left_out_query(), period, left_out).await?;
        let rest = rest.into_iter().next().unwrap_or_default();
        Ok(Report::new(by_group, total, rest))
    }
}
