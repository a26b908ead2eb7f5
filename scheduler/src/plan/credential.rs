//! Credentials, and which of them serves a target.

use super::RepositoryPattern;
use crate::model::Target;

/// What runners are registered with. The secret itself is no business of the planner's.
#[derive(Clone, Debug)]
pub struct Credential {
    pub name: String,
    pub targets: Vec<TargetPattern>,
}

/// Targets that a credential serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPattern {
    Any,
    Repository(RepositoryPattern),
    /// Lower case, as the next.
    Organization(String),
    Enterprise(String),
}

impl TargetPattern {
    /// `OWNER/NAME`, in which either part may be `*`; `OWNER`, an organization; or
    /// `enterprise:SLUG`.
    pub fn parse(text: &str) -> Option<Self> {
        let named = |name: &str| {
            (!name.is_empty() && !name.contains(['*', '/', ':'])).then(|| name.to_ascii_lowercase())
        };
        match text.strip_prefix("enterprise:") {
            Some(slug) => named(slug).map(Self::Enterprise),
            None if text.contains('/') => RepositoryPattern::parse(text).ok().map(Self::Repository),
            None => named(text).map(Self::Organization),
        }
    }

    /// Of a target in lower case. `*` in it stands for any name, so it takes a `*` in
    /// the pattern to match that.
    pub fn matches(&self, target: &Target) -> bool {
        match (self, target) {
            (Self::Any, _) => true,
            (Self::Repository(pattern), Target::Repository { owner, name }) => {
                pattern.matches_parts(owner, name)
            }
            (Self::Organization(login), Target::Organization(target))
            | (Self::Enterprise(login), Target::Enterprise(target)) => login == target,
            _ => false,
        }
    }
}

/// The first that serves a target; an index.
pub fn credential_for(credentials: &[Credential], target: &Target) -> Option<usize> {
    credentials
        .iter()
        .position(|credential| credential.targets.iter().any(|pattern| pattern.matches(target)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(targets: &[&str]) -> Credential {
        let targets = targets.iter().map(|text| TargetPattern::parse(text).unwrap()).collect();
        Credential { name: "one".into(), targets }
    }

    #[test]
    fn the_first_that_matches_serves_a_target() {
        let credentials = [
            credential(&["acme/App", "enterprise:Acme-Corp"]),
            credential(&["acme/*"]),
            credential(&["ACME", "*/tools"]),
            Credential { name: "any".into(), targets: vec![TargetPattern::Any] },
        ];
        for (target, expected) in [
            ("repo:acme/app", 0),
            ("enterprise:acme-corp", 0),
            ("repo:acme/lib", 1),
            ("org:acme", 2),
            ("repo:other/tools", 2),
            ("org:other", 3),
            ("enterprise:acme", 3),
        ] {
            let target = target.parse().unwrap();
            assert_eq!(credential_for(&credentials, &target), Some(expected), "{target}");
            assert_eq!(credential_for(&credentials[..3], &target).is_none(), expected == 3);
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in
            ["", "*", "acme/", "ac*/app", "enterprise:", "enterprise:*", "org:acme", "a/b/c"]
        {
            assert_eq!(TargetPattern::parse(text), None, "{text}");
        }
    }
}
