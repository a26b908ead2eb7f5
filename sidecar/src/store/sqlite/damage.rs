//! The search for damage in a database, which reads all of it: on its own thread, because a large
//! one takes longer than a start should.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use super::schema;
use crate::store::error::OpenError;

/// A search in progress. Clones are the same search.
#[derive(Clone)]
pub(in crate::store) struct Search(Arc<Mutex<mpsc::Receiver<Result<(), OpenError>>>>);

impl Search {
    /// Another process may be writing to the database.
    pub(super) fn start(path: &Path) -> Result<Self, OpenError> {
        let (found, receiver) = mpsc::sync_channel(1);
        let database: PathBuf = path.into();
        thread::Builder::new()
            .name("store check".into())
            .spawn(move || {
                // Nobody may wait any more.
                let _ = found.send(search(&database));
            })
            .map_err(|error| schema::open_error(path, &error))?;
        Ok(Self(Arc::new(Mutex::new(receiver))))
    }

    /// Waits for the search to end, for at most `limit` if there is one. Fails if there is damage
    /// so far.
    pub(super) fn wait(&self, limit: Option<Duration>) -> Result<(), OpenError> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // An error means that it goes on, or that it ended before without damage.
        match limit {
            Some(limit) => receiver.recv_timeout(limit).unwrap_or(Ok(())),
            None => receiver.recv().unwrap_or(Ok(())),
        }
    }

    /// Resolves when the search has ended. Fails if there is damage.
    pub(in crate::store) async fn ended(self) -> Result<(), OpenError> {
        tokio::task::spawn_blocking(move || self.wait(None)).await.unwrap_or(Ok(()))
    }
}

fn search(path: &Path) -> Result<(), OpenError> {
    let connection = schema::open_reader(path)?;
    schema::search(path, &connection)
}
