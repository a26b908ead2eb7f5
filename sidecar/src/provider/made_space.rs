//! Images that an installation pulled, and what it removes while the disk is nearly full.

use super::error::Error;

/// An image that was not on its machine before it was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PulledImage {
    /// The ID of the Engine that has it.
    pub engine: String,
    pub id: String,
    /// By which it was pulled.
    pub name: String,
}

/// What was removed.
#[derive(Debug, Default)]
pub(crate) struct MadeSpace {
    /// Images that are there no more.
    pub gone: Vec<PulledImage>,
    pub tool_caches: usize,
    pub failed: Vec<Error>,
}
