//! Repositories and organizations that GitHub redirects, because they were renamed or
//! transferred.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Far more than one credential serves. Beyond it, some are announced again.
const MOVED_MAX: usize = 1_000;

/// Something that GitHub redirects.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    /// As it was requested: `OWNER/NAME` or a path.
    pub(super) from: String,
    /// The current name, or the path that GitHub redirects to.
    pub(super) to: String,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to } = self;
        write!(f, "GitHub redirects {from}, which was renamed or transferred, to {to}")
    }
}

/// What is known to have moved, by where GitHub redirects it.
#[derive(Default)]
pub(super) struct AllMoved(Mutex<HashMap<(String, String), Arc<Moved>>>);

impl AllMoved {
    /// `from` and `to` as [`subject`] returns them.
    pub(super) fn get(&self, from: &str, to: &str) -> Option<Arc<Moved>> {
        self.locked().get(&(from.to_owned(), to.to_owned())).cloned()
    }

    /// Notes the name of `to`, if it is known.
    pub(super) fn add(&self, from: &str, to: &str, name: Option<String>) -> Arc<Moved> {
        let moved = Arc::new(Moved {
            from: name_of(from).unwrap_or_else(|| from.to_owned()),
            to: name.or_else(|| name_of(to)).unwrap_or_else(|| to.to_owned()),
        });
        let mut all = self.locked();
        if all.len() >= MOVED_MAX {
            all.clear();
        }
        all.insert((from.to_owned(), to.to_owned()), Arc::clone(&moved));
        moved
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<(String, String), Arc<Moved>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of a path that names a repository or an organization, in names or by an id:
/// `/repos/acme/app` or `/repositories/4711`. The whole path if there is none.
pub(super) fn subject(path: &str) -> &str {
    let path = path.split('?').next().unwrap_or_default();
    let segments = match path.split('/').nth(1) {
        Some("repos") => 3,
        Some("orgs" | "repositories" | "organizations") => 2,
        _ => return path,
    };
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(end, _)| end);
    &path[..end]
}

/// Whether a path is the [`subject`] by an id, so that a request finds out its name.
pub(super) fn has_id(subject: &str) -> bool {
    let mut parts = subject.split('/').skip(1);
    matches!(parts.next(), Some("repositories" | "organizations"))
        && parts.next().is_some_and(|id| !id.is_empty())
}

fn name_of(subject: &str) -> Option<String> {
    let name = subject.strip_prefix("/repos/").or_else(|| subject.strip_prefix("/orgs/"))?;
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_path_is_what_may_move() {
        for (path, expected) in [
            ("/repos/acme/app/actions/runners?per_page=100", "/repos/acme/app"),
            ("/repos/acme/app", "/repos/acme/app"),
            ("/orgs/acme/actions/runners", "/orgs/acme"),
            ("/repositories/4711/actions/jobs/9", "/repositories/4711"),
            ("/repositories/4711?x", "/repositories/4711"),
            ("/app/installations/7/access_tokens", "/app/installations/7/access_tokens"),
            ("/repos", "/repos"),
        ] {
            assert_eq!(subject(path), expected);
        }
        assert!(has_id("/repositories/4711") && has_id("/organizations/7"));
        assert!(!has_id("/repositories/") && !has_id("/repositories") && !has_id("/repos/a/b"));
    }

    #[test]
    fn both_names_are_told_as_far_as_they_are_known() {
        let all = AllMoved::default();
        let (from, to) = ("/repos/acme/app", "/repositories/4711");
        assert_eq!(all.get(from, to), None);
        let moved = all.add(from, to, Some("acme/new-name".into()));
        assert_eq!((&*moved.from, &*moved.to), ("acme/app", "acme/new-name"));
        assert_eq!(all.get(from, to), Some(moved));
        assert_eq!(all.add(from, to, None).to, "/repositories/4711");
        assert_eq!(all.add(from, "/repos/acme/other", None).to, "acme/other");
    }
}
