//! Pruning: deletes old deliveries, jobs, runners, webhooks and changes, some at a time.

use super::{
    row::time,
    session::{Batch, Statements},
};
use crate::store::records::{AUDIT_KEPT_MAX, AUDIT_KEPT_MS, DELIVERIES_KEPT_MS, HISTORY_KEPT_MS};
use edgerunner_scheduler::model::UnixMs;

/// Rows of each table that one transaction deletes: nobody is to notice a commit that waits for it.
const ROWS_MAX: i64 = 100;

pub(super) const DELIVERIES: &str = "
DELETE FROM deliveries WHERE ctid = ANY (ARRAY
    (SELECT ctid FROM deliveries WHERE received_ms < $1 ORDER BY received_ms LIMIT $2))
RETURNING 1";
pub(super) const JOBS: &str = "
DELETE FROM jobs WHERE ctid = ANY (ARRAY
    (SELECT ctid FROM jobs WHERE state = 2 AND changed_ms < $1 ORDER BY changed_ms LIMIT $2))
    -- It may have changed meanwhile.
    AND state = 2 AND changed_ms < $1
RETURNING 1";
/// With their logs.
pub(super) const RUNNERS: &str = "
DELETE FROM runners WHERE name = ANY (ARRAY
    (SELECT name FROM runners WHERE gone_ms < $1 ORDER BY gone_ms LIMIT $2))
    AND gone_ms < $1
RETURNING 1";
pub(super) const WEBHOOKS: &str = "
DELETE FROM hooks WHERE (host, hook, app_id) IN
    (SELECT host, hook, app_id FROM hooks WHERE seen_ms < $1 LIMIT $2)
    AND seen_ms < $1
RETURNING 1";

pub(super) const AUDIT: &str = "
DELETE FROM audit WHERE id = ANY (ARRAY
    (SELECT id FROM audit WHERE at_ms < $1 ORDER BY at_ms LIMIT $2))
RETURNING 1";
pub(super) const AUDIT_SURPLUS: &str = "
DELETE FROM audit WHERE id = ANY (ARRAY
    (SELECT id FROM audit ORDER BY at_ms DESC, id DESC OFFSET $1 LIMIT $2))
RETURNING 1";

/// How many answers `send` gets. There may be more to delete if one of them has rows.
pub(super) const ANSWERS: usize = 6;

pub(super) fn send(batch: &mut Batch<'_>, statements: &Statements, now: UnixMs) {
    let (deliveries, history) =
        (now.saturating_sub(DELIVERIES_KEPT_MS), now.saturating_sub(HISTORY_KEPT_MS));
    for (before, statement) in [
        (deliveries, &statements.prune_deliveries),
        (history, &statements.prune_jobs),
        (history, &statements.prune_runners),
        (history, &statements.prune_webhooks),
        (now.saturating_sub(AUDIT_KEPT_MS), &statements.prune_audit),
    ] {
        batch.send(statement, vec![Box::new(time(before)), Box::new(ROWS_MAX)]);
    }
    let kept = i64::from(AUDIT_KEPT_MAX);
    batch.send(&statements.prune_audit_surplus, vec![Box::new(kept), Box::new(ROWS_MAX)]);
}
