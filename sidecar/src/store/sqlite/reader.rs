//! The connection for reads. Each table's file adds its queries.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::store::error::Error;

/// Cheap to clone. Queries run one at a time, on threads that may block.
#[derive(Clone)]
pub(in crate::store) struct Reader(Arc<Mutex<Connection>>);

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self(Arc::new(Mutex::new(connection)))
    }

    pub(super) async fn read<T: Send + 'static>(
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
