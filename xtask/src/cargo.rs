//! Cargo, as it builds this workspace.

use std::ffi::OsStr;
use std::path::PathBuf;

use edgerunner_testkit::workspace;
use tokio::process::Command;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

impl Profile {
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Dev => "--profile=dev",
            Self::Release => "--profile=release",
        }
    }

    pub(crate) fn directory(self) -> PathBuf {
        self.directory_of(None)
    }

    /// Where Cargo puts builds for this target; by default for this machine.
    pub(crate) fn directory_of(self, target: Option<&str>) -> PathBuf {
        workspace::target().join(target.unwrap_or_default()).join(match self {
            Self::Dev => "debug",
            Self::Release => "release",
        })
    }
}

pub(crate) fn cargo<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    // Set by `cargo xtask`: the cargo that built this program.
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).current_dir(workspace::root());
    command
}

/// With Cargo's progress bar even though its output is not a terminal, for [`crate::command::run`].
pub(crate) fn with_progress(mut command: Command) -> Command {
    command.env("CARGO_TERM_PROGRESS_WHEN", "always").env("CARGO_TERM_PROGRESS_WIDTH", "120");
    command
}
