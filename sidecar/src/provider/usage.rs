//! What a runner uses of its machine at one moment.

/// Of all containers that belong to the runner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Without files that the kernel caches and can drop.
    pub memory_bytes: u64,
    /// Processor time since its start.
    pub cpu_ns: u64,
}
