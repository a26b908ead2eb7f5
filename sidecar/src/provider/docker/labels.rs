use std::collections::HashMap;

pub(super) const INSTANCE: &str = "dev.edgerunner.instance";
pub(super) const RUNNER: &str = "dev.edgerunner.runner";
const POOL: &str = "dev.edgerunner.pool";
const TARGET: &str = "dev.edgerunner.target";
const LAUNCHED: &str = "dev.edgerunner.launched";
/// Only on a container that is not the runner itself.
const ROLE: &str = "dev.edgerunner.role";
pub(super) const DIND: &str = "dind";

/// Who a container is: written on it at creation, read back by the survey, so
/// that what runs is its own record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub instance: String,
    pub pool: String,
    pub runner: String,
    /// As `Target` is written, for instance `org:acme`.
    pub target: String,
    pub launched_unix_ms: u64,
}

impl Labels {
    pub(super) fn to_map(&self) -> HashMap<String, String> {
        [
            (INSTANCE, self.instance.clone()),
            (POOL, self.pool.clone()),
            (RUNNER, self.runner.clone()),
            (TARGET, self.target.clone()),
            (LAUNCHED, self.launched_unix_ms.to_string()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    pub(super) fn to_map_of(&self, role: &str) -> HashMap<String, String> {
        let mut map = self.to_map();
        map.insert(ROLE.to_owned(), role.to_owned());
        map
    }

    /// `None` if these are not the labels of `instance`. A label that is
    /// missing otherwise stays empty: the container is ours all the same, and
    /// must be seen to be removed.
    pub(super) fn from_map(map: &HashMap<String, String>, instance: &str) -> Option<Self> {
        let read = |name: &str| map.get(name).cloned().unwrap_or_default();
        (map.get(INSTANCE)? == instance).then(|| Self {
            instance: instance.to_owned(),
            pool: read(POOL),
            runner: read(RUNNER),
            target: read(TARGET),
            launched_unix_ms: read(LAUNCHED).parse().unwrap_or_default(),
        })
    }

    /// The filter that makes Docker show what is of `instance` only.
    pub(super) fn filter(instance: &str) -> (String, Vec<String>) {
        Self::filter_of(instance, None)
    }

    /// The same for one of its runners.
    pub(super) fn filter_of(instance: &str, runner: Option<&str>) -> (String, Vec<String>) {
        let labels = [(INSTANCE, Some(instance)), (RUNNER, runner)];
        let wanted =
            labels.iter().filter_map(|(name, value)| Some(format!("{name}={}", (*value)?)));
        ("label".to_owned(), wanted.collect())
    }
}

pub(super) fn is_dind(map: &HashMap<String, String>) -> bool {
    map.get(ROLE).is_some_and(|role| role == DIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels {
            instance: "one".into(),
            pool: "default".into(),
            runner: "edge-1".into(),
            target: "repo:acme/app".into(),
            launched_unix_ms: 1_700_000_000_123,
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(Labels::from_map(&labels().to_map(), "one"), Some(labels()));
    }

    #[test]
    fn other_containers_are_not_ours() {
        assert_eq!(Labels::from_map(&labels().to_map(), "two"), None);
        assert_eq!(Labels::from_map(&HashMap::new(), "one"), None);
    }

    #[test]
    fn a_damaged_label_hides_nothing() {
        let mut map = labels().to_map();
        map.remove(POOL);
        map.insert(LAUNCHED.into(), "yesterday".into());
        let expected = Labels { pool: String::new(), launched_unix_ms: 0, ..labels() };
        assert_eq!(Labels::from_map(&map, "one"), Some(expected));
    }
}
