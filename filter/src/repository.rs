//! Patterns of repositories, such as `acme/*`.

/// `owner/name`, where `*` stands for any run of characters within its half.
/// GitHub's names ignore case, and so does this.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPattern {
    owner: String,
    name: String,
}

impl RepositoryPattern {
    pub fn parse(pattern: &str) -> Option<Self> {
        let (owner, name) = pattern.split_once('/')?;
        let allowed = |half: &str| {
            !half.is_empty()
                && half.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte))
        };
        (allowed(owner) && allowed(name))
            .then(|| Self { owner: owner.to_ascii_lowercase(), name: name.to_ascii_lowercase() })
    }

    pub fn matches(&self, full_name: &str) -> bool {
        full_name.split_once('/').is_some_and(|(owner, name)| {
            glob(&self.owner, &owner.to_ascii_lowercase())
                && glob(&self.name, &name.to_ascii_lowercase())
        })
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

    fn matches(pattern: &str, full_name: &str) -> bool {
        RepositoryPattern::parse(pattern).unwrap().matches(full_name)
    }

    #[test]
    fn patterns_match_whole_halves_whatever_the_case() {
        for (pattern, full_name) in [
            ("acme/widgets", "Acme/Widgets"),
            ("ACME/*", "acme/widgets"),
            ("*/*", "acme/widgets"),
            ("acme-*/*", "acme-labs/widgets"),
            ("acme/*-ci-*", "acme/a-ci-b"),
            ("acme/*a*a", "acme/aa"),
            ("acme/w*s", "acme/ws"),
        ] {
            assert!(matches(pattern, full_name), "{pattern} {full_name}");
        }
        for (pattern, full_name) in [
            ("acme/*", "acme-evil/widgets"),
            ("acme/*", "evil/acme/widgets"),
            ("acme/widgets", "acme/widgets2"),
            ("acme/widgets", "acme/widget"),
            ("acme/*a*a", "acme/a"),
            ("acme/ws*s", "acme/ws"),
            ("acme/*", "acme"),
            ("acme/*", ""),
        ] {
            assert!(!matches(pattern, full_name), "{pattern} {full_name}");
        }
    }

    #[test]
    fn a_pattern_has_two_plain_halves() {
        for pattern in ["", "acme", "*", "acme/", "/x", "a/b/c", "a b/c", "a/[b]"] {
            assert_eq!(RepositoryPattern::parse(pattern), None, "{pattern}");
        }
    }
}
