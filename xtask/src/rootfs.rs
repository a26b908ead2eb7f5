//! Root file systems of images that are made of this machine's own programs.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::process::Command;

use crate::command;

/// In the context of a build, whose Dockerfile copies it to `/`.
const ROOT: &str = "rootfs";
const PROGRAMS: &str = "usr/bin";

/// A build's context.
pub(crate) struct BuildContext {
    archive: tar::Builder<Vec<u8>>,
    libraries: std::collections::BTreeSet<PathBuf>,
}

impl BuildContext {
    pub(crate) fn new(dockerfile: &Path) -> Result<Self> {
        let mut archive = tar::Builder::new(Vec::new());
        // Docker does not read GNU's form for files with holes.
        archive.sparse(false);
        archive.mode(tar::HeaderMode::Deterministic);
        let mut context = Self { archive, libraries: Default::default() };
        context.file(dockerfile, "Dockerfile")?;
        Ok(context)
    }

    pub(crate) fn file(&mut self, path: &Path, name: &str) -> Result<()> {
        let added = self.archive.append_path_with_name(path, name);
        added.with_context(|| format!("cannot read {}", path.display()))
    }

    /// Which the path finds, with the libraries that it loads.
    pub(crate) async fn program(&mut self, name: &str) -> Result<()> {
        let path = find(name).with_context(|| format!("there is no {name} on this machine"))?;
        self.file(&path, &format!("{ROOT}/{PROGRAMS}/{name}"))?;
        self.libraries_of(&path).await
    }

    /// A directory of libraries, under the same path.
    pub(crate) async fn directory(&mut self, path: &Path) -> Result<()> {
        for entry in path.read_dir().with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?.path();
            self.file(&entry, &format!("{ROOT}{}", entry.display()))?;
            self.libraries_of(&entry).await?;
        }
        Ok(())
    }

    async fn libraries_of(&mut self, path: &Path) -> Result<()> {
        let mut ldd = Command::new("ldd");
        ldd.arg(path);
        // It fails for a program that loads none.
        let Some(told) = command::answer(ldd).await else { return Ok(()) };
        for library in told.split_whitespace().filter(|word| word.starts_with('/')) {
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

/// Also where an ordinary user's path does not lead.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    directories.map(|directory| directory.join(program)).find(|path| path.is_file())
}
