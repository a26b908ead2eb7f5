//! Pruning: deletes old deliveries, jobs, runners, webhooks and changes, some at a time.

use rusqlite::Connection;

use crate::store::records::{AUDIT_KEPT_MAX, AUDIT_KEPT_MS, DELIVERIES_KEPT_MS, HISTORY_KEPT_MS};
use edgerunner_scheduler::model::UnixMs;

/// Rows that one transaction deletes: nobody is to notice a commit that waits for it.
const ROWS_MAX: usize = 100;

/// Deletes rows of the first table that has some. Returns whether there may be more.
pub(super) fn prune(connection: &Connection, now: UnixMs) -> rusqlite::Result<bool> {
    let (deliveries, history) =
        (now.saturating_sub(DELIVERIES_KEPT_MS), now.saturating_sub(HISTORY_KEPT_MS));
    for (limit, query) in [
        (
            deliveries,
            "DELETE FROM deliveries WHERE rowid IN
                 (SELECT rowid FROM deliveries WHERE received_ms < ?1
                  ORDER BY received_ms LIMIT ?2)",
        ),
        (
            history,
            "DELETE FROM jobs WHERE rowid IN
                 (SELECT rowid FROM jobs WHERE state = 2 AND changed_ms < ?1
                  ORDER BY changed_ms LIMIT ?2)",
        ),
        // Before the runners that they belong to.
        (
            history,
            "DELETE FROM runner_logs WHERE runner IN
                 (SELECT name FROM runners JOIN runner_logs ON runner = name
                  WHERE gone_ms < ?1 ORDER BY gone_ms LIMIT ?2)",
        ),
        (
            history,
            "DELETE FROM runners WHERE name IN
                 (SELECT name FROM runners WHERE gone_ms < ?1 ORDER BY gone_ms LIMIT ?2)",
        ),
        (
            history,
            "DELETE FROM hooks WHERE (host, hook, app_id) IN
                 (SELECT host, hook, app_id FROM hooks WHERE seen_ms < ?1 LIMIT ?2)",
        ),
        (
            now.saturating_sub(AUDIT_KEPT_MS),
            "DELETE FROM audit WHERE id IN
                 (SELECT id FROM audit WHERE at_ms < ?1 ORDER BY at_ms LIMIT ?2)",
        ),
        (
            u64::from(AUDIT_KEPT_MAX),
            "DELETE FROM audit WHERE id IN
                 (SELECT id FROM audit ORDER BY at_ms DESC, id DESC LIMIT ?2 OFFSET ?1)",
        ),
    ] {
        if connection.prepare_cached(query)?.execute((limit, ROWS_MAX))? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}
