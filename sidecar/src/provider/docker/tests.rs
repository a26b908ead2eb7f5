//! Docker against an Engine that responds as each test says and records the calls.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json,
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tokio::time;

use super::fake_engine::{
    Engine, dind_summary, done, inspected, log_frame, order, refused, runner_labels, summary,
    unexpected,
};
use crate::{
    config::{Container, DockerAccess},
    provider::{
        error::{Error, ErrorKind},
        instance::{Instance, InstanceState, Launched},
        labels::{self, Labels},
    },
};
use edgerunner_scheduler::plan::ExitStatus;

#[tokio::test]
async fn a_container_that_cannot_be_inspected_does_not_hide_the_others() {
    let engine = Engine::start(|call| match call {
        "GET /containers/json" => Json(json!([
            summary("broken", "exited"),
            summary("empty", "exited"),
            summary("ended", "exited"),
            summary("gone", "exited"),
            summary("hangs", "exited"),
            summary("new", "created"),
            summary("nonsense", "exited"),
            summary("killed", "exited"),
            summary("old", "removing"),
            summary("paused", "paused"),
            // Podman's own states.
            summary("stopped", "stopped"),
            summary("initialized", "initialized"),
            // A state, and a field, that Docker does not document.
            { "Id": "id-odd", "State": "resting", "Labels": runner_labels("odd").to_map(),
                "Ports": { "80": true } },
            { "Id": 7, "State": null, "Labels": runner_labels("unknown").to_map() },
            "nonsense",
            dind_summary("paused"),
            { "Id": "other", "State": "running", "Labels": { labels::INSTANCE: "elsewhere" } },
        ]))
        .into_response(),
        "GET /containers/id-broken/json" => refused(500, "layer does not exist"),
        "GET /containers/id-empty/json" => Json(json!({})).into_response(),
        "GET /containers/id-hangs/json" => Body::from_stream(
            stream::once(async { Ok::<_, Infallible>(Bytes::from_static(b"{")) })
                .chain(stream::pending()),
        )
        .into_response(),
        "GET /containers/id-nonsense/json" => "<html>".into_response(),
        "GET /containers/id-ended/json" => {
            Json(inspected(&runner_labels("ended"), "exited", "bridge")).into_response()
        }
        "GET /containers/id-killed/json" => {
            let mut killed = inspected(&runner_labels("killed"), "exited", "bridge");
            killed["State"]["OOMKilled"] = true.into();
            Json(killed).into_response()
        }
        "GET /containers/id-stopped/json" => {
            Json(inspected(&runner_labels("stopped"), "stopped", "bridge")).into_response()
        }
        "GET /containers/id-gone/json" => refused(404, "No such container: id-gone"),
        call => unexpected(call),
    })
    .await;
    let docker = engine.docker.clone();
    let listed = tokio::spawn(async move { docker.list().await });
    engine.called("GET /containers/id-hangs/json").await;
    engine.called("GET /containers/id-nonsense/json").await;
    time::pause();
    let listed = listed.await.unwrap().unwrap();
    let listed: Vec<_> = listed
        .iter()
        .map(|Instance { labels, state, .. }| (labels.runner.as_str(), *state))
        .collect();
    let expected = [
        // It must not be taken for one that has ended.
        ("broken", InstanceState::Running),
        ("empty", InstanceState::Running),
        ("ended", InstanceState::Exited(3.into())),
        ("hangs", InstanceState::Running),
        ("new", InstanceState::Created),
        ("nonsense", InstanceState::Running),
        ("killed", InstanceState::Exited(ExitStatus { code: 3, out_of_memory: true })),
        ("old", InstanceState::Removing),
        ("paused", InstanceState::Running),
        ("stopped", InstanceState::Exited(3.into())),
        ("initialized", InstanceState::Created),
        ("odd", InstanceState::Running),
    ];
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn an_engine_that_expects_tls_is_told_apart_from_wrong_settings() {
    let engine =
        Engine::start(|_| refused(400, "Client sent an HTTP request to an HTTPS server.")).await;
    let error = engine.docker.list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.ends_with("set docker.cert_path (DOCKER_CERT_PATH)"), "{error}");
}

#[tokio::test]
async fn a_sweep_goes_on_past_what_cannot_be_listed_or_removed() {
    let volume = |runner: &str| {
        json!({ "Name": format!("{runner}-work"), "Driver": "local", "Mountpoint": "/",
            "Scope": "local", "Options": {}, "Labels": runner_labels(runner).to_map() })
    };
    let engine = Engine::start(move |call| match call {
        "GET /containers/json" => Json(json!([
            dind_summary("gone-1"),
            dind_summary("gone-2"),
            dind_summary("recorded"),
            dind_summary("listed"),
            summary("listed", "running"),
        ]))
        .into_response(),
        "GET /networks" => refused(500, "broken plugin"),
        "GET /volumes" => {
            Json(json!({ "Volumes": [volume("gone-2"), volume("listed")] })).into_response()
        }
        "DELETE /containers/id-gone-1-dind" => refused(500, "device or resource busy"),
        "GET /containers/id-gone-2-dind/json" => refused(404, "No such container: id-gone-2-dind"),
        "DELETE /containers/id-gone-2-dind" | "DELETE /volumes/gone-2-work" => done(),
        call => unexpected(call),
    })
    .await;
    let asked_after = Arc::new(Mutex::new(0));
    let alive = async {
        *asked_after.lock().unwrap() = engine.calls().len();
        Ok::<_, Error>(HashSet::from(["recorded".to_owned()]))
    };
    let failed = engine.docker.sweep(alive).await.unwrap();
    let failed: Vec<String> = failed.into_iter().map(|error| error.message).collect();
    let expected = [
        "Docker: list networks: 500 broken plugin",
        "Docker: remove container id-gone-1-dind: 500 device or resource busy; if this persists, \
         restart Docker",
        // Those of pools with `egress`.
        "Docker: list networks: 500 broken plugin",
    ];
    assert_eq!(failed, expected);
    // A runner recorded in between must not lose what was just created for it.
    assert_eq!(*asked_after.lock().unwrap(), 3);
    let removed: Vec<String> =
        engine.calls().into_iter().filter(|call| call.starts_with("DELETE")).collect();
    let expected = [
        "DELETE /containers/id-gone-1-dind",
        "DELETE /containers/id-gone-2-dind",
        "DELETE /volumes/gone-2-work",
    ];
    assert_eq!(removed, expected);
}

/// An Engine that answers a removal with `answer`, and whose container then has these states in
/// turn, before it is gone. The last state stays if it is not `gone`.
async fn removed(
    answer: fn() -> Response,
    states: &'static [&'static str],
) -> (Engine, Result<(), Error>) {
    let looks = Arc::new(Mutex::new(0));
    let engine = Engine::start(move |call| match call {
        "GET /containers/edge-1/json" => {
            let mut looks = looks.lock().unwrap();
            let state = match *looks {
                0 => "running",
                look => states[states.len().min(look) - 1],
            };
            *looks += 1;
            match state {
                "gone" => refused(404, "No such container: edge-1"),
                state => Json(inspected(&runner_labels("edge-1"), state, "bridge")).into_response(),
            }
        }
        "POST /containers/edge-1/stop" => done(),
        "DELETE /containers/edge-1" => answer(),
        call => unexpected(call),
    })
    .await;
    let removed = engine.docker.remove("edge-1", Duration::from_secs(10)).await;
    (engine, removed)
}

#[tokio::test]
async fn a_container_is_removed_once_docker_no_longer_has_it() {
    let in_progress = || refused(409, "removal of container edge-1 is already in progress");
    let busy = || refused(500, "device or resource busy");
    let (engine, result) = removed(done, &["gone"]).await;
    result.unwrap();
    let expected = [
        "GET /containers/edge-1/json",
        "POST /containers/edge-1/stop",
        "DELETE /containers/edge-1",
        "GET /containers/edge-1/json",
    ];
    assert_eq!(engine.calls(), expected);

    let answers: [fn() -> Response; 3] = [done, in_progress, busy];
    for answer in answers {
        removed(answer, &["removing", "removing", "gone"]).await.1.unwrap();
    }
    for (answer, problem) in [
        (in_progress as fn() -> Response, "409 removal of container edge-1 is already in progress"),
        (busy, "500 device or resource busy"),
        (done, "Docker reports that it is removed, but still has it"),
    ] {
        let error = removed(answer, &["dead"]).await.1.unwrap_err();
        let expected =
            format!("Docker: remove container edge-1: {problem}; if this persists, restart Docker");
        assert_eq!((error.kind, error.message), (ErrorKind::Refused, expected));
    }
}

#[tokio::test]
async fn a_removal_that_stays_in_progress_fails() {
    let in_progress = || refused(409, "removal of container edge-1 is already in progress");
    let removal = tokio::spawn(async move { removed(in_progress, &["removing"]).await.1 });
    time::pause();
    let error = removal.await.unwrap().unwrap_err();
    assert!(error.message.contains("already in progress; if this persists"), "{error}");
}

#[tokio::test]
async fn all_that_belongs_to_an_absent_runner_is_removed() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => refused(404, "No such container: edge-1"),
        "GET /containers/json" => Json(json!([dind_summary("edge-1")])).into_response(),
        "GET /networks" => {
            Json(json!([{ "Id": "net", "Labels": runner_labels("edge-1").to_map() }]))
                .into_response()
        }
        "GET /volumes" => Json(json!({ "Volumes": null })).into_response(),
        "DELETE /containers/id-edge-1-dind" => refused(500, "device or resource busy"),
        "DELETE /networks/net" => refused(404, "network net not found"),
        call => unexpected(call),
    })
    .await;
    let error = engine.docker.remove("edge-1", Duration::ZERO).await.unwrap_err();
    assert_eq!(
        error.message,
        "Docker: remove container id-edge-1-dind: 500 device or resource busy; if this persists, \
         restart Docker"
    );
    assert!(engine.calls().contains(&"DELETE /networks/net".to_owned()));
}

#[tokio::test]
async fn a_container_of_another_installation_is_not_removed() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => {
            let labels = Labels { instance: "elsewhere".into(), ..runner_labels("edge-1") };
            Json(inspected(&labels, "running", "bridge")).into_response()
        }
        "GET /containers/json" | "GET /networks" => Json(json!([])).into_response(),
        "GET /volumes" => Json(json!({})).into_response(),
        call => unexpected(call),
    })
    .await;
    engine.docker.remove("edge-1", Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_removal_without_a_response_ends() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => {
            let head = Bytes::from_static(b"{");
            let endless =
                stream::once(async { Ok::<_, Infallible>(head) }).chain(stream::pending());
            Body::from_stream(endless).into_response()
        }
        call => unexpected(call),
    })
    .await;
    let docker = engine.docker.clone();
    let removal =
        tokio::spawn(async move { docker.remove("edge-1", Duration::from_secs(10)).await });
    engine.called("GET /containers/edge-1/json").await;
    time::pause();
    let error = removal.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let expected = "no answer in time: Docker Engine hangs or is overloaded";
    assert!(error.message.ends_with(expected), "{error}");
}

#[tokio::test]
async fn a_log_is_masked_by_what_its_container_was_created_with() {
    let log = "--token sesame-1 /home/runner edge-1 https://key-7@git\n";
    let answer = move |image: fn() -> Response, env: Value| {
        move |call: &str| match call {
            "GET /containers/edge-1/json" => Json(json!({
                "Id": "0f",
                "Image": "sha256:ab",
                "Config": { "Labels": runner_labels("edge-1").to_map(), "Env": env },
            }))
            .into_response(),
            "GET /images/sha256:ab/json" => image(),
            "GET /containers/edge-1/logs" => Body::from(log_frame(log)).into_response(),
            call => unexpected(call),
        }
    };
    let env = json!([
        "RUNNER_TOKEN=sesame-1",
        "RUNNER_NAME=edge-1",
        "REMOTE=https://key-7@git",
        "HOME=/home/runner",
        "DEBUG=1",
    ]);
    let image =
        || Json(json!({ "Id": "ab", "Config": { "Env": ["HOME=/home/runner"] } })).into_response();
    let engine = Engine::start(answer(image, env.clone())).await;
    let masked = engine.docker.log("edge-1", 100).await.unwrap();
    assert_eq!(masked, "--token *** /home/runner edge-1 ***\n");

    // Rather too much than too little.
    let engine = Engine::start(answer(|| refused(500, "no such layer"), env)).await;
    let masked = engine.docker.log("edge-1", 100).await.unwrap();
    assert_eq!(masked, "--token *** *** edge-1 ***\n");

    let engine = Engine::start(answer(image, Value::Null)).await;
    let error = engine.docker.log("edge-1", 100).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
}

#[tokio::test]
async fn the_log_of_another_installation_is_not_read() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => {
            let labels = Labels { instance: "elsewhere".into(), ..runner_labels("edge-1") };
            Json(inspected(&labels, "running", "bridge")).into_response()
        }
        call => unexpected(call),
    })
    .await;
    assert_eq!(engine.docker.log("edge-1", 100).await.unwrap_err().kind, ErrorKind::Gone);
}

#[tokio::test]
async fn a_log_without_an_end_is_given_up() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => {
            Json(inspected(&runner_labels("edge-1"), "running", "bridge")).into_response()
        }
        "GET /containers/edge-1/logs" => {
            let chunk = stream::once(async { Ok::<_, Infallible>(log_frame("a line\n")) });
            Body::from_stream(chunk.chain(stream::pending())).into_response()
        }
        call => unexpected(call),
    })
    .await;
    let docker = engine.docker.clone();
    let endless = tokio::spawn(async move { docker.log("edge-1", 100).await });
    engine.called("GET /containers/edge-1/logs").await;
    time::pause();
    assert_eq!(endless.await.unwrap().unwrap_err().kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_second_launch_of_the_same_order_starts_nothing_twice() {
    for (status, starts) in [("created", true), ("running", false), ("exited", false)] {
        let engine = Engine::start(move |call| match call {
            "POST /containers/create" => refused(409, "Conflict. The name is already in use."),
            "GET /containers/edge-1/json" => {
                Json(inspected(&runner_labels("edge-1"), status, "bridge")).into_response()
            }
            "POST /containers/0f/start" => done(),
            call => unexpected(call),
        })
        .await;
        let launched = engine.docker.launch(&order(Container::default())).await.unwrap();
        assert_eq!(launched, Launched { id: "0f".into(), node: None });
        let started = engine.calls().contains(&"POST /containers/0f/start".to_owned());
        assert_eq!(started, starts, "{status}");
    }
}

#[tokio::test]
async fn a_runner_that_has_ended_gets_no_engine_again() {
    let engine = Engine::start(|call| match call {
        "GET /containers/edge-1/json" => {
            Json(inspected(&runner_labels("edge-1"), "exited", "container:0e")).into_response()
        }
        call => unexpected(call),
    })
    .await;
    let container = Container { docker: DockerAccess::Dind, ..Container::default() };
    engine.docker.launch(&order(container)).await.unwrap();
    assert_eq!(engine.calls(), ["GET /containers/edge-1/json"]);
}

#[tokio::test]
async fn a_name_in_use_by_another_container_is_explained() {
    let other_launch = Labels { launched_unix_ms: 18, ..runner_labels("edge-1") };
    let foreign = Labels { instance: "elsewhere".into(), ..runner_labels("edge-1") };
    for (holder, expected) in [
        (other_launch, "this installation already has a container with that name"),
        (
            foreign,
            "Conflict. The name is already in use. The container does not belong to this \
             installation: remove or rename it",
        ),
    ] {
        let engine = Engine::start(move |call| match call {
            "POST /containers/create" => refused(409, "Conflict. The name is already in use."),
            _ => Json(inspected(&holder, "running", "bridge")).into_response(),
        })
        .await;
        let error = engine.docker.launch(&order(Container::default())).await.unwrap_err();
        let image = "ghcr.io/actions/actions-runner:latest";
        let expected = format!("Docker: create container edge-1 from {image}: {expected}");
        assert_eq!((error.kind, error.message), (ErrorKind::Refused, expected));
    }
}
