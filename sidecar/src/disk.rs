//! Free space of file systems, and what identifies a directory.

use std::{io, path::Path};

use rustix::fs::{AtFlags, CWD, StatxFlags};

/// What a user without privileges may still write to the file system of `path`.
pub(crate) fn free_mib(path: &Path) -> io::Result<u64> {
    let disk = rustix::fs::statvfs(path)?;
    Ok(disk.f_bavail.saturating_mul(disk.f_frsize) >> 20)
}

/// Text that no other directory has, and no earlier or later one at this path: when it was created,
/// and its number. Two that are created within a few milliseconds may have the same. `None` if its
/// file system does not record when.
pub(crate) fn identity(directory: &Path) -> io::Result<Option<String>> {
    let wanted = StatxFlags::BTIME | StatxFlags::INO;
    let found = rustix::fs::statx(CWD, directory, AtFlags::empty(), wanted)?;
    let known = StatxFlags::from_bits_retain(found.stx_mask).contains(wanted);
    let created = found.stx_btime;
    let text = || format!("{}.{:09}-{}", created.tv_sec, created.tv_nsec, found.stx_ino);
    Ok(known.then(text))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_directory_that_replaces_another_is_a_different_one() {
        let parent = tempfile::TempDir::new().unwrap();
        let path = parent.path().join("storage");
        let create = || {
            std::fs::create_dir(&path).unwrap();
            identity(&path).unwrap()
        };
        let first = create();
        assert_eq!(identity(&path).unwrap(), first);
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            std::fs::remove_dir(&path).unwrap();
            assert!(identity(&path).is_err());
            // A file system may record nothing. Its clock moves every few milliseconds.
            if create() != first || first.is_none() {
                break;
            }
            assert!(Instant::now() < deadline, "{first:?}");
        }
    }
}
