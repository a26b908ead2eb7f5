//! The lock of a database, which one process holds from its start to its end.
//!
//! It is a lock on a file next to the database, not on the database itself: closing any handle
//! of that file would release the locks of SQLite. The system releases it when the process ends,
//! however it ends, so the file may stay.

use std::{
    ffi::OsString,
    fs::{File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    process,
};

use tracing::warn;

use crate::store::error::OpenError;

/// Holds the lock until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: Option<File>,
}

/// Where the lock of a database is. Links to the same database have the same lock.
fn lock_of(database: &Path) -> PathBuf {
    let database = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    let mut name: OsString = database.into_os_string();
    name.push("-lock");
    name.into()
}

/// Fails if another process holds it, and names that process.
pub(super) fn lock(database: &Path) -> Result<Lock, OpenError> {
    let path = lock_of(database);
    let fail = |error: &io::Error| {
        let message = format!(
            "{}: {error}; check that store.path is right and that its directory exists and is \
             writable",
            path.display()
        );
        OpenError::new(&database.display(), message)
    };
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| fail(&error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(database, &mut file)),
        Err(TryLockError::Error(error)) => {
            let lock = path.display();
            warn!(%lock, %error, "this file system has no locks: start only one `serve`");
            return Ok(Lock { _file: None });
        }
    }
    write_pid(&mut file).map_err(|error| fail(&error))?;
    Ok(Lock { _file: Some(file) })
}

fn write_pid(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

fn in_use(database: &Path, file: &mut File) -> OpenError {
    let mut holder = String::new();
    // Empty if that process has only just taken it.
    let _ = file.read_to_string(&mut holder);
    let holder = match holder.trim() {
        "" => "another process".to_owned(),
        pid => format!("another process (pid {pid})"),
    };
    OpenError::in_use(
        &database.display(),
        format!("{holder} is using it: stop that one, or set another store.path"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_has_one_holder_which_the_next_one_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edgerunner.db");
        // As a process that was killed leaves it.
        std::fs::write(lock_of(&path), "999999999\n").unwrap();
        let held = lock(&path).unwrap();
        let refused = lock(&path).unwrap_err();
        assert!(refused.is_in_use());
        let holder = format!("another process (pid {}) is using it", process::id());
        assert!(refused.to_string().contains(&holder), "{refused}");
        drop(held);
        lock(&path).unwrap();
    }

    #[test]
    fn a_link_to_a_database_has_its_lock() {
        let directory = tempfile::tempdir().unwrap();
        let (path, link) = (directory.path().join("a.db"), directory.path().join("b.db"));
        std::fs::write(&path, "").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let _held = lock(&path).unwrap();
        assert!(lock(&link).unwrap_err().is_in_use());
    }

    #[test]
    fn a_lock_that_cannot_be_made_is_an_error_about_the_store() {
        let refused = lock(Path::new("/no/such/place/edgerunner.db")).unwrap_err();
        assert!(!refused.is_in_use());
        assert!(refused.to_string().contains("check that store.path is right"), "{refused}");
    }
}
