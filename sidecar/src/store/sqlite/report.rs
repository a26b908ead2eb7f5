//! Reports: what completed jobs used.

use rusqlite::{Connection, Row};

use super::reader::{Reader, numbered};
use crate::store::{
    error::Error,
    report::{self, Dialect, LeftOut, Period, Report, ReportBy, ReportGroup},
};

const DIALECT: Dialect =
    Dialect { join_labels: ", json_each(jobs.labels) AS label", label: "lower(label.value)" };

fn group(row: &Row<'_>) -> rusqlite::Result<ReportGroup> {
    Ok(ReportGroup {
        host: row.get("host")?,
        repository: row.get("repository")?,
        name: row.get("name")?,
        jobs: row.get("jobs")?,
        ran_ms: row.get("ran_ms")?,
        waited_median_ms: row.get("waited_median_ms")?,
        waited_p95_ms: row.get("waited_p95_ms")?,
        failed: row.get("failed")?,
        out_of_memory: row.get("out_of_memory")?,
        end_unknown: row.get("end_unknown")?,
        memory_peak_bytes: row.get("memory_peak_bytes")?,
        cpu_peak_millis: row.get("cpu_peak_millis")?,
    })
}

fn groups(
    connection: &Connection,
    by: Option<ReportBy>,
    Period { since, until }: Period,
) -> rusqlite::Result<Vec<ReportGroup>> {
    let mut statement =
        connection.prepare_cached(&numbered(&report::groups_query(by, &DIALECT)))?;
    statement.query_map([since, until], group)?.collect()
}

impl Reader {
    pub(in crate::store) async fn report(
        &self,
        by: ReportBy,
        period: Period,
    ) -> Result<Report, Error> {
        self.compute(move |connection| {
            let by_group = groups(connection, Some(by), period)?;
            let total = groups(connection, None, period)?;
            let left_out = connection
                .prepare_cached(&numbered(&report::left_out_query()))?
                .query_row([period.since, period.until], |row| {
                    Ok(LeftOut {
                        never_started: row.get("never_started")?,
                        on_other_runners: row.get("on_other_runners")?,
                        without_times: row.get("without_times")?,
                    })
                })?;
            Ok(Report::new(by_group, total, left_out))
        })
        .await
    }
}
