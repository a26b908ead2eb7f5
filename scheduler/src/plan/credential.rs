//! Credentials, and which of them serves a target.

use edgerunner_pattern::RepositoryPattern;

use crate::model::Target;

/// A credential that registers runners. The planner does not need the secret itself.
#[derive(Clone, Debug)]
pub struct Credential {
    pub name: String,
    pub targets: Vec<TargetPattern>,
}

/// A set of targets that a credential serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPattern {
    Any,
    Repository(RepositoryPattern),
    /// In lower case.
    Organization(String),
    /// In lower case.
    Enterprise(String),
}

impl TargetPattern {
    /// `OWNER/NAME`, see [`RepositoryPattern`]; `OWNER`, an organization; or
    /// `enterprise:SLUG`.
    pub fn parse(text: &str) -> Option<Self> {
        let named = |name: &str| {
            (!name.is_empty() && !name.contains(['*', '/', ':'])).then(|| name.to_ascii_lowercase())
        };
        match text.strip_prefix("enterprise:") {
            Some(slug) => named(slug).map(Self::Enterprise),
            None if text.contains('/') => RepositoryPattern::parse(text).map(Self::Repository),
            None => named(text).map(Self::Organization),
        }
    }

    /// `target` is in lower case and may itself be a pattern, as [`super::Pool::targets`]
    /// returns them. Only a `*` matches a `*`.
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

/// The index of the first credential that serves a target.
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
    fn malformed_patterns_are_rejected() {
        for text in ["", "*", "acme/", "ac*", "enterprise:", "enterprise:*", "org:acme", "a/b/c"] {
            assert_eq!(TargetPattern::parse(text), None, "{text}");
        }
    }
}
