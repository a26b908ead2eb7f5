//! Names of repositories, and patterns of them such as `acme/*`: one syntax for the filter's
//! `allow_repositories` and the sidecar's pools and credentials.

/// The longest login that GitHub allows, of a user or an organization.
const OWNER_BYTES_MAX: usize = 39;
/// The longest name of a repository that GitHub allows.
const NAME_BYTES_MAX: usize = 100;

/// Whether the text can be the login of a user or an organization. `_` precedes the short code of
/// an enterprise's managed users.
pub fn is_owner(text: &str) -> bool {
    (1..=OWNER_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

/// Whether the text can be the name of a repository, without its owner. `.` and `..` would lead
/// elsewhere in a path.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && !matches!(text, "." | "..")
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// Whether the text can be `OWNER/NAME` of a repository.
pub fn is_full_name(text: &str) -> bool {
    text.split_once('/').is_some_and(|(owner, name)| is_owner(owner) && is_name(name))
}

/// `OWNER/NAME`. A `*` in either half stands for any run of characters within that half.
/// Case is ignored, as GitHub does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern {
    // Lower case.
    owner: String,
    name: String,
}

impl RepositoryPattern {
    /// `None` unless both halves are non-empty and consist of `*` and the characters that
    /// GitHub allows in names: ASCII letters, digits, `-`, `_` and `.`.
    pub fn parse(text: &str) -> Option<Self> {
        let (owner, name) = text.split_once('/')?;
        let allowed = |half: &str| {
            !half.is_empty()
                && half.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte))
        };
        (allowed(owner) && allowed(name))
            .then(|| Self { owner: owner.to_ascii_lowercase(), name: name.to_ascii_lowercase() })
    }

    /// The half before the slash, in lower case.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The half after the slash, in lower case.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Owner and name in lower case, if the pattern matches one repository only.
    pub fn exact(&self) -> Option<(&str, &str)> {
        (!self.owner.contains('*') && !self.name.contains('*')).then_some((&self.owner, &self.name))
    }

    /// `full_name` is `owner/name`, as GitHub sends it.
    pub fn matches(&self, full_name: &str) -> bool {
        full_name.split_once('/').is_some_and(|(owner, name)| self.matches_parts(owner, name))
    }

    /// The arguments may themselves be patterns. Only a `*` matches a `*`, so the result then
    /// says whether this pattern covers everything that they match.
    pub fn matches_parts(&self, owner: &str, name: &str) -> bool {
        glob(&self.owner, &owner.to_ascii_lowercase())
            && glob(&self.name, &name.to_ascii_lowercase())
    }
}

/// Between stars the leftmost match is always as good as any later one, so
/// this needs no backtracking.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut text) = text.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.split_once(part) {
            Some((_, after)) => text = after,
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> RepositoryPattern {
        RepositoryPattern::parse(text).unwrap()
    }

    #[test]
    fn names_that_github_allows_are_names() {
        for text in
            ["a/b", "acme/widgets", "A-1/x.y_z-", "-old-/..hidden", "mona_acme/.github", "a/..."]
        {
            assert!(is_full_name(text), "{text}");
        }
        let longest = format!("{}/{}", "o".repeat(39), "n".repeat(100));
        assert!(is_full_name(&longest));
    }

    #[test]
    fn names_that_github_cannot_have_are_none() {
        for text in [
            "", "/", "a", "a/", "/b", "a/b/c", "../b", "./b", "a/.", "a/..", "a b/c", "a/b c",
            "a/b\n", " a/b", "a/b ", "a.b/c", "a/%2e", "a/b?c", "a/b#c", "a\\b/c", "a/\u{fc}",
            "a/b\0", "a:b/c",
        ] {
            assert!(!is_full_name(text), "{text}");
        }
        assert!(!is_full_name(&format!("{}/b", "o".repeat(40))));
        assert!(!is_full_name(&format!("a/{}", "n".repeat(101))));
    }

    #[test]
    fn patterns_match_whole_halves_whatever_the_case() {
        for (text, full_name) in [
            ("acme/widgets", "Acme/Widgets"),
            ("ACME/*", "acme/widgets"),
            ("*/*", "acme/widgets"),
            ("*/widgets", "acme/Widgets"),
            ("acme-*/*", "acme-labs/widgets"),
            ("acme/*-ci-*", "acme/a-ci-b"),
            ("acme/*a*a", "acme/aa"),
            ("acme/w*s", "acme/ws"),
        ] {
            assert!(pattern(text).matches(full_name), "{text} {full_name}");
        }
        for (text, full_name) in [
            ("acme/*", "acme-evil/widgets"),
            ("acme/*", "evil/acme/widgets"),
            ("acme/widgets", "acme/widgets2"),
            ("acme/widgets", "acme/widget"),
            ("acme/*a*a", "acme/a"),
            ("acme/ws*s", "acme/ws"),
            ("acme/*", "acme"),
            ("acme/*", ""),
        ] {
            assert!(!pattern(text).matches(full_name), "{text} {full_name}");
        }
    }

    #[test]
    fn a_pattern_has_two_plain_halves() {
        for text in ["", "acme", "*", "acme/", "/x", "a/b/c", "a b/c", "a/[b]"] {
            assert_eq!(RepositoryPattern::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pattern_without_stars_names_one_repository() {
        assert_eq!(pattern("Acme/App").exact(), Some(("acme", "app")));
        for text in ["acme/*", "*/app", "*/*", "acme/a*", "ac*/app"] {
            assert_eq!(pattern(text).exact(), None, "{text}");
        }
        let acme = pattern("Acme/A*");
        assert_eq!((acme.owner(), acme.name()), ("acme", "a*"));
    }

    #[test]
    fn a_pattern_covers_another_if_it_matches_all_that_the_other_does() {
        for (wide, owner, name) in [
            ("*/*", "*", "*"),
            ("acme/*", "Acme", "*"),
            ("acme/*", "acme", "a*"),
            ("acme-*/*", "acme-*", "*"),
            ("*a*/*", "ba*b", "app"),
        ] {
            assert!(pattern(wide).matches_parts(owner, name), "{wide} {owner}/{name}");
        }
        for (wide, owner, name) in [
            ("acme/*", "*", "*"),
            ("acme/app", "acme", "*"),
            ("acme/a*", "acme", "*"),
            ("acme-*/*", "acme*", "*"),
            ("*x/*", "*", "*"),
        ] {
            assert!(!pattern(wide).matches_parts(owner, name), "{wide} {owner}/{name}");
        }
    }
}
