//! Secrets, and the files they are read from, which may be replaced while the program runs.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use secrecy::{ExposeSecret as _, SecretString};
use tracing::{info, warn};

use crate::blocking::{self, OneAtATime, late};

/// No token or key is nearly as long.
pub(crate) const SECRET_BYTES_MAX: u64 = 64 << 10;
/// Calls to GitHub and Envoy wait for it.
pub(crate) const READ_LIMIT: Duration = Duration::from_secs(2);

/// A secret as it was at the start, and the file it was read from, if any.
#[derive(Clone, Debug)]
pub(crate) struct Secret {
    pub value: SecretString,
    pub file: Option<PathBuf>,
}

impl From<SecretString> for Secret {
    fn from(value: SecretString) -> Self {
        Self { value, file: None }
    }
}

/// Reads a secret without the line break at its end, while nothing else has to go on.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    without_line_break(blocking::read_text(path, SECRET_BYTES_MAX))
}

fn without_line_break(read: io::Result<String>) -> Result<String, String> {
    let text = read.map_err(|error| format!("cannot read that file: {error}"))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err("that file is empty: write the secret into it".to_owned());
    }
    Ok(secret.to_owned())
}

/// A file that holds a secret. It may be replaced, and its disk may hang.
pub(crate) struct SecretFile {
    pub path: Arc<Path>,
    reads: OneAtATime<Result<String, String>>,
}

/// Why a secret cannot be read.
pub(crate) enum ReadError {
    /// There is no answer yet.
    Late(String),
    Unusable(String),
}

impl SecretFile {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into(), reads: OneAtATime::default() }
    }

    pub(crate) async fn read(&self) -> Result<SecretString, ReadError> {
        let path = Arc::clone(&self.path);
        let read = move || {
            let mut text = String::new();
            let read = File::open(&path).and_then(|file| {
                file.take(SECRET_BYTES_MAX).read_to_string(&mut text).map(|_| text)
            });
            without_line_break(read)
        };
        match self.reads.run(READ_LIMIT, read).await {
            Some(Ok(secret)) => Ok(secret.into()),
            Some(Err(problem)) => Err(ReadError::Unusable(problem)),
            None => Err(ReadError::Late(format!("cannot read that file: {}", late(READ_LIMIT)))),
        }
    }
}

/// Why a text cannot be the secret. The message does not repeat the text.
pub(crate) type Problem = fn(&SecretString) -> Option<&'static str>;

/// A secret that is read from its file at each use: that costs little compared with a call to
/// GitHub, and notices every way of replacing a file.
pub(crate) struct RotatingSecret {
    file: Option<SecretFile>,
    problem: Problem,
    last: Mutex<Last>,
}

struct Last {
    value: SecretString,
    /// The file could not be used at the last use, which is logged once.
    is_stale: bool,
}

impl RotatingSecret {
    pub(crate) fn new(Secret { value, file }: Secret, problem: Problem) -> Self {
        let file = file.as_deref().map(SecretFile::new);
        Self { file, problem, last: Mutex::new(Last { value, is_stale: false }) }
    }

    /// The secret in the file, or the last usable one if the file has none.
    pub(crate) async fn get(&self) -> SecretString {
        let Some(secret_file) = &self.file else { return self.last().value.clone() };
        let read = match secret_file.read().await {
            Ok(read) => match (self.problem)(&read) {
                Some(problem) => Err(problem.to_owned()),
                None => Ok(read),
            },
            Err(ReadError::Late(problem) | ReadError::Unusable(problem)) => Err(problem),
        };
        let file = secret_file.path.display();
        let mut last = self.last();
        match read {
            Ok(read) => {
                if read.expose_secret() != last.value.expose_secret() {
                    info!(%file, "the secret was replaced");
                    last.value = read;
                }
                last.is_stale = false;
            }
            Err(error) => {
                if !last.is_stale {
                    warn!(%file, error, "cannot reload the secret; the previous one is still used");
                }
                last.is_stale = true;
            }
        }
        last.value.clone()
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tokio::time;

    use super::*;

    fn rotating(file: PathBuf) -> RotatingSecret {
        let problem: Problem = |text| text.expose_secret().contains(' ').then_some("no blanks");
        RotatingSecret::new(Secret { value: "first".into(), file: Some(file) }, problem)
    }

    #[tokio::test]
    async fn a_file_may_be_replaced_in_any_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let secret = rotating(path("token"));
        let held = async || secret.get().await.expose_secret().to_owned();
        fs::write(path("token"), "first\n").unwrap();
        assert_eq!(held().await, "first");

        fs::write(path("token"), "secnd\n").unwrap();
        assert_eq!(held().await, "secnd");

        fs::write(path("new"), "third").unwrap();
        fs::rename(path("new"), path("token")).unwrap();
        assert_eq!(held().await, "third");

        // As Kubernetes and Docker do it: a link to a folder of the current ones.
        for version in ["a", "b"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("token"), version).unwrap();
        }
        let secret = rotating(path("current/token"));
        for version in ["a", "b"] {
            symlink(path(version), path("next")).unwrap();
            fs::rename(path("next"), path("current")).unwrap();
            assert_eq!(secret.get().await.expose_secret(), version);
        }
    }

    #[tokio::test]
    async fn an_unusable_file_leaves_the_previous_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = rotating(path.clone());
        let held = async || secret.get().await.expose_secret().to_owned();
        fs::write(&path, "second").unwrap();
        assert_eq!(held().await, "second");
        for text in ["", "\n", "no token"] {
            fs::write(&path, text).unwrap();
            assert_eq!(held().await, "second", "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(held().await, "second");
        fs::write(&path, "third").unwrap();
        assert_eq!(held().await, "third");
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_hangs_leaves_the_previous_secret_and_stops_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        // Nobody writes to it.
        let mode = rustix::fs::Mode::RWXU;
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        let secret = rotating(path.clone());
        let (held, ()) = tokio::join!(secret.get(), time::advance(READ_LIMIT));
        assert_eq!(held.expose_secret(), "first");
        // Time stands still while a file is read: none of these calls waits.
        for _ in 0..1000 {
            assert_eq!(secret.get().await.expose_secret(), "first");
        }

        // The read that hangs ends with what is written, and later ones read the file anew.
        fs::write(&path, "second").unwrap();
        while secret.get().await.expose_secret() != "second" {
            tokio::task::yield_now().await;
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, "third").unwrap();
        while secret.get().await.expose_secret() != "third" {
            tokio::task::yield_now().await;
        }
    }
}
