//! Credentials, and which of them serves a target.

use edgerunner_pattern::RepositoryPattern;

use crate::model::{Host, ServerTarget, Target};

/// A credential that registers runners. The planner does not need the secret itself.
#[derive(Clone, Debug)]
pub struct Credential {
    pub name: String,
    /// The server that knows it.
    pub host: Host,
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
pub fn credential_for(credentials: &[Credential], target: &ServerTarget) -> Option<usize> {
    let ServerTarget { host, target } = target;
    credentials.iter().position(|it| (it.host == *host || !host.is_known()) && it.serves(target))
}

/// The same for a target that the configuration names, without its server.
pub fn credential_for_name(credentials: &[Credential], target: &Target) -> Option<usize> {
    credentials.iter().position(|it| it.serves(target))
}

/// The server that a target is on if nothing says so, as in configurations and in the records of
/// earlier versions: that of the first credential that serves such a name, or else the default
/// server.
pub fn host_for_name(credentials: &[Credential], target: &Target) -> Host {
    credential_for_name(credentials, target)
        .map_or_else(|| default_host(credentials), |index| credentials[index].host)
}

/// The server of the last credential, which is that of `[github]` if it has one.
pub fn default_host(credentials: &[Credential]) -> Host {
    credentials.last().map(|credential| credential.host).unwrap_or_default()
}

impl Credential {
    fn serves(&self, target: &Target) -> bool {
        self.targets.iter().any(|pattern| pattern.matches(target))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(targets: &[&str]) -> Credential {
        let targets = targets.iter().map(|text| TargetPattern::parse(text).unwrap()).collect();
        Credential { name: "one".into(), host: Host::default(), targets }
    }

    #[test]
    fn the_first_that_matches_serves_a_target() {
        let credentials = [
            credential(&["acme/App", "enterprise:Acme-Corp"]),
            credential(&["acme/*"]),
            credential(&["ACME", "*/tools"]),
            Credential { targets: vec![TargetPattern::Any], ..credential(&[]) },
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
            let target = target.parse::<Target>().unwrap().on(Host::default());
            assert_eq!(credential_for(&credentials, &target), Some(expected), "{target}");
            assert_eq!(credential_for(&credentials[..3], &target).is_none(), expected == 3);
        }
    }

    #[test]
    fn a_target_is_served_by_a_credential_of_its_own_server_only() {
        let (ours, theirs) = (Host::new("ghe.example.com"), Host::new("github.com"));
        let on = |host| Credential { host, ..credential(&["acme/*"]) };
        let credentials = [on(ours), on(theirs)];
        let target: Target = "repo:acme/app".parse().unwrap();
        let serves = |host| credential_for(&credentials, &target.clone().on(host));
        assert_eq!((serves(ours), serves(theirs)), (Some(0), Some(1)));
        assert_eq!(serves(Host::new("other.example.com")), None);
        // A name alone means the first that serves it, or else the default server.
        assert_eq!(serves(Host::default()), Some(0));
        assert_eq!(host_for_name(&credentials, &target), ours);
        assert_eq!(host_for_name(&credentials, &"org:acme".parse().unwrap()), theirs);
    }

    #[test]
    fn malformed_patterns_are_rejected() {
        for text in ["", "*", "acme/", "ac*", "enterprise:", "enterprise:*", "org:acme", "a/b/c"] {
            assert_eq!(TargetPattern::parse(text), None, "{text}");
        }
    }
}
