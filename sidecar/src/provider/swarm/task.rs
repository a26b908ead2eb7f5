//! The tasks of launchers, as a manager lists them: which state a runner is in.

use std::{collections::HashMap, time::Duration};

use serde::Deserialize;

use super::service::STOP_MARGIN;
use crate::provider::labels::{ATTENDS_ON, Labels};

/// A launcher that ends so has started nothing.
pub(super) const NOTHING_STARTED: i64 = 70;

/// Of what a manager lists, the part that is read.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ListedTask {
    #[serde(rename = "ID")]
    pub id: String,
    #[serde(rename = "ServiceID")]
    pub service: String,
    #[serde(rename = "NodeID")]
    pub node: String,
    /// By the manager's clock.
    created_at: String,
    spec: ListedSpec,
    status: ListedStatus,
    desired_state: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedSpec {
    container_spec: ListedContainer,
    resources: ListedResources,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedContainer {
    labels: HashMap<String, String>,
    /// In nanoseconds.
    stop_grace_period: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedResources {
    reservations: Resources,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    #[serde(rename = "NanoCPUs")]
    pub nano_cpus: i64,
    #[serde(rename = "MemoryBytes")]
    pub memory_bytes: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedStatus {
    state: String,
    err: String,
    container_status: ListedExit,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListedExit {
    exit_code: i64,
}

/// A launcher's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Task {
    pub id: String,
    pub service: String,
    /// Empty until one is chosen.
    pub node: String,
    pub labels: Labels,
    pub state: TaskState,
    pub reserved: Resources,
    /// ID of the node on which it attends to a runner that runs already.
    pub attends_on: Option<String>,
    /// Of the runner.
    pub stop_grace: Duration,
    /// Sorts in the order of creation.
    created_at: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TaskState {
    /// No node has room, or none meets the constraints.
    NoRoom(String),
    /// A node is being chosen, or prepares the launcher.
    Launching,
    /// The launcher runs, and from some moment on its runner.
    Running,
    /// The launcher carried out its order.
    Complete,
    /// Nothing runs: the launcher never did, or says so.
    NotStarted(String),
    /// The launcher ended before its runner, which may run on.
    Abandoned(String),
    /// The manager has given up the node, which may still run it.
    Orphaned,
}

impl ListedTask {
    /// `None` if it is none of `instance`'s launchers with a runner.
    pub(super) fn into_task(self, instance: &str) -> Option<Task> {
        let state = self.state();
        let ListedContainer { labels, stop_grace_period } = self.spec.container_spec;
        let attends_on = labels.get(ATTENDS_ON).cloned();
        let labels = Labels::from_launcher_map(labels, instance)?;
        (!labels.runner.is_empty()).then_some(Task {
            id: self.id,
            service: self.service,
            node: self.node,
            labels,
            state,
            reserved: self.spec.resources.reservations,
            attends_on,
            stop_grace: Duration::from_nanos(stop_grace_period).saturating_sub(STOP_MARGIN),
            created_at: self.created_at,
        })
    }

    fn state(&self) -> TaskState {
        let ListedStatus { state, err, container_status } = &self.status;
        match &**state {
            "pending" if !err.is_empty() => TaskState::NoRoom(err.clone()),
            "running" => TaskState::Running,
            "complete" => TaskState::Complete,
            "rejected" => TaskState::NotStarted(err.clone()),
            "failed" | "shutdown" | "remove" => match container_status.exit_code {
                NOTHING_STARTED => TaskState::NotStarted(err.clone()),
                // It was stopped on request, and has stopped its runner.
                0 if self.desired_state != "running" && state != "failed" => TaskState::Complete,
                _ => TaskState::Abandoned(err.clone()),
            },
            "orphaned" => TaskState::Orphaned,
            // new, allocated, pending, assigned, accepted, preparing, ready, starting
            _ => TaskState::Launching,
        }
    }
}

impl Task {
    /// What a manager lists, by runner; the first task of each comes first.
    pub(super) fn by_runner(listed: Vec<ListedTask>, instance: &str) -> HashMap<String, Vec<Self>> {
        let mut tasks: HashMap<String, Vec<Self>> = HashMap::new();
        for task in listed.into_iter().filter_map(|task| task.into_task(instance)) {
            tasks.entry(task.labels.runner.clone()).or_default().push(task);
        }
        for tasks in tasks.values_mut() {
            tasks.sort_by(|one, other| one.created_at.cmp(&other.created_at));
        }
        tasks
    }

    /// Whether Swarm has started its launcher once more. `tasks`: all of its runner, of which those
    /// of another service are of a launcher that attends to the runner.
    pub(super) fn has_second_start(&self, tasks: &[Self]) -> bool {
        tasks.iter().any(|other| other.service == self.service && other.id != self.id)
    }

    /// Whether its reservations count on its node.
    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, TaskState::Launching | TaskState::Running | TaskState::Orphaned)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As Engine 26.1.5 lists a task, without what is not read.
    fn listed(state: &str, err: &str, exit_code: i64) -> ListedTask {
        let mut labels =
            Labels { instance: "edge.swarm".into(), runner: "edge-1".into(), ..Labels::default() }
                .to_launcher_map();
        labels.insert("other".into(), "label".into());
        let value = json!({
            "ID": "t1", "ServiceID": "s1", "NodeID": "n1", "CreatedAt": "2026-11-28T10:00:00Z",
            "Spec": { "ContainerSpec": { "Image": "edgerunner", "Labels": labels },
                      "Resources": { "Reservations": { "NanoCPUs": 2, "MemoryBytes": 3 } } },
            "Status": { "State": state, "Err": err, "ContainerStatus": { "ExitCode": exit_code } },
            "DesiredState": "complete", "Slot": 1, "JobIteration": { "Index": 0 },
        });
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_state_of_a_runner_is_read_from_its_task() {
        let no_room = "no suitable node (insufficient resources on 3 nodes)";
        for (state, err, exit_code, expected) in [
            ("new", "", 0, TaskState::Launching),
            ("pending", "", 0, TaskState::Launching),
            ("pending", no_room, 0, TaskState::NoRoom(no_room.into())),
            ("starting", "", 0, TaskState::Launching),
            ("running", "", 0, TaskState::Running),
            ("complete", "", 0, TaskState::Complete),
            ("rejected", "No such image", 0, TaskState::NotStarted("No such image".into())),
            ("failed", "exit (70)", 70, TaskState::NotStarted("exit (70)".into())),
            ("failed", "exit (137)", 137, TaskState::Abandoned("exit (137)".into())),
            ("shutdown", "", 0, TaskState::Complete),
            ("orphaned", "", 0, TaskState::Orphaned),
        ] {
            let task = listed(state, err, exit_code).into_task("edge.swarm").unwrap();
            assert_eq!(task.state, expected, "{state}");
            assert_eq!((&*task.node, &*task.labels.runner), ("n1", "edge-1"));
            assert_eq!(task.reserved, Resources { nano_cpus: 2, memory_bytes: 3 });
        }
    }

    #[test]
    fn a_second_task_of_the_same_service_is_a_second_start() {
        let task = |id: &str, service: &str| {
            let listed = ListedTask { id: id.into(), service: service.into(), ..listed("", "", 0) };
            listed.into_task("edge.swarm").unwrap()
        };
        let first = task("t1", "s1");
        assert!(first.has_second_start(&[first.clone(), task("t2", "s1")]));
        assert!(!first.has_second_start(&[first.clone(), task("t2", "attends")]));
    }

    #[test]
    fn tasks_of_others_and_unreadable_ones_are_left_out() {
        assert_eq!(listed("running", "", 0).into_task("other.swarm"), None);
        let nothing: ListedTask = serde_json::from_value(json!({})).unwrap();
        assert_eq!(nothing.into_task("edge.swarm"), None);
    }
}
