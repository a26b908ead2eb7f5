//! Errors of a store. They name no database.

use std::{error, sync::Arc};

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
    pub(super) location: String,
    pub(super) message: String,
}
