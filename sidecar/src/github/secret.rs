//! Secrets that may be replaced while we run.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use secrecy::{ExposeSecret as _, SecretString};
use tracing::{info, warn};

use crate::config::read_secret;

/// A secret as it was at the start, and the file it came from, if it did.
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

/// Why a text cannot be the secret; says nothing of the text.
pub(super) type Problem = fn(&SecretString) -> Option<&'static str>;

/// Reads its file whenever it is asked: that costs next to nothing beside a call to
/// GitHub, and no way to replace a file goes unnoticed.
pub(super) struct Rotating {
    file: Option<PathBuf>,
    problem: Problem,
    kept: Mutex<Kept>,
}

struct Kept {
    value: SecretString,
    /// It is told that the file cannot be used.
    unusable: bool,
}

impl Rotating {
    pub(super) fn new(Secret { value, file }: Secret, problem: Problem) -> Self {
        Self { file, problem, kept: Mutex::new(Kept { value, unusable: false }) }
    }

    /// What the file holds, or else what it last held.
    pub(super) fn get(&self) -> SecretString {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(path) = &self.file else { return kept.value.clone() };
        let file = path.display();
        let read = read_secret(path).map(SecretString::from);
        let read = read.and_then(|read| match (self.problem)(&read) {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(read),
        });
        match read {
            Ok(read) => {
                if read.expose_secret() != kept.value.expose_secret() {
                    info!(%file, "the secret was replaced");
                    kept.value = read;
                }
                kept.unusable = false;
            }
            Err(why) => {
                if !kept.unusable {
                    warn!(%file, why, "the secret that was last in this file is still used");
                }
                kept.unusable = true;
            }
        }
        kept.value.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    fn rotating(file: PathBuf) -> Rotating {
        let problem: Problem = |text| text.expose_secret().contains(' ').then_some("no blanks");
        Rotating::new(Secret { value: "first".into(), file: Some(file) }, problem)
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
    fn what_cannot_be_used_leaves_the_last_one() {
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
