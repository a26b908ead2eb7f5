//! `edgerunner backup`: a copy of the store as it is at one moment.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::output::print;
use crate::{config::Config, store};

#[derive(Args)]
pub(super) struct Arguments {
    /// File that must not exist yet. To restore, stop `serve`, put the file in the place of
    /// store.path, and remove what has the same name with -wal or -shm at its end.
    file: PathBuf,
}

pub(super) fn backup(config: &Config, Arguments { file }: &Arguments) -> Result<()> {
    let bytes = store::back_up(&config.store.path, file)?;
    let store = config.store.path.display();
    print(&format!("{}: a copy of {store}, {} KiB\n", file.display(), bytes.div_ceil(1024)))
}
