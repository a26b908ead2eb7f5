//! Errors of a store. They name no database.

use std::{error, path::Path, sync::Arc};

/// What the database reported. Shared, because a failed commit fails every write in it.
pub(super) type DatabaseError = Arc<dyn error::Error + Send + Sync>;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the store is overloaded: too many writes are queued")]
    Busy,
    #[error("cannot write to the store: {0}")]
    Write(DatabaseError),
    #[error("cannot read from the store: {0}")]
    Read(DatabaseError),
    #[error("the store is closed")]
    Closed,
}

/// Why a store cannot be opened. The message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("store {location}: {message}")]
pub(crate) struct OpenError {
    location: String,
    message: String,
    in_use: bool,
}

impl OpenError {
    pub(super) fn new(path: &Path, message: String) -> Self {
        Self { location: path.display().to_string(), message, in_use: false }
    }

    /// Another process holds the store.
    pub(super) fn in_use(path: &Path, message: String) -> Self {
        Self { in_use: true, ..Self::new(path, message) }
    }

    /// Whether another process holds the store, so that another start fails as well.
    pub(crate) fn is_in_use(&self) -> bool {
        self.in_use
    }
}
