//! The configuration file: where it is if the command line does not say so.

use std::{
    fs::File,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// The environment variable that names it. If it is empty, no file is read.
pub(super) const VARIABLE: &str = "EDGERUNNER_CONFIG";
/// Where the Debian package puts it.
pub(super) const DEFAULT: &str = "/etc/edgerunner/edgerunner.toml";

/// Only the file that was named, on the command line or in the variable.
pub(super) fn named(given: Option<PathBuf>) -> Option<PathBuf> {
    given.filter(|file| !file.as_os_str().is_empty())
}

/// The file that was named, or else the default one unless it is absent.
pub(super) fn find(given: Option<PathBuf>, default: &Path) -> Option<PathBuf> {
    match given {
        Some(_) => named(given),
        None => match File::open(default) {
            Err(error) if is_absent(error.kind()) => None,
            // An error is reported when it is read.
            _ => Some(default.to_owned()),
        },
    }
}

/// Like [`find`], but without a default file that this user may not read: commands that only
/// show something work without it.
pub(super) fn if_readable(given: Option<PathBuf>, default: &Path) -> Option<PathBuf> {
    match File::open(default) {
        Err(error) if given.is_none() && error.kind() == ErrorKind::PermissionDenied => {
            eprintln!(
                "edgerunner: {}: {error}: using the environment and defaults",
                default.display()
            );
            None
        }
        _ => find(given, default),
    }
}

fn is_absent(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_comes_before_the_default_one_which_may_be_absent() {
        let directory = tempfile::tempdir().unwrap();
        let default = directory.path().join("edgerunner.toml");
        let given = || Some(PathBuf::from("own.toml"));
        for look in [find, if_readable] {
            assert_eq!(look(given(), &default), given());
            assert_eq!(look(None, &default), None);
        }
        std::fs::write(&default, "").unwrap();
        for look in [find, if_readable] {
            assert_eq!(look(given(), &default), given());
            assert_eq!(look(None, &default), Some(default.clone()));
            assert_eq!(look(Some(PathBuf::new()), &default), None, "no file at all");
            assert_eq!(look(None, &default.join("below")), None);
        }
    }

    #[test]
    fn with_a_server_only_a_named_file_is_read() {
        assert_eq!(named(None), None);
        assert_eq!(named(Some(PathBuf::new())), None);
        assert_eq!(named(Some("own.toml".into())), Some("own.toml".into()));
    }
}
