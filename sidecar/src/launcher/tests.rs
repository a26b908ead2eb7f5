//! Launchers on a node whose Engine responds as each test says.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time;

use super::*;
use crate::{
    config::Container,
    provider::{
        Order,
        docker::fake_engine::{
            Engine, dind_summary, done, inspected, log_frame, order, refused, runner_labels,
            summary, unexpected,
        },
    },
};
use edgerunner_scheduler::plan::ExitStatus;

const WAIT: &str = "POST /containers/edge-1/wait";
const GRACE: Duration = Duration::from_secs(10);

/// A node with the container of runner `edge-1`, or with none while its state is "absent".
#[derive(Clone)]
struct Node(Arc<Mutex<&'static str>>);

impl Node {
    fn new(state: &'static str) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    fn becomes(&self, state: &'static str) -> Response {
        *self.0.lock().unwrap() = state;
        done()
    }

    fn answer(&self, call: &str) -> Response {
        match call {
            "GET /containers/edge-1/json" => match *self.0.lock().unwrap() {
                "absent" => refused(404, "No such container: edge-1"),
                state => Json(inspected(&runner_labels("edge-1"), state, "bridge")).into_response(),
            },
            "POST /containers/create" => {
                self.becomes("created");
                Json(json!({ "Id": "0f", "Warnings": [] })).into_response()
            }
            "POST /containers/0f/start" => self.becomes("running"),
            WAIT => Json(json!({ "StatusCode": 7, "Error": null })).into_response(),
            "POST /containers/edge-1/stop" => self.becomes("exited"),
            "DELETE /containers/edge-1" => self.becomes("absent"),
            "GET /containers/edge-1/logs" => Body::from(log_frame("sesame-1\n")).into_response(),
            "GET /containers/json" | "GET /containers/json launchers" | "GET /networks" => {
                Json(json!([])).into_response()
            }
            "GET /volumes" => Json(json!({})).into_response(),
            call if call.starts_with("GET /images/") => Json(json!({})).into_response(),
            call => unexpected(call),
        }
    }

    /// An Engine that answers like this node where `special` has no answer.
    async fn engine(
        &self,
        special: impl Fn(&str) -> Option<Response> + Clone + Send + Sync + 'static,
    ) -> Arc<Engine> {
        let node = self.clone();
        let answer = move |call: &str| special(call).unwrap_or_else(|| node.answer(call));
        Arc::new(Engine::start(answer).await)
    }
}

/// A response whose body never ends.
fn endless() -> Response {
    Body::from_stream(stream::pending::<Result<&[u8], Infallible>>()).into_response()
}

async fn carried_out(
    engine: &Engine,
    task: NodeTask,
    stop: &CancellationToken,
) -> (Outcome, Vec<Report>) {
    let reports = Mutex::new(Vec::new());
    let report = |report: &Report| reports.lock().unwrap().push(report.clone());
    let outcome = carry_out(task, engine.docker.clone(), stop, &report).await;
    (outcome, reports.into_inner().unwrap())
}

async fn run(engine: &Engine) -> (Outcome, Vec<Report>) {
    let task = NodeTask::Run(order(Container::default()));
    carried_out(engine, task, &CancellationToken::new()).await
}

async fn attend(engine: &Engine) -> (Outcome, Vec<Report>) {
    let task = NodeTask::Attend { labels: runner_labels("edge-1"), stop_grace: GRACE };
    carried_out(engine, task, &CancellationToken::new()).await
}

/// Runs `edge-1`, and is stopped once the Engine is called like this.
async fn stopped(engine: &Engine, call: &str) -> (Outcome, Vec<Report>) {
    let stop = CancellationToken::new();
    let task = NodeTask::Run(order(Container::default()));
    let stop_at = async {
        engine.called(call).await;
        stop.cancel();
    };
    tokio::join!(carried_out(engine, task, &stop), stop_at).0
}

fn started() -> Report {
    Report::Started { container: "0f".into() }
}

fn ended(exit_code: Option<i64>) -> Report {
    let log = exit_code.map(|_| "***\n".to_owned()).unwrap_or_default();
    Report::ended(exit_code.map(ExitStatus::from), log)
}

fn changes(engine: &Engine) -> Vec<String> {
    engine.calls().into_iter().filter(|call| !call.starts_with("GET")).collect()
}

#[tokio::test]
async fn a_runner_is_removed_after_its_end_and_then_reported() {
    let engine = Node::new("absent").engine(|_| None).await;
    assert_eq!(run(&engine).await, (Outcome::CarriedOut, vec![started(), ended(Some(7))]));
    let expected = [
        "POST /containers/create",
        "POST /containers/0f/start",
        WAIT,
        "POST /containers/edge-1/stop",
        "DELETE /containers/edge-1",
    ];
    assert_eq!(changes(&engine), expected);
}

#[tokio::test]
async fn a_runner_that_lacked_memory_is_reported_so() {
    let node = Node::new("running");
    let ends = node.clone();
    let special = move |call: &str| {
        let has_ended = *ends.0.lock().unwrap() == "exited";
        match call {
            WAIT => {
                ends.becomes("exited");
                Some(Json(json!({ "StatusCode": 3, "Error": null })).into_response())
            }
            "GET /containers/edge-1/json" if has_ended => {
                let mut killed = inspected(&runner_labels("edge-1"), "exited", "bridge");
                killed["State"]["OOMKilled"] = true.into();
                Some(Json(killed).into_response())
            }
            _ => None,
        }
    };
    let engine = node.engine(special).await;
    let status = ExitStatus { code: 3, out_of_memory: true };
    let reports = vec![Report::ended(Some(status), "***\n".into())];
    assert_eq!(attend(&engine).await, (Outcome::CarriedOut, reports));
}

#[tokio::test]
async fn a_runner_that_has_already_run_is_refused_and_left_alone() {
    for state in ["running", "paused", "exited", "dead"] {
        let engine = Node::new(state).engine(|_| None).await;
        let (outcome, reports) = run(&engine).await;
        assert_eq!(outcome, Outcome::CarriedOut);
        assert!(matches!(&reports[..], [Report::Refused { message }] if message.contains("0f")));
        assert_eq!(engine.calls(), ["GET /containers/edge-1/json"]);
    }
}

#[tokio::test]
async fn a_runner_whose_credentials_have_ended_is_not_started() {
    let engine = Node::new("absent").engine(|_| None).await;
    let late = Order { credentials_end: 1_764_000_000_000, ..order(Container::default()) };
    let (outcome, reports) =
        carried_out(&engine, NodeTask::Run(late), &CancellationToken::new()).await;
    assert_eq!(outcome, Outcome::NothingStarted);
    let [Report::Failed { kind: ErrorKind::Refused, message }] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert!(message.contains("ended at 2025-11-24T16:00:00Z"), "{message}");
    assert!(!changes(&engine).iter().any(|call| call.starts_with("POST")), "{:?}", engine.calls());
}

#[tokio::test]
async fn nothing_changes_on_a_node_that_does_not_say_whether_the_runner_has_run() {
    let engine = Node::new("running").engine(|_| Some(refused(500, "broken"))).await;
    let (outcome, reports) = run(&engine).await;
    assert_eq!(outcome, Outcome::NothingStarted);
    assert!(matches!(&reports[..], [Report::Failed { kind: ErrorKind::Refused, .. }]));
    assert_eq!(engine.calls(), ["GET /containers/edge-1/json"]);
}

#[tokio::test]
async fn what_was_created_for_a_runner_that_does_not_start_is_removed() {
    let special =
        |call: &str| call.ends_with("/start").then(|| refused(400, "no such runtime: runsc"));
    let engine = Node::new("absent").engine(special).await;
    let (outcome, reports) = run(&engine).await;
    assert_eq!(outcome, Outcome::NothingStarted);
    let [Report::Failed { kind: ErrorKind::Refused, message }] = &reports[..] else {
        panic!("{reports:?}")
    };
    assert!(message.contains("no such runtime: runsc"), "{message}");
    assert_eq!(changes(&engine).last().unwrap(), "DELETE /containers/edge-1");
    // Then the node is swept: it may have been too full.
    assert_eq!(engine.calls().last().unwrap(), "GET /volumes");
}

#[tokio::test]
async fn a_call_that_fails_and_starts_the_runner_nevertheless_is_a_start() {
    let node = Node::new("absent");
    let started_late = node.clone();
    let special = move |call: &str| {
        call.ends_with("/start").then(|| {
            started_late.becomes("running");
            refused(500, "too slow")
        })
    };
    let engine = node.engine(special).await;
    assert_eq!(run(&engine).await, (Outcome::CarriedOut, vec![started(), ended(Some(7))]));
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for() {
    let waits = Arc::new(Mutex::new(0));
    let special = move |call: &str| {
        let mut waits = waits.lock().unwrap();
        *waits += usize::from(call == WAIT);
        (call == WAIT && *waits == 1).then(|| refused(500, "shutting down"))
    };
    let engine = Node::new("running").engine(special).await;
    assert_eq!(attend(&engine).await, (Outcome::CarriedOut, vec![ended(Some(7))]));
}

#[tokio::test]
async fn a_launcher_attends_a_runner_in_any_state() {
    for (state, exit_code) in [("absent", None), ("created", None), ("exited", Some(3))] {
        let engine = Node::new(state).engine(|_| None).await;
        assert_eq!(attend(&engine).await, (Outcome::CarriedOut, vec![ended(exit_code)]));
        let removed = engine.calls().contains(&"DELETE /containers/edge-1".to_owned());
        assert_eq!(removed, state != "absent");
        // Leftovers are looked for where no container says that there are none.
        assert_eq!(engine.calls().contains(&"GET /volumes".to_owned()), state == "absent");
    }
}

#[tokio::test]
async fn a_launcher_removes_a_runner_that_another_has_left() {
    let remove = || NodeTask::Remove { labels: runner_labels("edge-1"), stop_grace: GRACE };
    for state in ["absent", "running", "exited"] {
        let engine = Node::new(state).engine(|_| None).await;
        let removed = carried_out(&engine, remove(), &CancellationToken::new()).await;
        assert_eq!(removed, (Outcome::CarriedOut, vec![ended(None)]));
        let deleted = changes(&engine).contains(&"DELETE /containers/edge-1".to_owned());
        assert_eq!(deleted, state != "absent", "{state}");
    }
    let special =
        |call: &str| call.starts_with("DELETE").then(|| refused(500, "device or resource busy"));
    let engine = Node::new("running").engine(special).await;
    let pause = async {
        engine.called("DELETE /containers/edge-1").await;
        time::pause();
    };
    let stop = CancellationToken::new();
    let ((_, reports), ()) = tokio::join!(carried_out(&engine, remove(), &stop), pause);
    assert!(
        matches!(&reports[..], [Report::Failed { kind: ErrorKind::Refused, .. }]),
        "{reports:?}"
    );
}

#[tokio::test]
async fn a_signal_ends_the_runner() {
    let engine = Node::new("absent").engine(|call| (call == WAIT).then(endless)).await;
    let (outcome, reports) = stopped(&engine, WAIT).await;
    assert_eq!((outcome, reports), (Outcome::CarriedOut, vec![started(), ended(Some(3))]));
    assert_eq!(changes(&engine).last().unwrap(), "DELETE /containers/edge-1");
}

#[tokio::test]
async fn a_signal_during_a_pull_starts_nothing() {
    let special = |call: &str| match call {
        "POST /images/create" => Some(endless()),
        call => call.starts_with("GET /images/").then(|| refused(404, "No such image")),
    };
    let engine = Node::new("absent").engine(special).await;
    let (outcome, reports) = stopped(&engine, "POST /images/create").await;
    assert_eq!((outcome, reports), (Outcome::CarriedOut, vec![ended(None)]));
    assert_eq!(changes(&engine), ["POST /images/create"]);
}

#[tokio::test]
async fn a_signal_during_a_launch_removes_what_was_created() {
    let node = Node::new("absent");
    let created = node.clone();
    let special = move |call: &str| {
        (call == "POST /containers/create").then(|| {
            created.becomes("created");
            endless()
        })
    };
    let engine = node.engine(special).await;
    let call = "POST /containers/create";
    let pause = async {
        engine.called(call).await;
        time::pause();
    };
    let (stopped, ()) = tokio::join!(stopped(&engine, call), pause);
    assert_eq!(stopped, (Outcome::CarriedOut, vec![ended(None)]));
    assert_eq!(changes(&engine).last().unwrap(), "DELETE /containers/edge-1");
}

#[tokio::test]
async fn a_runner_that_cannot_be_removed_is_reported_after_a_while() {
    let special =
        |call: &str| call.starts_with("DELETE").then(|| refused(500, "device or resource busy"));
    let engine = Node::new("exited").engine(special).await;
    let pause = async {
        engine.called("DELETE /containers/edge-1").await;
        time::pause();
    };
    let (attended, ()) = tokio::join!(attend(&engine), pause);
    assert_eq!(attended, (Outcome::CarriedOut, vec![ended(Some(3))]));
}

/// A node with more runners than `edge-1`, which can all be removed.
fn with_others(call: &str) -> Option<Response> {
    let other = call.split('/').nth(2).filter(|container| !["edge-1", "0f"].contains(container))?;
    let runner = other.strip_prefix("id-").unwrap_or(other);
    Some(match call.split_once(' ')? {
        ("GET", path) if path.ends_with(&format!("{other}/json")) => {
            let mut container = inspected(&runner_labels(runner), "exited", "bridge");
            let minutes = if runner == "recent" { 9 } else { 11 };
            let ended_at = Timestamp::now() - SignedDuration::from_mins(minutes);
            container["State"]["FinishedAt"] = json!(ended_at.to_string());
            Json(container).into_response()
        }
        ("POST", path) if path.ends_with("/stop") => done(),
        ("DELETE", _) => refused(404, "No such container"),
        _ => return None,
    })
}

fn removed(engine: &Engine) -> Vec<String> {
    let removed = changes(engine).into_iter().filter_map(|call| {
        Some(call.strip_prefix("DELETE /containers/").filter(|it| *it != "edge-1")?.to_owned())
    });
    removed.collect()
}

#[tokio::test]
async fn a_launcher_removes_what_earlier_ones_left() {
    let special = |call: &str| {
        Some(match call {
            "GET /containers/json" => Json(json!([
                summary("running", "running"),
                summary("recent", "exited"),
                summary("attended", "exited"),
                summary("broken", "exited"),
                summary("old", "exited"),
                dind_summary("gone"),
                dind_summary("launching"),
                dind_summary("running"),
            ]))
            .into_response(),
            "GET /containers/json launchers" => Json(json!([
                summary("attended", "running"),
                summary("launching", "created"),
                summary("old", "exited"),
                summary("gone", "dead"),
            ]))
            .into_response(),
            "GET /containers/id-broken/json" => refused(500, "layer does not exist"),
            // The runner runs until all of this has happened.
            WAIT => endless(),
            call => return with_others(call),
        })
    };
    let engine = Node::new("absent").engine(special).await;
    stopped(&engine, "DELETE /containers/id-gone-dind").await;
    assert_eq!(removed(&engine), ["old", "id-gone-dind"]);
}

/// When Docker says that a container which never started has ended.
const NEVER: &str = "0001-01-01T00:00:00Z";

fn idle_since(created: &str, finished: &str) -> Response {
    Json(json!({ "Created": created, "State": { "FinishedAt": finished } })).into_response()
}

#[tokio::test]
async fn a_sweep_removes_what_nobody_knows_and_goes_on_past_what_it_cannot_remove() {
    let launched = |runner: &str, launched_unix_ms: u64| {
        let mut summary = summary(runner, "running");
        summary["Labels"]["dev.edgerunner.launched"] = json!(launched_unix_ms.to_string());
        summary
    };
    let special = move |call: &str| {
        Some(match call {
            "GET /containers/json" => Json(json!([
                launched("alive", 17),
                launched("attended", 17),
                launched("new", 100_000),
                launched("stuck", 17),
                launched("unknown", 39_999),
                dind_summary("alive"),
                dind_summary("gone"),
            ]))
            .into_response(),
            "GET /containers/json launchers" => {
                let ended = ["alive", "since-39-s", "since-41-s"].map(|it| summary(it, "exited"));
                let created = ["never-39-s", "never-41-s"].map(|it| summary(it, "created"));
                let running = vec![summary("attended", "running")];
                Json([running, ended.into(), created.into()].concat()).into_response()
            }
            "GET /containers/id-since-39-s/json" => idle_since("", "1970-01-01T00:00:39Z"),
            "GET /containers/id-since-41-s/json" => idle_since("", "1970-01-01T00:00:41Z"),
            "GET /containers/id-never-39-s/json" => idle_since("1970-01-01T00:00:39Z", NEVER),
            "GET /containers/id-never-41-s/json" => idle_since("1970-01-01T00:00:41Z", NEVER),
            "DELETE /containers/stuck" => refused(500, "device or resource busy"),
            call => return with_others(call),
        })
    };
    let engine = Node::new("absent").engine(special).await;
    let sweep = NodeTask::Sweep {
        instance: "edge".into(),
        alive: ["alive".to_owned()].into(),
        taken_at_unix_ms: 100_000,
    };
    let (outcome, reports) = carried_out(&engine, sweep, &CancellationToken::new()).await;
    assert_eq!(outcome, Outcome::CarriedOut);
    let [Report::Swept { removed: 4, failed }] = &reports[..] else { panic!("{reports:?}") };
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0].contains("device or resource busy"), "{failed:?}");
    let launchers = ["id-since-39-s", "id-never-39-s"];
    assert_eq!(removed(&engine), [&launchers[..], &["stuck", "unknown", "id-gone-dind"]].concat());
}

#[tokio::test]
async fn a_log_is_reported_or_said_to_be_gone() {
    let task = || NodeTask::Log { instance: "edge".into(), runner: "edge-1".into(), lines: 5 };
    let log = async |state| {
        let engine = Node::new(state).engine(|_| None).await;
        carried_out(&engine, task(), &CancellationToken::new()).await
    };
    let expected = vec![Report::Log { log: "***\n".into() }];
    assert_eq!(log("running").await, (Outcome::CarriedOut, expected));
    let (outcome, reports) = log("absent").await;
    assert_eq!(outcome, Outcome::CarriedOut);
    assert!(matches!(&reports[..], [Report::Failed { kind: ErrorKind::Gone, .. }]));
}

#[test]
fn a_file_that_is_no_task_is_named_with_the_place_and_without_its_content() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let problem = |task: Value| {
        fs::write(file.path(), task.to_string()).unwrap();
        read(file.path()).unwrap_err().message
    };
    let mut task = json!({ "run": serde_json::to_value(order(Container::default())).unwrap() });
    task["run"]["stop_grace"] = json!("s3cret");
    let message = problem(task);
    assert!(message.contains("at run.stop_grace: use the sidecar's own version"), "{message}");
    assert!(!message.contains("s3cret"), "{message}");

    let message = read("/nowhere".as_ref()).unwrap_err().message;
    assert!(message.starts_with("--order: cannot read /nowhere: No such file"), "{message}");
}

#[test]
fn the_engine_is_that_of_the_node() {
    let address = |host| engine(host).map(|engine| engine.to_string());
    assert_eq!(address(None).unwrap(), "unix:///var/run/docker.sock");
    assert_eq!(address(Some("")).unwrap(), "unix:///var/run/docker.sock");
    assert_eq!(address(Some("unix:///run/docker.sock")).unwrap(), "unix:///run/docker.sock");
    for other in ["tcp://10.0.0.1:2375", "/run/docker.sock", "unix://docker.sock"] {
        let message = address(Some(other)).unwrap_err().message;
        assert!(message.ends_with("write unix:///PATH/docker.sock"), "{message}");
    }
}
