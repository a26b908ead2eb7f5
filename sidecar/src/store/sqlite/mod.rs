//! The SQLite backend: one file, one thread that writes, one connection that reads.

mod backup;
mod deliveries;
mod draining;
mod jobs;
mod migrations;
mod prune;
mod runners;
mod schema;
#[cfg(test)]
mod tests;
mod webhooks;
mod writer;

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

pub(crate) use backup::back_up;

use super::{Error, OpenError, queue::Write};

/// Opens the database and starts its writer. The receiver resolves once the writer has
/// closed the database.
pub(super) fn open(
    path: &Path,
    writes: mpsc::Receiver<Write>,
    on_commit: impl Fn(Duration) + Send + 'static,
) -> Result<(Reader, oneshot::Receiver<()>), OpenError> {
    let connection = schema::open(path)?;
    let reader = Reader(Arc::new(Mutex::new(schema::open_reader(path)?)));
    let (closed, wait) = oneshot::channel();
    thread::Builder::new()
        .name("store".into())
        .spawn(move || {
            writer::run(connection, writes, on_commit);
            let _ = closed.send(());
        })
        .map_err(|error| schema::open_error(path, &error))?;
    Ok((reader, wait))
}

/// The reading connection. Queries run on threads that may block.
#[derive(Clone)]
pub(super) struct Reader(Arc<Mutex<Connection>>);

impl Reader {
    async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let connection = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection)
        })
        .await
        .map_err(|_| Error::Closed)?
        .map_err(|error| Error::Read(Arc::new(error)))
    }
}
