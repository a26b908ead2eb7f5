//! Free space of file systems.

use std::{io, path::Path};

/// What a user without privileges may still write to the file system of `path`.
pub(crate) fn free_mib(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >> 20)
}
