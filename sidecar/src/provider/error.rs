//! Errors of a provider.

use edgerunner_scheduler::model::Cause;
use serde::{Deserialize, Serialize};

/// The distinctions that callers need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorKind {
    /// The provider does not answer.
    Unavailable,
    /// The image is not there and could not be pulled.
    Image,
    /// The provider refused, or tried and failed.
    Refused,
    /// There is no such runner.
    Gone,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Error {
    pub kind: ErrorKind,
    /// One line: the call, the response, how to fix it. Never a secret.
    pub message: String,
}

impl From<ErrorKind> for Cause {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable => Self::DockerUnavailable,
            ErrorKind::Image => Self::Image,
            ErrorKind::Refused | ErrorKind::Gone => Self::Container,
        }
    }
}
