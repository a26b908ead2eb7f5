//! The labels of a runner: written on everything that is created for it, and read back, so
//! that what runs is its own record.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

pub(super) const INSTANCE: &str = "dev.edgerunner.instance";
pub(super) const RUNNER: &str = "dev.edgerunner.runner";
/// On the container of a launcher, in place of [`INSTANCE`]: it is no runner.
pub(super) const LAUNCHER: &str = "dev.edgerunner.launcher";
/// On the container of a launcher that waits for a runner which another one started: the ID of
/// their node.
pub(super) const ATTENDS_ON: &str = "dev.edgerunner.attends-on";
pub(super) const POOL: &str = "dev.edgerunner.pool";
pub(super) const HOST: &str = "dev.edgerunner.host";
pub(super) const TARGET: &str = "dev.edgerunner.target";
const LAUNCHED: &str = "dev.edgerunner.launched";
/// Those that the runner has for itself, with commas between them.
const DEVICES: &str = "dev.edgerunner.devices";
/// What labels of jobs asked for, as they are written.
const PARAMETERS: &str = "dev.edgerunner.parameters";
/// How the runner was parked, if it was.
const PARKED: &str = "dev.edgerunner.parked";
/// The revision of the pool's settings, of a runner that was parked.
const REVISION: &str = "dev.edgerunner.revision";
/// On the volume of a tool cache, in place of [`INSTANCE`]: it belongs to no runner.
pub(super) const TOOL_CACHE: &str = "dev.edgerunner.tool-cache";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Labels {
    /// The installation that the runner belongs to.
    pub instance: String,
    pub pool: String,
    pub runner: String,
    /// The GitHub server that the target is on; empty if an earlier version wrote the labels.
    pub host: String,
    /// As `Target` is written, for instance `org:acme`.
    pub target: String,
    pub launched_unix_ms: u64,
    /// IDs of the devices that no other runner has at the same time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// What labels of jobs asked for, as they are written, with spaces between them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub parameters: String,
    /// If it was parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Parked>,
}

/// A runner that was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Parked {
    pub container: ParkedContainer,
    /// Of its pool's settings.
    pub revision: u64,
}

/// What stands of a parked runner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ParkedContainer {
    /// A shell runs in its container and waits to become the command.
    Waiting,
    /// Its container is created.
    Created,
}

impl ParkedContainer {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Created => "created",
        }
    }
}

impl Parked {
    fn to_labels(self) -> [(&'static str, String); 2] {
        [
            (PARKED, self.container.as_str().to_owned()),
            (REVISION, format!("{:016x}", self.revision)),
        ]
    }

    /// One with a damaged revision is renewed.
    fn from_map(map: &HashMap<String, String>) -> Option<Self> {
        let known = [ParkedContainer::Waiting, ParkedContainer::Created];
        let written = map.get(PARKED)?;
        let container = known.into_iter().find(|it| it.as_str() == written)?;
        let revision = map.get(REVISION).and_then(|text| u64::from_str_radix(text, 16).ok());
        Some(Self { container, revision: revision.unwrap_or_default() })
    }
}

impl Labels {
    pub(super) fn to_map(&self) -> HashMap<String, String> {
        let devices = self.devices.join(",");
        let devices = (!devices.is_empty()).then_some((DEVICES, devices));
        let parameters = &self.parameters;
        let parameters = (!parameters.is_empty()).then(|| (PARAMETERS, parameters.clone()));
        let labels = [
            (INSTANCE, self.instance.clone()),
            (POOL, self.pool.clone()),
            (RUNNER, self.runner.clone()),
            (HOST, self.host.clone()),
            (TARGET, self.target.clone()),
            (LAUNCHED, self.launched_unix_ms.to_string()),
        ];
        let parked = self.parked.into_iter().flat_map(Parked::to_labels);
        let all = labels.into_iter().chain(devices).chain(parameters).chain(parked);
        all.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// The labels of a launcher's container.
    pub(super) fn to_launcher_map(&self) -> HashMap<String, String> {
        let mut map = self.to_map();
        let instance = map.remove(INSTANCE).unwrap_or_default();
        map.insert(LAUNCHER.to_owned(), instance);
        map
    }

    /// Like `from_map`, for those of a launcher's container.
    pub(super) fn from_launcher_map(
        mut map: HashMap<String, String>,
        instance: &str,
    ) -> Option<Self> {
        let launcher = map.remove(LAUNCHER)?;
        map.insert(INSTANCE.to_owned(), launcher);
        Self::from_map(&map, instance)
    }

    /// `None` if `map` does not belong to `instance`. Other labels that are missing are left
    /// empty: the container is still ours, and must be listed to be removed.
    pub(super) fn from_map(map: &HashMap<String, String>, instance: &str) -> Option<Self> {
        let read = |name: &str| map.get(name).cloned().unwrap_or_default();
        (map.get(INSTANCE)? == instance).then(|| Self {
            instance: instance.to_owned(),
            pool: read(POOL),
            runner: read(RUNNER),
            host: read(HOST),
            target: read(TARGET),
            launched_unix_ms: read(LAUNCHED).parse().unwrap_or_default(),
            devices: read(DEVICES)
                .split(',')
                .filter(|device| !device.is_empty())
                .map(str::to_owned)
                .collect(),
            parameters: read(PARAMETERS),
            parked: Parked::from_map(map),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels {
            instance: "one".into(),
            pool: "default".into(),
            runner: "edge-1".into(),
            host: "github.com".into(),
            target: "repo:acme/app".into(),
            launched_unix_ms: 1_700_000_000_123,
            devices: vec!["0".into(), "nvidia.com/gpu=1".into()],
            parameters: "cpu=4 run=17".into(),
            parked: Some(Parked { container: ParkedContainer::Created, revision: u64::MAX - 1 }),
        }
    }

    #[test]
    fn labels_survive_the_round_trip() {
        assert_eq!(Labels::from_map(&labels().to_map(), "one"), Some(labels()));
    }

    #[test]
    fn other_containers_are_not_ours() {
        assert_eq!(Labels::from_map(&labels().to_map(), "two"), None);
        assert_eq!(Labels::from_map(&HashMap::new(), "one"), None);
    }

    #[test]
    fn a_damaged_label_does_not_hide_a_container() {
        let mut map = labels().to_map();
        map.remove(POOL);
        map.insert(LAUNCHED.into(), "yesterday".into());
        let expected = Labels { pool: String::new(), launched_unix_ms: 0, ..labels() };
        assert_eq!(Labels::from_map(&map, "one"), Some(expected));
    }
}
