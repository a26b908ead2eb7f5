//! `edgerunner backup`: copies the database, with everything committed so far.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::output::print;
use crate::{config::Config, store};

#[derive(Args)]
pub(super) struct Arguments {
    /// File to write; it must not exist yet. To restore a backup, stop `serve`, replace the
    /// file at store.path with the backup, and delete the files next to it whose names end in
    /// -wal and -shm. If the store is in Postgres, use pg_dump instead.
    file: PathBuf,
}

pub(super) fn backup(config: &Config, Arguments { file }: &Arguments) -> Result<()> {
    if let Some(database) = &config.database {
        bail!(
            "this store is in Postgres, whose own programs back it up: pg_dump --format=custom \
             --schema=edgerunner --file={} '{}'",
            file.display(),
            database.url
        );
    }
    let bytes = store::back_up(&config.store.path, file)?;
    let store = config.store.path.display();
    print(&format!("Copied {store} to {} ({} KiB)\n", file.display(), bytes.div_ceil(1024)))
}
