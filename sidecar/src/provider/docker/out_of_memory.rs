//! How a runner's container ended, and whether the kernel killed a process of the runner or of its
//! inner Engine for lack of memory.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bollard::models::{ContainerInspectResponse, EventMessage};
use tokio::time::timeout;

use super::{DIND_SUFFIX, Docker, is_dind, launch::labels_of, remove::has_dind};
use crate::provider::labels;
use edgerunner_scheduler::plan::ExitStatus;

/// An exit is reported that much later at most.
const INSPECTION_LIMIT: Duration = Duration::from_secs(2);
/// Far more than run at the same time.
const NOTED_MAX: usize = 1_000;

/// Runners whose inner Engine lacked memory while it ran, the latest last. Docker Engine shows that
/// of a running container since 23.0 only.
#[derive(Debug, Default)]
pub(super) struct LackedMemory(Mutex<VecDeque<String>>);

impl LackedMemory {
    pub(super) fn note(&self, event: &EventMessage) {
        let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
        let Some(attributes) = attributes.filter(|it| is_dind(it)) else { return };
        let Some(runner) = attributes.get(labels::RUNNER) else { return };
        if event.action.as_deref() != Some("oom") {
            return;
        }
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !noted.contains(runner) {
            if noted.len() == NOTED_MAX {
                noted.pop_front();
            }
            noted.push_back(runner.clone());
        }
    }

    fn has(&self, runner: &str) -> bool {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.iter().any(|it| it == runner)
    }
}

impl Docker {
    /// Of a runner that ended with this code. It counts as not for lack of memory if that cannot be
    /// found out.
    pub(super) async fn status_of_ended(&self, runner: &str, code: i64) -> ExitStatus {
        match timeout(INSPECTION_LIMIT, self.exit_status(runner)).await {
            Ok(Ok(status)) if status.code == code => status,
            _ => code.into(),
        }
    }

    /// `None` if the response lacks the exit code.
    pub(super) async fn exit_status_of(
        &self,
        found: &ContainerInspectResponse,
    ) -> Option<ExitStatus> {
        let code = found.state.as_ref()?.exit_code?;
        let runner = labels_of(found).get(labels::RUNNER).filter(|_| has_dind(found));
        let out_of_memory = was_killed(found)
            || match runner {
                Some(runner) => self.dind_lacked_memory(runner).await,
                None => false,
            };
        Some(ExitStatus { code, out_of_memory })
    }

    /// Processes of jobs in containers are those of the inner Engine, and it has the same limit.
    async fn dind_lacked_memory(&self, runner: &str) -> bool {
        let dind = format!("{runner}{DIND_SUFFIX}");
        self.lacked_memory.has(runner)
            || self.inspect(&dind).await.is_ok_and(|found| was_killed(&found))
    }
}

fn was_killed(found: &ContainerInspectResponse) -> bool {
    found.state.as_ref().and_then(|state| state.oom_killed).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use axum::{Json, response::IntoResponse as _};
    use serde_json::{Value, json};

    use super::*;
    use crate::provider::docker::{
        dind_labels,
        fake_engine::{Engine, inspected, refused, runner_labels, unexpected},
    };

    fn event(action: &str, attributes: Value) -> EventMessage {
        let actor = json!({ "ID": "0f", "Attributes": attributes });
        serde_json::from_value(json!({ "Type": "container", "Action": action, "Actor": actor }))
            .unwrap()
    }

    fn of_dind(runner: &str) -> Value {
        serde_json::to_value(dind_labels(&runner_labels(runner))).unwrap()
    }

    #[test]
    fn a_runner_is_noted_if_its_inner_engine_lacked_memory() {
        let noted = LackedMemory::default();
        for (action, attributes) in [
            ("die", of_dind("edge-1")),
            ("oom", serde_json::to_value(runner_labels("edge-1").to_map()).unwrap()),
            ("oom", json!({ "name": "db" })),
        ] {
            noted.note(&event(action, attributes));
        }
        assert!(!noted.has("edge-1"));
        for _ in 0..2 {
            noted.note(&event("oom", of_dind("edge-1")));
        }
        assert!(noted.has("edge-1"));
        assert_eq!(noted.0.lock().unwrap().len(), 1);
        for number in 0..NOTED_MAX {
            noted.note(&event("oom", of_dind(&format!("other-{number}"))));
        }
        assert!(!noted.has("edge-1"));
        assert_eq!(noted.0.lock().unwrap().len(), NOTED_MAX);
    }

    #[tokio::test]
    async fn a_process_that_the_inner_engine_lost_counts_as_the_runners() {
        // `None`: there is no inner Engine any more.
        for (network, killed, expected) in [
            ("container:0e", Some(true), true),
            ("container:0e", Some(false), false),
            ("container:0e", None, false),
            ("bridge", Some(true), false),
        ] {
            let engine = Engine::start(move |call| match (call, killed) {
                ("GET /containers/edge-1/json", _) => {
                    Json(inspected(&runner_labels("edge-1"), "exited", network)).into_response()
                }
                ("GET /containers/edge-1-dind/json", Some(killed)) => {
                    Json(json!({ "State": { "Status": "running", "OOMKilled": killed } }))
                        .into_response()
                }
                ("GET /containers/edge-1-dind/json", None) => refused(404, "No such container"),
                (call, _) => unexpected(call),
            })
            .await;
            let status = async || engine.docker.status_of_ended("edge-1", 3).await;
            assert_eq!(status().await, ExitStatus { code: 3, out_of_memory: expected });
            // An older Engine says so only once the container has ended.
            engine.docker.lacked_memory.note(&event("oom", of_dind("edge-1")));
            assert_eq!(status().await.out_of_memory, network != "bridge");
        }
    }
}
