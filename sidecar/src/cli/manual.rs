//! `edgerunner completions` and `edgerunner man`: generated from the command line.

use std::{io, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use super::Cli;

/// The definition of the command line.
pub fn command() -> clap::Command {
    Cli::command()
}

#[derive(Args)]
pub(super) struct Completions {
    shell: Shell,
}

impl Completions {
    pub(super) fn print(&self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command(), "edgerunner", &mut script);
        Ok(io::Write::write_all(&mut io::stdout().lock(), &script)?)
    }
}

#[derive(Args)]
pub(super) struct Man {
    /// Directory to write edgerunner.1 and one page per command to. If left out, edgerunner.1
    /// is printed.
    #[arg(long, short, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

impl Man {
    pub(super) fn write(&self) -> Result<()> {
        match &self.output {
            None => Ok(Page::new(command()).render(&mut io::stdout().lock())?),
            Some(directory) => clap_mangen::generate_to(command(), directory).with_context(|| {
                format!("cannot write to {}: it must be a directory", directory.display())
            }),
        }
    }
}
