//! The SQLite backend: one file, one thread that writes, three connections that read.

mod audit;
mod backup;
mod damage;
mod deliveries;
mod draining;
mod export;
mod images;
mod jobs;
mod lock;
mod lost;
mod migrations;
mod prune;
mod reader;
mod report;
mod runners;
mod schema;
#[cfg(test)]
mod tests;
mod webhooks;
mod writer;

use std::{path::Path, thread, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{error::OpenError, queue::Queued};
pub(crate) use backup::back_up;
pub(super) use damage::Search;
use edgerunner_scheduler::model::Host;
pub(super) use export::Export;
pub(super) use reader::Reader;

/// Opens the database and starts its writer. The receiver resolves once the writer has
/// closed the database.
pub(super) fn open(
    path: &Path,
    host: Host,
    writes: mpsc::Receiver<Queued>,
    on_commit: impl Fn(Duration) + Send + 'static,
) -> Result<(Reader, Search, oneshot::Receiver<()>), OpenError> {
    let lock = lock::lock(path)?;
    let (connection, search) = schema::open(path, host)?;
    let open_reader = || schema::open_reader(path);
    let reader = Reader::new(open_reader()?, open_reader()?, open_reader()?);
    let (closed, wait) = oneshot::channel();
    thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            writer::run(connection, writes, on_commit);
            drop(lock);
            let _ = closed.send(());
        })
        .map_err(|error| schema::open_error(path, &error))?;
    Ok((reader, search, wait))
}
