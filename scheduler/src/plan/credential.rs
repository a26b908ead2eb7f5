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

/// The indexes of all credentials that serve a target: the first one and, on its server, those
/// that list a pattern which matches there as well. Launches are spread over them.
pub fn credentials_for(
    credentials: &[Credential],
    target: &ServerTarget,
) -> impl Iterator<Item = usize> {
    sharing(credentials, credential_for(credentials, target), &target.target)
}

/// The same for a target that the configuration names, without its server.
pub fn credentials_for_name(
    credentials: &[Credential],
    target: &Target,
) -> impl Iterator<Item = usize> {
    sharing(credentials, credential_for_name(credentials, target), target)
}

fn sharing(
    credentials: &[Credential],
    first: Option<usize>,
    target: &Target,
) -> impl Iterator<Item = usize> {
    first.into_iter().flat_map(move |first| {
        let Credential { host, targets, .. } = &credentials[first];
        let shares = move |other: &Credential| {
            let same = |pattern| targets.contains(pattern) && pattern.matches(target);
            other.host == *host && other.targets.iter().any(same)
        };
        (first..credentials.len()).filter(move |index| shares(&credentials[*index]))
    })
}

/// Whether the credential lists a pattern that another one of its server lists as well.
pub fn is_shared(credentials: &[Credential], index: usize) -> bool {
    let Credential { host, targets, .. } = &credentials[index];
    credentials.iter().enumerate().any(|(other, it)| {
        other != index && it.host == *host && it.targets.iter().any(|it| targets.contains(it))
    })
}

/// The first credential that serves a target which the configuration names, without its server.
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
    fn those_that_list_the_pattern_of_the_first_one_share_its_target() {
        let github = Credential { targets: vec![TargetPattern::Any], ..credential(&[]) };
        let elsewhere = Host::new("ghe.example.com");
        let credentials = [
            credential(&["acme/app", "other"]),
            credential(&["acme/*", "acme"]),
            Credential { host: elsewhere, ..credential(&["ACME"]) },
            credential(&["Acme", "acme/app"]),
            credential(&["acme/*"]),
            github,
        ];
        for (target, expected) in [
            // A more general pattern is not mixed in.
            ("repo:acme/app", &[0, 3][..]),
            ("repo:acme/lib", &[1, 4]),
            ("org:acme", &[1, 3]),
            ("org:other", &[0]),
            ("org:third", &[5]),
        ] {
            let target = target.parse::<Target>().unwrap();
            let named: Vec<usize> = credentials_for_name(&credentials, &target).collect();
            assert_eq!(named, expected, "{target}");
            let target = target.on(Host::default());
            let found: Vec<usize> = credentials_for(&credentials, &target).collect();
            assert_eq!(found, expected, "{target}");
        }
        let on = |host| "org:acme".parse::<Target>().unwrap().on(host);
        let found: Vec<usize> = credentials_for(&credentials, &on(elsewhere)).collect();
        assert_eq!(found, [2]);
        let shared: Vec<usize> = (0..6).filter(|it| is_shared(&credentials, *it)).collect();
        assert_eq!(shared, [0, 1, 3, 4]);
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
