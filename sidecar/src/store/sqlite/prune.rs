//! Pruning: deletes old deliveries, jobs, runners and webhooks.

use rusqlite::Connection;

use crate::store::records::{DELIVERIES_KEPT_MS, HISTORY_KEPT_MS};
use edgerunner_scheduler::model::UnixMs;

pub(super) fn prune(connection: &Connection, now: UnixMs) -> rusqlite::Result<()> {
    let before = now.saturating_sub(DELIVERIES_KEPT_MS);
    connection.execute("DELETE FROM deliveries WHERE received_ms < ?1", [before])?;
    let before = now.saturating_sub(HISTORY_KEPT_MS);
    connection.execute("DELETE FROM jobs WHERE state = 2 AND changed_ms < ?1", [before])?;
    connection.execute(
        "DELETE FROM runner_logs
         WHERE runner IN (SELECT name FROM runners WHERE gone_ms < ?1)",
        [before],
    )?;
    connection.execute("DELETE FROM runners WHERE gone_ms < ?1", [before])?;
    connection.execute("DELETE FROM hooks WHERE seen_ms < ?1", [before])?;
    Ok(())
}
