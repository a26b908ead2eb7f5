//! A runner's pod at one moment: what its status says about the runner.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{
    ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus,
};

use super::{
    pod::{DIND, EXTERNALS, RUNNER},
    protect::is_protected,
};
use crate::provider::{
    error::ErrorKind,
    instance::{Instance, InstanceState},
    labels::Labels,
};
use edgerunner_scheduler::plan::ExitStatus;

/// Of a container that was killed, in place of a status that is lost.
pub(super) const KILLED: i64 = 137;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) labels: Labels,
    /// The pod's UID.
    pub(super) id: String,
    pub(super) node: Option<String>,
    pub(super) state: State,
    /// Whether it is to be left alone.
    pub(super) protected: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// No node yet, and why if the scheduler has found none.
    Unscheduled(Option<String>),
    /// Its node makes its containers.
    Starting,
    /// The same, and its node reports a problem that may pass.
    Doubtful(String),
    /// It will not start.
    Stuck {
        kind: ErrorKind,
        message: String,
    },
    Running,
    /// It runs, as far as is known, but its node does not answer.
    Unreachable,
    Exited(ExitStatus),
    /// It failed as a whole, and how its container ended is not known.
    Ended(String),
    /// Deleted before it started.
    Deleted,
}

impl Seen {
    /// `None` if it is none of this installation.
    pub(super) fn of(pod: &Pod, instance: &str) -> Option<Self> {
        let annotations: HashMap<String, String> =
            pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
        let mut labels = Labels::from_map(&annotations, instance)?;
        // Whatever else is lost of its record.
        labels.runner = pod.metadata.name.clone()?;
        Some(Self {
            labels,
            id: pod.metadata.uid.clone().unwrap_or_default(),
            node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
            state: State::of(pod),
            protected: is_protected(pod.metadata.annotations.as_ref().unwrap_or(&BTreeMap::new())),
        })
    }

    pub(super) fn to_instance(&self) -> Instance {
        Instance {
            labels: self.labels.clone(),
            id: self.id.clone(),
            node: self.node.clone(),
            state: match &self.state {
                State::Unscheduled(_)
                | State::Starting
                | State::Doubtful(_)
                | State::Stuck { .. } => InstanceState::Created,
                State::Running => InstanceState::Running,
                State::Unreachable => InstanceState::Unreachable,
                State::Exited(status) => InstanceState::Exited(*status),
                State::Ended(_) => InstanceState::Exited(KILLED.into()),
                State::Deleted => InstanceState::Removing,
            },
        }
    }
}

impl State {
    fn of(pod: &Pod) -> Self {
        let nothing = PodStatus::default();
        let status = pod.status.as_ref().unwrap_or(&nothing);
        let runner = status.container_statuses.iter().flatten().find(|it| it.name == RUNNER);
        if let Some(ended) = runner.and_then(terminated) {
            return Self::of_terminated(ended);
        }
        let runs =
            runner.is_some_and(|it| it.state.as_ref().is_some_and(|state| state.running.is_some()));
        if status.phase.as_deref() == Some("Failed") {
            return Self::Ended(why_ended(status));
        }
        if runs {
            return match is_unreachable(status, runner) {
                true => Self::Unreachable,
                false => Self::Running,
            };
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return Self::Deleted;
        }
        let engines = status.init_container_statuses.iter().flatten();
        if let Some(problem) = engines.chain(runner).find_map(problem_of) {
            return problem;
        }
        match condition(status, "PodScheduled") {
            Some(scheduled) if scheduled.status == "False" => {
                Self::Unscheduled(Some(worded(scheduled)))
            }
            Some(_) => Self::Starting,
            None => Self::Unscheduled(None),
        }
    }

    fn of_terminated(ended: &ContainerStateTerminated) -> Self {
        let reason = ended.reason.as_deref().unwrap_or_default();
        if matches!(reason, "StartError" | "ContainerCannotRun") {
            let message = ended.message.as_deref().unwrap_or("its command cannot be started");
            return Self::Stuck { kind: ErrorKind::Refused, message: message.to_owned() };
        }
        let out_of_memory = reason == "OOMKilled";
        Self::Exited(ExitStatus { code: ended.exit_code.into(), out_of_memory })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self, Self::Exited(_) | Self::Ended(_))
    }

    /// That of a runner that is over.
    pub(super) fn exit_status(&self) -> ExitStatus {
        match self {
            Self::Exited(status) => *status,
            _ => KILLED.into(),
        }
    }
}

/// Why a pod that was running, or was to run, failed as a whole: eviction, a node that was shut
/// down, a deadline.
pub(super) fn why_ended(status: &PodStatus) -> String {
    let disrupted = condition(status, "DisruptionTarget").filter(|it| it.status == "True");
    let reason = status.reason.as_deref().or(disrupted.and_then(|it| it.reason.as_deref()));
    let message = status.message.as_deref().or(disrupted.and_then(|it| it.message.as_deref()));
    let failed = status.init_container_statuses.iter().flatten().find_map(|it| {
        let ended = terminated(it).filter(|ended| ended.exit_code != 0)?;
        let of = match it.name.as_str() {
            EXTERNALS => "the runner's image has no directory /home/runner/externals: ",
            _ => "",
        };
        Some(format!("{of}container {} ended with code {}", it.name, ended.exit_code))
    });
    let parts = [reason.map(str::to_owned), message.map(str::to_owned), failed];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    match parts.is_empty() {
        true => "the pod failed, and Kubernetes does not say why".to_owned(),
        false => parts.join(": "),
    }
}

/// The node controller marks the pods of a node that does not answer as not ready, and gives no
/// reason, while the kubelet always gives one.
fn is_unreachable(status: &PodStatus, runner: Option<&ContainerStatus>) -> bool {
    runner.is_some_and(|it| it.ready)
        && condition(status, "Ready").is_some_and(|it| {
            it.status != "True" && it.reason.as_deref().unwrap_or_default().is_empty()
        })
}

fn condition<'a>(status: &'a PodStatus, name: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == name)
}

fn worded(condition: &PodCondition) -> String {
    let message = condition.message.as_deref().filter(|text| !text.is_empty());
    message.or(condition.reason.as_deref()).unwrap_or("no node is suitable").to_owned()
}

fn terminated(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.state.as_ref()?.terminated.as_ref()
}

/// What keeps a container from starting.
fn problem_of(container: &ContainerStatus) -> Option<State> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    let message = waiting.message.as_deref().unwrap_or(reason);
    let stuck = |kind, message: String| Some(State::Stuck { kind, message });
    match reason {
        "ErrImagePull"
        | "ImagePullBackOff"
        | "InvalidImageName"
        | "ErrImageNeverPull"
        | "ImageInspectError"
        | "RegistryUnavailable"
        | "SignatureValidationFailed" => {
            let what = format!("image {}: {reason}: {message}", container.image);
            stuck(ErrorKind::Image, what)
        }
        "CrashLoopBackOff" => {
            let last = container.last_state.as_ref().and_then(|it| it.terminated.as_ref());
            let code = last.map(|it| format!(" with code {}", it.exit_code)).unwrap_or_default();
            let engine = if container.name == DIND { "the Engine for jobs" } else { "a container" };
            let what = format!("{engine} ({}) ended{code}, again and again", container.name);
            stuck(ErrorKind::Refused, what)
        }
        "CreateContainerConfigError"
        | "CreateContainerError"
        | "RunContainerError"
        | "CreatePodSandboxError"
        | "PostStartHookError" => Some(State::Doubtful(format!("{reason}: {message}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn state(status: Value) -> State {
        let pod = json!({ "metadata": { "name": "edge-1" }, "status": status });
        State::of(&serde_json::from_value::<Pod>(pod).unwrap())
    }

    fn runner(state: Value) -> Value {
        json!([{ "name": "runner", "image": "runner:1", "imageID": "", "ready": true,
                 "restartCount": 0, "state": state }])
    }

    #[test]
    fn a_pod_without_a_node_says_why_the_scheduler_found_none() {
        assert_eq!(state(json!({ "phase": "Pending" })), State::Unscheduled(None));
        let message = "0/3 nodes are available: 3 Insufficient cpu.";
        let conditions = json!([{ "type": "PodScheduled", "status": "False",
                                  "reason": "Unschedulable", "message": message }]);
        let found = state(json!({ "phase": "Pending", "conditions": conditions }));
        assert_eq!(found, State::Unscheduled(Some(message.to_owned())));
        let conditions = json!([{ "type": "PodScheduled", "status": "True" }]);
        let found = state(json!({ "phase": "Pending", "conditions": conditions }));
        assert_eq!(found, State::Starting);
    }

    #[test]
    fn what_keeps_containers_from_starting_is_told_by_its_kind() {
        for (reason, kind) in [
            ("ErrImagePull", Some(ErrorKind::Image)),
            ("ImagePullBackOff", Some(ErrorKind::Image)),
            ("InvalidImageName", Some(ErrorKind::Image)),
            ("CrashLoopBackOff", Some(ErrorKind::Refused)),
            ("CreateContainerConfigError", None),
        ] {
            let waiting = json!({ "waiting": { "reason": reason, "message": "why" } });
            for field in ["containerStatuses", "initContainerStatuses"] {
                let found = state(json!({ "phase": "Pending", field: runner(waiting.clone()) }));
                match (found, kind) {
                    (State::Stuck { kind: found, .. }, Some(expected)) => {
                        assert_eq!(found, expected);
                    }
                    (State::Doubtful(message), None) => assert!(message.contains("why")),
                    (other, _) => panic!("{reason}: {other:?}"),
                }
            }
        }
        let creating = json!({ "waiting": { "reason": "ContainerCreating" } });
        let scheduled = json!([{ "type": "PodScheduled", "status": "True" }]);
        let status = json!({ "phase": "Pending", "conditions": scheduled,
                             "containerStatuses": runner(creating) });
        assert_eq!(state(status), State::Starting);
        let start_error = json!({ "terminated": { "exitCode": 128, "reason": "StartError",
                                                  "message": "exec: no such file" } });
        let found = state(json!({ "phase": "Failed", "containerStatuses": runner(start_error) }));
        assert!(matches!(found, State::Stuck { kind: ErrorKind::Refused, .. }), "{found:?}");
    }

    #[test]
    fn the_end_is_that_of_the_runners_container() {
        for (reason, code, out_of_memory) in
            [("Completed", 0, false), ("Error", 7, false), ("OOMKilled", 137, true)]
        {
            let ended = json!({ "terminated": { "exitCode": code, "reason": reason } });
            // Its Engine may still run.
            let found = state(json!({ "phase": "Running", "containerStatuses": runner(ended) }));
            assert_eq!(found, State::Exited(ExitStatus { code, out_of_memory }));
        }
    }

    #[test]
    fn an_evicted_pod_ended_whatever_its_containers_say() {
        let running = runner(json!({ "running": {} }));
        for containers in [Value::Null, running] {
            let found = state(json!({ "phase": "Failed", "reason": "Evicted",
                "message": "The node was low on resource: memory.",
                "containerStatuses": containers }));
            let expected = "Evicted: The node was low on resource: memory.";
            assert_eq!(found, State::Ended(expected.to_owned()));
            assert_eq!(found.exit_status(), KILLED.into());
        }
        let externals = json!([{ "name": "externals", "image": "runner:1", "imageID": "",
            "ready": false, "restartCount": 0, "state": { "terminated": { "exitCode": 1 } } }]);
        let found = state(json!({ "phase": "Failed", "initContainerStatuses": externals }));
        assert!(matches!(&found, State::Ended(why) if why.contains("/home/runner/externals")));
    }

    #[test]
    fn a_pod_whose_node_does_not_answer_is_unreachable() {
        for (ready, reason, expected) in [
            ("True", None, State::Running),
            // As the node controller writes it.
            ("False", None, State::Unreachable),
            ("False", Some("ReadinessGatesNotReady"), State::Running),
            ("False", Some("ContainersNotReady"), State::Running),
        ] {
            let found = state(json!({ "phase": "Running",
                "conditions": [{ "type": "Ready", "status": ready, "reason": reason }],
                "containerStatuses": runner(json!({ "running": {} })) }));
            assert_eq!(found, expected, "{ready} {reason:?}");
        }
    }
}
