//! The feed: what any sidecar has stored, for the one that plans.
//!
//! Each delivery has the ID of the transaction that stored it. What a snapshot does not see is new
//! in the next one, in whatever order transactions commit.

use tokio_postgres::{Row, types::Type};

use super::{
    cluster::Cluster,
    jobs,
    row::{get_number, get_state},
};
use crate::store::{
    error::Error,
    records::{Delivery, JobRecord},
};

/// One row at least, for the position.
const QUERY: &str = "
SELECT current.position, new.*
FROM (SELECT pg_current_snapshot()::text AS position) AS current
LEFT JOIN (
    SELECT deliveries.id AS delivery_id, deliveries.received_ms, deliveries.hook,
        deliveries.hook_id, deliveries.hook_target_type, deliveries.hook_target_id,
        deliveries.state AS delivery_state, deliveries.xid, jobs.*
    FROM deliveries
    JOIN jobs ON jobs.id = deliveries.job_id AND jobs.run_attempt = deliveries.run_attempt
        AND jobs.host = deliveries.host
    WHERE deliveries.xid >= pg_snapshot_xmin($1::text::pg_snapshot)
        AND NOT pg_visible_in_snapshot(deliveries.xid, $1::text::pg_snapshot)
) AS new ON true
ORDER BY new.xid, new.delivery_state";

/// A snapshot, in Postgres' own notation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FeedPosition(String);

impl FeedPosition {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Cluster {
    /// After everything that is stored now.
    pub(crate) async fn feed_position(&self) -> Result<FeedPosition, Error> {
        let read = self.feed().run(async |client| {
            client.query_one("SELECT pg_current_snapshot()::text AS position", &[]).await
        });
        Ok(FeedPosition(read.await?.get("position")))
    }

    /// The deliveries that were stored after `position`, and the position after them. Each comes
    /// once.
    pub(crate) async fn deliveries_after(
        &self,
        position: &FeedPosition,
    ) -> Result<(Vec<Delivery>, FeedPosition), Error> {
        self.feed()
            .run(async |client| {
                let rows = client.query_typed(QUERY, &[(&position.0, Type::TEXT)]).await?;
                let mut next = position.clone();
                let mut deliveries = Vec::with_capacity(rows.len());
                for row in &rows {
                    next = FeedPosition(row.try_get("position")?);
                    if row.try_get::<_, Option<String>>("delivery_id")?.is_some() {
                        deliveries.push(delivery(row)?);
                    }
                }
                Ok((deliveries, next))
            })
            .await
    }
}

fn delivery(row: &Row) -> Result<Delivery, tokio_postgres::Error> {
    let JobRecord { mut job, details, conclusion, runner_name, .. } = jobs::record(row)?;
    job.delivery = row.try_get("delivery_id")?;
    Ok(Delivery {
        hook: row.try_get("hook")?,
        hook_id: get_number(row, "hook_id")?,
        hook_target_type: row.try_get("hook_target_type")?,
        hook_target_id: get_number(row, "hook_target_id")?,
        received_at: get_number(row, "received_ms")?,
        state: get_state(row, "delivery_state")?,
        job,
        details,
        conclusion,
        runner_name,
    })
}
