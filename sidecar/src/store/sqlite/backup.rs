//! Copies a database that may be in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, backup::Backup};

use super::schema;
use crate::store::error::{DatabaseError, OpenError};

const BUSY_RETRY_AFTER: Duration = Duration::from_millis(50);
/// In one step: a write between two steps would restart the copy.
const ALL_PAGES: i32 = i32::MAX;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("{}: file already exists; choose another name", .0.display())]
    Exists(PathBuf),
    #[error("{}: {error}; choose a file in a writable directory", path.display())]
    Create { path: PathBuf, error: io::Error },
    #[error("{}: backup failed and was removed: {error}", path.display())]
    Copy { path: PathBuf, error: DatabaseError },
}

/// Copies a store as it is at this moment, even while another process writes to it. Returns the
/// size of the copy in bytes.
pub(crate) fn back_up(store: &Path, file: &Path) -> Result<u64, BackupError> {
    let source = schema::open_to_copy(store)?;
    fs::File::create_new(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(file.into()),
        _ => BackupError::Create { path: file.into(), error },
    })?;
    let copied = copy(&source, file).inspect_err(|_| drop(fs::remove_file(file)));
    copied.map_err(|error| BackupError::Copy { path: file.into(), error: Arc::new(error) })?;
    let size = fs::metadata(file).map(|copy| copy.len());
    size.map_err(|error| BackupError::Create { path: file.into(), error })
}

fn copy(source: &Connection, file: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(file)?;
    let backup = Backup::new(source, &mut copy)?;
    backup.run_to_completion(ALL_PAGES, BUSY_RETRY_AFTER, None)
}
