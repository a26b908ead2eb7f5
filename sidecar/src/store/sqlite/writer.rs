//! The writer thread: groups of writes, each group one transaction.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::mpsc;

use super::{audit, deliveries, draining, images, jobs, lost, prune, runners, webhooks};
use crate::store::{
    error::Error,
    queue::{self, Outcomes, Queued, Write},
};

/// Writes in one transaction: bounds how long the first of them waits.
const GROUP_MAX: usize = 512;

/// Runs until every sender is gone and the last write is committed.
pub(super) fn run(
    mut connection: Connection,
    mut writes: mpsc::Receiver<Queued>,
    on_commit: impl Fn(Duration),
) {
    let mut group = Vec::new();
    while writes.blocking_recv_many(&mut group, GROUP_MAX) > 0 {
        let begun = Instant::now();
        let committed = commit(&mut connection, &group);
        on_commit(begun.elapsed());
        // One failure fails the whole group: the usual cause is a full disk.
        let committed = committed.map_err(|error| Error::Write(Arc::new(error)));
        queue::reply_to(std::mem::take(&mut group), committed);
    }
}

fn commit(connection: &mut Connection, group: &[Queued]) -> rusqlite::Result<Outcomes> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut outcomes = Outcomes::default();
    // One process has the database, so a term ends with the process.
    for Queued { write, .. } in group {
        match write {
            Write::Deliveries(batch, _) => {
                for delivery in &**batch {
                    outcomes.deliveries.push(deliveries::store(&transaction, delivery)?);
                }
            }
            Write::Job(update, _) => jobs::advance(&transaction, update)?,
            Write::Waiting(reasons, _) => jobs::save_waiting(&transaction, reasons)?,
            Write::Origins(origins, _) => jobs::save_origins(&transaction, origins)?,
            Write::Rerun(rerun, _) => lost::save(&transaction, rerun)?,
            Write::Runner(runner, _) => runners::save(&transaction, runner)?,
            Write::RunnerLog { runner, log, .. } => runners::save_log(&transaction, runner, log)?,
            Write::Draining { pool, draining, .. } => {
                draining::save(&transaction, pool.as_deref(), *draining)?;
            }
            Write::Image(image, _) => images::save(&transaction, image)?,
            Write::ImageGone { engine, id, .. } => images::forget(&transaction, engine, id)?,
            Write::Webhook(webhook, _) => webhooks::save(&transaction, webhook)?,
            Write::Audit(change, _) => audit::save(&transaction, change)?,
            Write::Prune(now, _) => outcomes.more_to_prune |= prune::prune(&transaction, *now)?,
        }
    }
    transaction.commit()?;
    Ok(outcomes)
}
