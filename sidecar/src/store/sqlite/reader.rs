//! The connections for reads. Each table's file adds its queries.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use crate::store::error::Error;

/// Cheap to clone. Queries run on threads that may block, one at a time on each connection.
#[derive(Clone)]
pub(in crate::store) struct Reader {
    quick: Arc<Mutex<Connection>>,
    slow: Arc<Mutex<Connection>>,
    reports: Arc<Mutex<Connection>>,
}

impl Reader {
    pub(super) fn new(quick: Connection, slow: Connection, reports: Connection) -> Self {
        let [quick, slow, reports] = [quick, slow, reports].map(|it| Arc::new(Mutex::new(it)));
        Self { quick, slow, reports }
    }

    /// For queries that read little.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        Self::run(&self.quick, query).await
    }

    /// For queries that take longer the more is stored: the others do not wait for them.
    pub(super) async fn scan<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        Self::run(&self.slow, query).await
    }

    /// For reports, which read everything that is stored: nothing else waits for them.
    pub(super) async fn compute<T: Send + 'static>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        Self::run(&self.reports, query).await
    }

    async fn run<T: Send + 'static>(
        connection: &Arc<Mutex<Connection>>,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Error> {
        let connection = Arc::clone(connection);
        tokio::task::spawn_blocking(move || {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            query(&connection)
        })
        .await
        .map_err(|_| Error::Closed)?
        .map_err(|error| Error::Read(Arc::new(error)))
    }
}

/// A query that both databases know, with its parameters as SQLite numbers them.
pub(super) fn numbered(query: &str) -> String {
    query.replace('$', "?")
}
