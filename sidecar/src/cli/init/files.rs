//! The files that `init` writes: all of them or none, and none in place of another.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf, absolute},
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Access, access};
use tempfile::NamedTempFile;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum File {
    Configuration,
    Token,
    AppKey,
    WebhookSecret,
    Envoy,
    /// Where Envoy finds its certificate.
    EnvoyCertificate,
    GithubAddresses,
}

impl File {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Configuration => "edgerunner.toml",
            Self::Token => "github-token",
            Self::AppKey => "app.private-key.pem",
            Self::WebhookSecret => "webhook-secret",
            Self::Envoy => "envoy.yaml",
            Self::EnvoyCertificate => "envoy-certificate.yaml",
            Self::GithubAddresses => "github_addresses.yaml",
        }
    }

    /// What it is, for people.
    pub(super) fn about(self) -> &'static str {
        match self {
            Self::Configuration => "the configuration",
            Self::Token => "the token, which only you can read",
            Self::AppKey => "the private key of the GitHub App, which only you can read",
            Self::WebhookSecret => "the secret of the webhook, which only you can read",
            Self::Envoy => "Envoy's configuration",
            Self::EnvoyCertificate => "where Envoy finds its certificate and key",
            Self::GithubAddresses => "addresses that may send webhooks: all, so far",
        }
    }
}

/// Files that do not exist yet.
pub(super) struct NewFiles {
    /// Absolute.
    directory: PathBuf,
    files: Vec<NewFile>,
}

struct NewFile {
    file: File,
    text: String,
    is_secret: bool,
}

/// Files that were written.
pub(super) struct Written {
    directory: PathBuf,
    files: Vec<File>,
}

impl NewFiles {
    pub(super) fn in_directory(directory: &Path) -> Result<Self> {
        let directory = absolute(directory)
            .with_context(|| format!("{}: no absolute path", directory.display()))?;
        // The files name each other.
        if directory.to_str().is_none() {
            bail!("{}: the directory's name is not UTF-8; choose another", directory.display());
        }
        Ok(Self { directory, files: Vec::new() })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self, file: File) -> PathBuf {
        self.directory.join(file.name())
    }

    /// Names all that are in the way.
    pub(super) fn must_be_absent(&self, files: &[File]) -> Result<()> {
        let is_there = |file: &&File| fs::symlink_metadata(self.path(**file)).is_ok();
        let found: Vec<&str> = files.iter().filter(is_there).map(|file| file.name()).collect();
        if found.is_empty() {
            return Ok(());
        }
        bail!(
            "nothing was written, because {} already has {}: move what you do not need, or choose \
             another --directory",
            self.directory.display(),
            found.join(", ")
        )
    }

    /// Of a directory that is missing, the one in which it will be created.
    pub(super) fn must_be_writable(&self) -> Result<()> {
        let existing = self.directory.ancestors().find(|it| it.exists()).unwrap_or(Path::new("/"));
        let shown = existing.display();
        if !existing.is_dir() {
            bail!("{shown} is not a directory: choose another --directory");
        }
        access(existing, Access::WRITE_OK | Access::EXEC_OK).with_context(|| {
            format!(
                "cannot write to {shown}: choose another --directory, or change its permissions"
            )
        })
    }

    pub(super) fn add(&mut self, file: File, text: String) {
        self.files.push(NewFile { file, text, is_secret: false });
    }

    /// In a file that only the user can read. Returns its path.
    pub(super) fn add_secret(&mut self, file: File, secret: &str) -> PathBuf {
        let text = format!("{}\n", secret.trim_end());
        self.files.push(NewFile { file, text, is_secret: true });
        self.path(file)
    }

    /// First writes all of them under other names, then renames them. Nothing remains if one
    /// fails.
    pub(super) fn write(self) -> Result<Written> {
        let directory = &self.directory;
        let shown = directory.display();
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        made.with_context(|| format!("cannot create {shown}: nothing was written"))?;
        let mut staged = Vec::new();
        for new in &self.files {
            let written = stage(directory, new).with_context(|| {
                format!("cannot write {}: nothing was written", self.path(new.file).display())
            })?;
            staged.push((new.file, written));
        }
        let mut written = Written { directory: directory.clone(), files: Vec::new() };
        for (file, temporary) in staged {
            let path = self.path(file);
            if let Err(error) = temporary.persist_noclobber(&path) {
                written.remove();
                let what = match error.error.kind() {
                    ErrorKind::AlreadyExists => "it was created meanwhile",
                    _ => "cannot rename it",
                };
                let error = anyhow::Error::new(error.error);
                return Err(
                    error.context(format!("{}: {what}; nothing was written", path.display()))
                );
            }
            written.files.push(file);
        }
        Ok(written)
    }
}

fn stage(directory: &Path, new: &NewFile) -> std::io::Result<NamedTempFile> {
    let mode = if new.is_secret { 0o600 } else { 0o644 };
    let mut file = tempfile::Builder::new()
        .prefix(".edgerunner-init-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    file.write_all(new.text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

impl Written {
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    pub(super) fn path(&self, file: File) -> PathBuf {
        self.directory.join(file.name())
    }

    /// Removes them, as far as that is possible.
    pub(super) fn remove(&self) {
        for file in &self.files {
            let _ = fs::remove_file(self.path(*file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn secrets_are_for_their_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("a/b");
        let mut new = NewFiles::in_directory(&below).unwrap();
        new.must_be_writable().unwrap();
        new.add_secret(File::Token, "sesame");
        new.add(File::Configuration, "x = 1\n".into());
        let written = new.write().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&written.path(File::Token)), 0o600);
        assert_eq!(mode(&below), 0o700);
        assert_eq!(fs::read_to_string(written.path(File::Token)).unwrap(), "sesame\n");
        assert_eq!(names(&below).len(), 2, "no temporary file is left");
    }

    #[test]
    fn all_files_in_the_way_are_named_and_none_is_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        fs::write(path.join("envoy.yaml"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", path.join("webhook-secret")).unwrap();
        let new = NewFiles::in_directory(path).unwrap();
        let all = [File::Configuration, File::Envoy, File::WebhookSecret];
        let error = new.must_be_absent(&all).unwrap_err().to_string();
        assert!(error.contains("envoy.yaml, webhook-secret"), "{error}");
        assert!(!error.contains("edgerunner.toml"), "{error}");
    }

    #[test]
    fn a_file_that_appears_meanwhile_stays_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let mut new = NewFiles::in_directory(path).unwrap();
        new.add_secret(File::Token, "sesame");
        new.add(File::Configuration, "x = 1\n".into());
        fs::write(path.join("edgerunner.toml"), "mine").unwrap();
        let error = new.write().err().unwrap().to_string();
        assert!(error.contains("created meanwhile; nothing was written"), "{error}");
        assert_eq!(names(path), ["edgerunner.toml"]);
        assert_eq!(fs::read_to_string(path.join("edgerunner.toml")).unwrap(), "mine");
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_is_named_before_anything_is_asked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let new = NewFiles::in_directory(&file.join("below")).unwrap();
        let error = format!("{:#}", new.must_be_writable().unwrap_err());
        assert!(error.contains("file is not a directory"), "{error}");
        // Not even root may write there.
        let new = NewFiles::in_directory(Path::new("/proc/edgerunner")).unwrap();
        assert!(new.must_be_writable().is_err() || new.write().is_err());
    }
}
