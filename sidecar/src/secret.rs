//! Secrets, and the files they are read from, which may be replaced while the program runs.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};
use tracing::{info, warn};

/// No token or key is nearly as long.
const SECRET_BYTES_MAX: u64 = 64 << 10;

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

/// Reads a secret without the line break at its end.
pub(crate) fn read_secret(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("cannot read that file: {error}"))?;
    let secret = text.trim_end_matches(['\r', '\n']);
    if secret.is_empty() {
        return Err("that file is empty: write the secret into it".to_owned());
    }
    Ok(secret.to_owned())
}

/// Why a text cannot be the secret. The message does not repeat the text.
pub(crate) type Problem = fn(&SecretString) -> Option<&'static str>;

/// A secret that is read from its file at each use: that costs little compared with a call to
/// GitHub, and notices every way of replacing a file.
pub(crate) struct RotatingSecret {
    file: Option<PathBuf>,
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
        Self { file, problem, last: Mutex::new(Last { value, is_stale: false }) }
    }

    /// The secret in the file, or the last usable one if the file has none.
    pub(crate) fn get(&self) -> SecretString {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.file else { return last.value.clone() };
        let file = path.display();
        let read = read_secret(path).map(SecretString::from);
        let read = read.and_then(|read| match (self.problem)(&read) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(read),
        });
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
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn rotating(file: PathBuf) -> RotatingSecret {
        let problem: Problem = |text| text.expose_secret().contains(' ').then_some("no blanks");
        RotatingSecret::new(Secret { value: "first".into(), file: Some(file) }, problem)
    }

    #[test]
    fn a_file_may_be_replaced_in_any_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let secret = rotating(path("token"));
        let held = || secret.get().expose_secret().to_owned();
        fs::write(path("token"), "first\n").unwrap();
        assert_eq!(held(), "first");

        fs::write(path("token"), "secnd\n").unwrap();
        assert_eq!(held(), "secnd");

        fs::write(path("new"), "third").unwrap();
        fs::rename(path("new"), path("token")).unwrap();
        assert_eq!(held(), "third");

        // As Kubernetes and Docker do it: a link to a folder of the current ones.
        for version in ["a", "b"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("token"), version).unwrap();
        }
        let secret = rotating(path("current/token"));
        for version in ["a", "b"] {
            symlink(path(version), path("next")).unwrap();
            fs::rename(path("next"), path("current")).unwrap();
            assert_eq!(secret.get().expose_secret(), version);
        }
    }

    #[test]
    fn an_unusable_file_leaves_the_previous_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let secret = rotating(path.clone());
        let held = || secret.get().expose_secret().to_owned();
        fs::write(&path, "second").unwrap();
        assert_eq!(held(), "second");
        for text in ["", "\n", "no token"] {
            fs::write(&path, text).unwrap();
            assert_eq!(held(), "second", "{text:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(held(), "second");
        fs::write(&path, "third").unwrap();
        assert_eq!(held(), "third");
    }
}
