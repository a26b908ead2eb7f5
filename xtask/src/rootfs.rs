//! Build contexts for images of this machine's own programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::process::Command;

use crate::command;

/// A directory in the context, which the Dockerfile copies to `/`.
const ROOT: &str = "rootfs";
const PROGRAMS: &str = "usr/bin";

pub(crate) struct BuildContext {
    archive: tar::Builder<Vec<u8>>,
    libraries: std::collections::BTreeSet<PathBuf>,
}

impl BuildContext {
    pub(crate) fn new(dockerfile: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(dockerfile)
            .with_context(|| format!("cannot read {}", dockerfile.display()))?;
        Self::with_dockerfile(&text)
    }

    pub(crate) fn with_dockerfile(text: &str) -> Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        // Docker cannot read GNU's format of sparse files.
        archive.sparse(false);
        archive.mode(tar::HeaderMode::Deterministic);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, "Dockerfile", text.as_bytes())?;
        Ok(Self { archive, libraries: Default::default() })
    }

    pub(crate) fn file(&mut self, path: &Path, name: &str) -> Result<()> {
        let added = self.archive.append_path_with_name(path, name);
        added.with_context(|| format!("cannot read {}", path.display()))
    }

    /// Adds a directory with its contents.
    pub(crate) fn tree(&mut self, path: &Path, name: &str) -> Result<()> {
        let added = self.archive.append_dir_all(name, path);
        added.with_context(|| format!("cannot read {}", path.display()))
    }

    pub(crate) fn empty_directory(&mut self, name: &str) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(0o755);
        Ok(self.archive.append_data(&mut header, format!("{name}/"), std::io::empty())?)
    }

    /// Adds a program on the path, with its libraries.
    pub(crate) async fn program(&mut self, name: &str) -> Result<()> {
        let path = find(name).with_context(|| format!("there is no {name} on this machine"))?;
        self.program_at(&path, name).await
    }

    /// Adds a program with its libraries.
    pub(crate) async fn program_at(&mut self, path: &Path, name: &str) -> Result<()> {
        self.file(path, &format!("{ROOT}/{PROGRAMS}/{name}"))?;
        self.libraries_of(path).await
    }

    /// Adds a program or a library under its own path, with its libraries.
    pub(crate) async fn under_its_path(&mut self, path: &Path) -> Result<()> {
        self.file(path, &format!("{ROOT}{}", path.display()))?;
        self.libraries_of(path).await
    }

    /// Adds a symbolic link to an absolute path in the image.
    pub(crate) fn link(&mut self, name: &str, target: &Path) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        Ok(self.archive.append_link(&mut header, format!("{ROOT}/{name}"), target)?)
    }

    /// Adds a directory of libraries under its own path.
    pub(crate) async fn directory(&mut self, path: &Path) -> Result<()> {
        for entry in path.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?.path();
            self.file(&entry, &format!("{ROOT}{}", entry.display()))?;
            self.libraries_of(&entry).await?;
        }
        Ok(())
    }

    /// Adds the libraries that a program needs, under their own paths.
    pub(crate) async fn libraries_of(&mut self, path: &Path) -> Result<()> {
        let mut ldd = Command::new("ldd");
        ldd.arg(path);
        // It fails for a static program.
        let Some(libraries) = command::output(ldd).await else { return Ok(()) };
        for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
            if self.libraries.insert(library.into()) {
                self.file(library.as_ref(), &format!("{ROOT}{library}"))?;
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> Result<Bytes> {
        Ok(self.archive.into_inner()?.into())
    }
}

/// Searches the path and the directories of system programs.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}
