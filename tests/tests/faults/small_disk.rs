//! A small disk in memory.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// The log alone grows to 4 MB before it is merged into the database.
const SIZE: &str = "size=16m,mode=1777";
const BALLAST: [u8; 4096] = [0; 4096];

/// A disk in memory, which is unmounted on drop.
pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    pub(crate) fn mount() -> Result<Self> {
        let directory = TempDir::new()?;
        as_root("mount", &["-t", "tmpfs", "-o", SIZE, "tmpfs"], directory.path())?;
        Ok(Self(directory))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) -> Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        loop {
            match ballast.write_all(&BALLAST) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub(crate) fn clear(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if let Err(error) = as_root("umount", &[], self.path()) {
            eprintln!("{error:#}");
        }
    }
}

fn as_root(program: &str, arguments: &[&str], directory: &Path) -> Result<()> {
    let mut command = match rustix::process::geteuid().is_root() {
        true => Command::new(program),
        false => {
            let mut sudo = Command::new("sudo");
            sudo.args(["--non-interactive", program]);
            sudo
        }
    };
    let output = command.args(arguments).arg(directory).output();
    let output = output.with_context(|| format!("{program} needs root"))?;
    ensure!(
        output.status.success(),
        "{program} needs root: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
