//! A file system of its own, in a file.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::mount::{UnmountFlags, unmount};
use tokio::process::Command;

const MIB: u64 = 1 << 20;

/// A small disk, which is unmounted on drop.
pub struct LoopDisk {
    directory: PathBuf,
}

impl LoopDisk {
    /// Mounts a new file system of this size at the directory. Its content is in `file`.
    pub(crate) async fn mount(file: &Path, directory: PathBuf, mib: u64) -> Result<Self> {
        File::create(file)?.set_len(mib * MIB)?;
        // Without blocks that only root may use.
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(file)).await?;
        std::fs::create_dir_all(&directory)?;
        run(Command::new("mount").args(["-o", "loop"]).arg(file).arg(&directory)).await?;
        Ok(Self { directory })
    }

    pub fn free_mib(&self) -> Result<u64> {
        let found = statvfs(&self.directory)?;
        Ok(found.f_bavail * found.f_frsize / MIB)
    }

    /// Fills it until only this much is free, or frees so much again.
    pub fn leave_free(&self, mib: u64) -> Result<()> {
        if self.ballast().exists() {
            std::fs::remove_file(self.ballast())?;
        }
        let ballast = File::create(self.ballast())?;
        let bytes = self.free_mib()?.checked_sub(mib).context("the disk is too small")? * MIB;
        Ok(fallocate(&ballast, FallocateFlags::empty(), 0, bytes)?)
    }

    fn ballast(&self) -> PathBuf {
        self.directory.join("ballast")
    }
}

impl Drop for LoopDisk {
    fn drop(&mut self) {
        if let Err(error) = unmount(&self.directory, UnmountFlags::DETACH) {
            eprintln!("cannot unmount {}: {error}", self.directory.display());
        }
    }
}

async fn run(command: &mut Command) -> Result<()> {
    let output = command.output().await.with_context(|| format!("{command:?}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}, which needs root: {}", error.trim());
    Ok(())
}
