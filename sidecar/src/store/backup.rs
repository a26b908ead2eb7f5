//! A copy of a store that may be in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::{Connection, backup::Backup};

use super::schema::{self, OpenError};

const BUSY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// In one step, so that what is written meanwhile does not begin it anew.
const ALL_PAGES: i32 = i32::MAX;

#[derive(Debug, thiserror::Error)]
pub(crate) enum BackupError {
    #[error(transparent)]
    Store(#[from] OpenError),
    #[error("{}: it is there already: name a file that is not", .0.display())]
    Exists(PathBuf),
    #[error("{}: {error}: name a file in a directory that may be written", path.display())]
    Create { path: PathBuf, error: io::Error },
    #[error("{}: not copied, and removed again: {error}", path.display())]
    Copy { path: PathBuf, error: rusqlite::Error },
}

/// Copies a store as it is at this moment. Whoever writes to it goes on. Returns the size
/// of the copy in bytes.
pub(crate) fn back_up(store: &Path, file: &Path) -> Result<u64, BackupError> {
    let source = schema::open_to_copy(store)?;
    fs::File::create_new(file).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(file.into()),
        _ => BackupError::Create { path: file.into(), error },
    })?;
    let copied = copy(&source, file).inspect_err(|_| drop(fs::remove_file(file)));
    copied.map_err(|error| BackupError::Copy { path: file.into(), error })?;
    let size = fs::metadata(file).map(|copy| copy.len());
    size.map_err(|error| BackupError::Create { path: file.into(), error })
}

fn copy(source: &Connection, file: &Path) -> rusqlite::Result<()> {
    let mut copy = Connection::open(file)?;
    let backup = Backup::new(source, &mut copy)?;
    backup.run_to_completion(ALL_PAGES, BUSY_AGAIN_AFTER, None)
}
