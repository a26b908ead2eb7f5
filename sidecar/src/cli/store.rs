//! `edgerunner store`: moves the store to another database.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use super::{block_on::block_on, output::print};
use crate::{config::Config, store};

#[derive(Subcommand)]
pub(super) enum Command {
    /// Copy everything from a SQLite database to Postgres.
    Migrate(Migrate),
}

/// Stop `serve` first, and set store.url to a Postgres database without records. Everything is
/// copied, or nothing if something fails. The SQLite database is not changed.
#[derive(Args)]
pub(super) struct Migrate {
    /// SQLite database to copy.
    #[arg(long, value_name = "PATH")]
    from: PathBuf,
}

impl Command {
    pub(super) fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Migrate(migrate) => migrate.run(config),
        }
    }
}

impl Migrate {
    fn run(&self, config: &Config) -> Result<()> {
        let Some(to) = &config.database else {
            bail!(
                "nowhere to copy to: replace store.path with store.url in the configuration, or \
                 set the variable STORE_URL, to the URL of the Postgres database"
            );
        };
        let copied = block_on(async { Ok(store::copy(&self.from, to).await?) })?;
        let counts: Vec<String> =
            copied.iter().map(|(table, rows)| format!("  {table}: {rows}\n")).collect();
        print(&format!(
            "Copied {} to {}, rows of each table:\n{}{} was not changed. Start `serve` with \
             store.url.\n",
            self.from.display(),
            to.url,
            counts.concat(),
            self.from.display()
        ))
    }
}
