//! Errors of a store. They name no database.

use std::{error, fmt::Display, sync::Arc};

/// What the database reported. Shared, because a failed commit fails every write in it.
pub(super) type DatabaseError = Arc<dyn error::Error + Send + Sync>;

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the store is overloaded: too many writes are queued")]
    Busy,
    #[error("cannot write to the store: {0}")]
    Write(DatabaseError),
    #[error("cannot read from the store: {0}")]
    Read(DatabaseError),
    /// The term of the write has ended: it was not carried out.
    #[error("another sidecar plans")]
    Fenced,
    #[error("the store is closed")]
    Closed,
}

/// Why a store cannot be opened. The message says what to do about it.
#[derive(Debug, thiserror::Error)]
#[error("store {location}: {message}")]
pub(crate) struct OpenError {
    location: String,
    message: String,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    InUse,
    Unreachable,
    Other,
}

impl OpenError {
    pub(super) fn new(location: &impl Display, message: String) -> Self {
        Self { location: location.to_string(), message, reason: Reason::Other }
    }

    /// Another process holds the store.
    pub(super) fn in_use(location: &impl Display, message: String) -> Self {
        Self { reason: Reason::InUse, ..Self::new(location, message) }
    }

    /// The server of the store does not answer now.
    pub(super) fn unreachable(location: &impl Display, message: String) -> Self {
        Self { reason: Reason::Unreachable, ..Self::new(location, message) }
    }

    /// Whether another process holds the store, so that another start fails as well.
    pub(crate) fn is_in_use(&self) -> bool {
        self.reason == Reason::InUse
    }

    /// Whether it may be opened later, without any change to the configuration.
    pub(crate) fn is_unreachable(&self) -> bool {
        self.reason == Reason::Unreachable
    }
}
