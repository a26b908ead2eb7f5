//! The nodes of a Swarm, as a manager lists them.

use std::collections::HashMap;

use serde::Deserialize;

use super::task::{Resources, Task};
use crate::provider::node::{Availability, Node};

/// Before it, removing the service of a job left its container running: moby/moby#42789.
const ENGINE_MIN: (u64, u64, u64) = (23, 0, 3);

/// Of what a manager lists, the part that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListedNode {
    #[serde(rename = "ID")]
    pub id: String,
    spec: ListedSpec,
    description: ListedDescription,
    status: ListedStatus,
    manager_status: Option<ListedManager>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedSpec {
    availability: String,
    labels: HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedDescription {
    hostname: String,
    resources: Resources,
    engine: ListedEngine,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedEngine {
    engine_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedStatus {
    state: String,
    message: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedManager {
    leader: bool,
    reachability: String,
}

impl ListedNode {
    pub(super) fn name(&self) -> &str {
        if self.description.hostname.is_empty() { &self.id } else { &self.description.hostname }
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(&*self.status.state, "down" | "disconnected")
    }

    /// Whether a manager may place launchers on it.
    pub(super) fn is_active(&self) -> bool {
        self.availability() == Availability::Active
    }

    pub(super) fn is_too_old(&self) -> bool {
        version(&self.description.engine.engine_version).is_some_and(|version| version < ENGINE_MIN)
    }

    pub(super) fn engine(&self) -> &str {
        &self.description.engine.engine_version
    }

    pub(super) fn is_manager(&self) -> bool {
        self.manager_status.is_some()
    }

    /// `tasks`: those on this node.
    pub(super) fn to_node<'a>(&self, tasks: impl Iterator<Item = &'a Task>) -> Node {
        let (mut reserved, mut runners) = (Resources::default(), 0);
        for task in tasks.filter(|task| task.is_active()) {
            reserved.nano_cpus += task.reserved.nano_cpus;
            reserved.memory_bytes += task.reserved.memory_bytes;
            runners += 1;
        }
        let cpus = |nano: i64| nano as f64 / 1e9;
        let mib = |bytes: i64| u64::try_from(bytes).unwrap_or_default() >> 20;
        let resources = self.description.resources;
        Node {
            name: self.name().to_owned(),
            id: self.id.clone(),
            state: self.status.state.clone(),
            message: self.status.message.clone(),
            availability: self.availability(),
            manager: self.manager_status.is_some(),
            leader: self.manager_status.as_ref().is_some_and(|manager| manager.leader),
            reachable: self
                .manager_status
                .as_ref()
                .is_none_or(|manager| manager.reachability == "reachable"),
            engine: self.description.engine.engine_version.clone(),
            too_old: self.is_too_old(),
            cpus: cpus(resources.nano_cpus),
            memory_mib: mib(resources.memory_bytes),
            reserved_cpus: cpus(reserved.nano_cpus),
            reserved_memory_mib: mib(reserved.memory_bytes),
            runners,
            labels: self.spec.labels.clone().into_iter().collect(),
        }
    }

    fn availability(&self) -> Availability {
        match &*self.spec.availability {
            "drain" => Availability::Drain,
            "pause" => Availability::Pause,
            _ => Availability::Active,
        }
    }
}

/// `None` for a version that is none, such as that of a development build.
fn version(text: &str) -> Option<(u64, u64, u64)> {
    let end = text.find(|it: char| it != '.' && !it.is_ascii_digit()).unwrap_or(text.len());
    let mut parts = text[..end].split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some((next()?, next()?, next().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn engines_that_leave_jobs_running_are_too_old() {
        for (text, expected) in [
            ("20.10.24+dfsg1", true),
            ("23.0.1", true),
            ("23.0.3", false),
            ("26.1.5+dfsg1", false),
            ("28.5.2", false),
            ("dev", false),
            ("", false),
        ] {
            let node = json!({ "Description": { "Engine": { "EngineVersion": text } } });
            let node: ListedNode = serde_json::from_value(node).unwrap();
            assert_eq!(node.is_too_old(), expected, "{text}");
        }
    }

    #[test]
    fn a_node_is_read_as_a_manager_lists_it() {
        let listed = json!({
            "ID": "n1",
            "Spec": { "Labels": { "disk": "ssd" }, "Role": "manager", "Availability": "drain" },
            "Description": { "Hostname": "build-1", "Engine": { "EngineVersion": "26.1.5" },
                "Resources": { "NanoCPUs": 4_000_000_000_u64, "MemoryBytes": 8_u64 << 30 } },
            "Status": { "State": "down", "Message": "heartbeat failure", "Addr": "10.0.0.1" },
            "ManagerStatus": { "Leader": true, "Reachability": "reachable" },
        });
        let listed: ListedNode = serde_json::from_value(listed).unwrap();
        assert!(listed.is_down());
        let node = listed.to_node([].iter());
        assert_eq!((&*node.name, node.cpus, node.memory_mib), ("build-1", 4.0, 8 << 10));
        assert_eq!((node.availability, node.leader), (Availability::Drain, true));
    }
}
