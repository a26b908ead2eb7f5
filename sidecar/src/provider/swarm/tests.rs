//! The Swarm against a manager that keeps services and secrets and whose tasks are as each test
//! says.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::Swarm;
use crate::{
    config::{Config, EngineAddress, SwarmConfig},
    provider::{
        error::{Error, ErrorKind},
        instance::InstanceState,
        labels::Labels,
        order::{Images, Order},
    },
};
use edgerunner_scheduler::plan::ExitStatus;

const LIMIT: Duration = Duration::from_secs(20);

/// Cheap to clone.
#[derive(Clone)]
struct Manager {
    world: Arc<Mutex<World>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct World {
    /// By name: the request that created it.
    services: BTreeMap<String, Value>,
    secrets: BTreeMap<String, Value>,
    tasks: Vec<Value>,
    /// By name of the service.
    logs: BTreeMap<String, String>,
    down: HashSet<String>,
    drained: HashSet<String>,
    /// Names of services that cannot be created.
    refused: HashSet<String>,
    /// In the order of their calls: `create edge-1`, `delete edge-1`.
    calls: Vec<String>,
    away: bool,
}

impl Manager {
    async fn start() -> (Self, EngineAddress) {
        let manager = Self { world: Arc::default(), changed: watch::Sender::new(0) };
        let router = Router::new()
            .route("/tasks", get(tasks))
            .route("/nodes", get(nodes))
            .route("/services", get(services))
            .route("/services/create", post(create_service))
            .route("/services/{name}", delete(delete_service))
            .route("/services/{name}/logs", get(logs))
            .route("/secrets", get(secrets))
            .route("/secrets/create", post(create_secret))
            .route("/secrets/{name}", delete(delete_secret).get(inspect_secret))
            .with_state(manager.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(axum::serve(listener, router).into_future());
        (manager, EngineAddress::Tcp { authority, tls: None })
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.world());
        self.changed.send_modify(|count| *count += 1);
        changed
    }

    /// Waits for a state of the world.
    async fn until(&self, what: &str, is_so: impl Fn(&World) -> bool) {
        let mut changes = self.changed.subscribe();
        let waits = async {
            while !is_so(&self.world()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(LIMIT, waits).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    fn set_task(&self, service: &str, number: u32, state: &str, err: &str, exit_code: i64) {
        self.change(|world| {
            let id = format!("{service}.{number}");
            world.tasks.retain(|task| task["ID"] != *id);
            world.tasks.push(json!({
                "ID": id, "ServiceID": format!("{service}-{number}"), "NodeID": "n1",
                "CreatedAt": format!("2026-11-28T10:00:0{number}Z"),
                "Spec": { "ContainerSpec": {
                    "Labels": labels(service).to_launcher_map(), "StopGracePeriod": 25_000_000_000_u64,
                } },
                "Status": { "State": state, "Err": err,
                            "ContainerStatus": { "ExitCode": exit_code } },
                "DesiredState": "complete",
            }));
        });
    }

    fn report(&self, service: &str, line: Value) {
        self.change(|world| {
            *world.logs.entry(service.to_owned()).or_default() += &format!("{line}\n");
        });
    }

    /// What the launcher of a service is asked to do.
    fn order_of(&self, service: &str) -> Value {
        let secret = self.world().secrets[service]["Data"].as_str().unwrap().to_owned();
        serde_json::from_slice(&BASE64_STANDARD.decode(secret).unwrap()).unwrap()
    }
}

fn labels(runner: &str) -> Labels {
    Labels {
        instance: "edge.swarm".into(),
        pool: "default".into(),
        runner: runner.into(),
        host: "github.com".into(),
        target: "org:acme".into(),
        launched_unix_ms: 17,
        devices: Vec::new(),
        parameters: String::new(),
        parked: None,
    }
}

async fn tasks(State(manager): State<Manager>) -> Response {
    if manager.world().away {
        let message = "rpc error: code = Unknown desc = The swarm does not have a leader.";
        return refused(500, message);
    }
    let mut tasks = manager.world().tasks.clone();
    tasks.push(json!("nonsense"));
    Json(tasks).into_response()
}

async fn nodes(State(manager): State<Manager>) -> Json<Value> {
    let state = if manager.world().down.contains("n1") { "down" } else { "ready" };
    let availability = if manager.world().drained.contains("n1") { "drain" } else { "active" };
    Json(json!([
        { "ID": "n1", "Description": { "Hostname": "build-1", "Engine": { "EngineVersion": "26.1.5" } },
          "Spec": { "Availability": availability }, "Status": { "State": state } },
        { "ID": "n2", "Description": { "Hostname": "build-2", "Engine": { "EngineVersion": "20.10.24" } },
          "Spec": { "Availability": "active" }, "Status": { "State": "ready" } },
    ]))
}

async fn services(State(manager): State<Manager>) -> Json<Value> {
    let services = manager.world().services.clone();
    services
        .into_values()
        .map(|spec| json!({ "ID": spec["Name"], "Spec": spec }))
        .collect::<Value>()
        .into()
}

async fn secrets(State(manager): State<Manager>) -> Json<Value> {
    let secrets = manager.world().secrets.clone();
    secrets
        .into_values()
        .map(|spec| json!({ "ID": spec["Name"], "Spec": spec }))
        .collect::<Value>()
        .into()
}

async fn create_service(State(manager): State<Manager>, Json(spec): Json<Value>) -> Response {
    let name = spec["Name"].as_str().unwrap().to_owned();
    if manager.world().refused.contains(&name) {
        return refused(500, "rpc error: code = Unknown desc = context deadline exceeded");
    }
    let number = manager.change(|world| {
        let call = format!("create {name}");
        world.calls.push(call.clone());
        world.services.insert(name.clone(), spec);
        world.calls.iter().filter(|it| **it == call).count()
    });
    Json(json!({ "ID": format!("{name}-{number}") })).into_response()
}

async fn create_secret(State(manager): State<Manager>, Json(spec): Json<Value>) -> Response {
    let name = spec["Name"].as_str().unwrap().to_owned();
    let known = manager.change(|world| world.secrets.insert(name.clone(), spec));
    match known {
        None => (StatusCode::CREATED, Json(json!({ "ID": name }))).into_response(),
        Some(_) => refused(409, "rpc error: code = AlreadyExists"),
    }
}

async fn inspect_secret(State(manager): State<Manager>, Path(name): Path<String>) -> Response {
    match manager.world().secrets.get(&name) {
        Some(spec) => Json(json!({ "ID": name, "Spec": spec })).into_response(),
        None => refused(404, "secret not found"),
    }
}

async fn delete_service(State(manager): State<Manager>, Path(name): Path<String>) -> Response {
    let known = manager.change(|world| {
        world.calls.push(format!("delete {name}"));
        world.logs.remove(&name);
        world.services.remove(&name)
    });
    known.map_or_else(|| refused(404, "service not found"), |_| StatusCode::OK.into_response())
}

async fn delete_secret(State(manager): State<Manager>, Path(name): Path<String>) -> Response {
    let known = manager.change(|world| world.secrets.remove(&name));
    known.map_or_else(
        || refused(404, "secret not found"),
        |_| StatusCode::NO_CONTENT.into_response(),
    )
}

/// In Docker's frames, in pieces as they are written.
async fn logs(
    State(manager): State<Manager>,
    Path(name): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let follow = query.get("follow").is_some_and(|it| it == "true");
    let changes = manager.changed.subscribe();
    let pieces = stream::unfold((manager, changes, 0), move |(manager, mut changes, sent)| {
        let name = name.clone();
        async move {
            loop {
                let log = manager.world().logs.get(&name).cloned().unwrap_or_default();
                if log.len() > sent {
                    let piece = &log.as_bytes()[sent..];
                    let mut frame = vec![1, 0, 0, 0];
                    frame.extend(u32::try_from(piece.len()).unwrap().to_be_bytes());
                    frame.extend(piece);
                    let sent = log.len();
                    return Some((
                        Ok::<_, std::io::Error>(Bytes::from(frame)),
                        (manager, changes, sent),
                    ));
                }
                if !follow {
                    return None;
                }
                changes.changed().await.ok()?;
            }
        }
    });
    Body::from_stream(pieces).into_response()
}

fn refused(status: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({ "message": message }))).into_response()
}

fn swarm(managers: Vec<EngineAddress>) -> Swarm {
    let config = SwarmConfig {
        managers,
        launcher_image: "edgerunner:1".into(),
        docker_socket: "/var/run/docker.sock".into(),
    };
    let swarm = Swarm::connect(&config, "edge", &[]);
    tokio::spawn(swarm.clone().attend_abandoned());
    swarm
}

async fn start() -> (Swarm, Manager) {
    let (manager, address) = Manager::start().await;
    (swarm(vec![address]), manager)
}

fn order(runner: &str) -> Order {
    let mut pool = Config::load(None, &|_| None).unwrap().pools.remove(0);
    pool.container.cpus = Some(1.5);
    pool.container.memory_mib = Some(512);
    pool.placement = vec!["node.labels.disk==ssd".into()];
    pool.spread_over = vec!["node.labels.rack".into()];
    let images = Images::new(&pool.container, &[]);
    let env = vec![("TOKEN".into(), "s3cret".into())];
    let labels = Labels { instance: "edge".into(), ..labels(runner) };
    Order::new(labels, images, &pool, env, u64::MAX)
}

/// Underway a runner to its report of the start.
async fn running(swarm: &Swarm, manager: &Manager, runner: &str) {
    manager.report(runner, json!({ "event": "started", "container": "0f" }));
    manager.set_task(runner, 1, "running", "", 0);
    swarm.launch(&order(runner), &|_| {}).await.unwrap();
}

/// The state that a runner is listed in.
async fn listed(swarm: &Swarm, runner: &str) -> Option<InstanceState> {
    let instances = swarm.list().await.unwrap();
    instances.into_iter().find(|it| it.labels.runner == runner).map(|it| it.state)
}

#[tokio::test]
async fn a_runner_is_a_job_whose_launcher_has_the_order_as_a_secret() {
    let (swarm, manager) = start().await;
    manager.report("edge-1", json!({ "event": "started", "container": "0f" }));
    manager.set_task("edge-1", 1, "running", "", 0);
    let launched = swarm.launch(&order("edge-1"), &|_| {}).await.unwrap();
    assert_eq!((&*launched.id, launched.node.as_deref()), ("0f", Some("build-1")));

    let spec = manager.world().services["edge-1"].clone();
    assert_eq!(spec["Labels"]["dev.edgerunner.instance"], "edge");
    assert_eq!(
        spec["Mode"],
        json!({ "ReplicatedJob": { "MaxConcurrent": 1, "TotalCompletions": 1 } })
    );
    let task = &spec["TaskTemplate"];
    assert_eq!(task["RestartPolicy"]["Condition"], "none");
    assert_eq!(task["Resources"]["Reservations"]["NanoCPUs"], 1_500_000_000);
    assert_eq!(task["Resources"]["Reservations"]["MemoryBytes"], 512 << 20);
    assert_eq!(task["Resources"]["Limits"]["MemoryBytes"], 64 << 20);
    // An Engine that is too old is left out.
    let constraints = json!(["node.labels.disk==ssd", "node.id!=n2"]);
    assert_eq!(task["Placement"]["Constraints"], constraints);
    let spread = json!([{ "Spread": { "SpreadDescriptor": "node.labels.rack" } }]);
    assert_eq!(task["Placement"]["Preferences"], spread);
    let container = &task["ContainerSpec"];
    assert_eq!(container["Image"], "edgerunner:1");
    assert_eq!(container["Args"], json!(["launch", "--order", "/run/secrets/order"]));
    assert_eq!(container["CapabilityDrop"], json!(["ALL"]));
    assert_eq!((&container["ReadOnly"], &container["User"]), (&json!(true), &json!("0:0")));
    assert_eq!(container["Labels"]["dev.edgerunner.launcher"], "edge.swarm");
    assert_eq!(container["Labels"]["dev.edgerunner.instance"], Value::Null);
    assert!(!spec.to_string().contains("s3cret"));

    let order = manager.order_of("edge-1");
    assert_eq!(order["run"]["labels"]["instance"], "edge.swarm");
    assert!(order.to_string().contains("s3cret"));
}

#[tokio::test]
async fn a_launch_waits_for_room_and_says_why() {
    let (swarm, manager) = start().await;
    let why = "no suitable node (insufficient resources on 3 nodes)";
    manager.set_task("edge-1", 1, "pending", why, 0);
    let (waits, mut seen) = watch::channel(None::<Option<String>>);
    let launching = {
        let swarm = swarm.clone();
        tokio::spawn(async move {
            swarm.launch(&order("edge-1"), &move |why| drop(waits.send(Some(why)))).await
        })
    };
    let waited = seen.wait_for(|seen| matches!(seen, Some(Some(_)))).await.unwrap().clone();
    assert_eq!(waited, Some(Some(why.to_owned())));
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Created));
    manager.set_task("edge-1", 1, "running", "", 0);
    seen.wait_for(|seen| *seen == Some(None)).await.unwrap();
    manager.report("edge-1", json!({ "event": "started", "container": "0f" }));
    launching.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_launch_fails_for_the_reason_that_the_launcher_reports() {
    let (swarm, manager) = start().await;
    let failed = json!({ "event": "failed", "kind": "image", "message": "Docker: no such image" });
    manager.report("edge-1", failed);
    manager.set_task("edge-1", 1, "failed", "task: non-zero exit (70)", 70);
    let error = swarm.launch(&order("edge-1"), &|_| {}).await.unwrap_err();
    assert_eq!((error.kind, &*error.message), (ErrorKind::Image, "Docker: no such image"));

    manager.set_task("edge-2", 1, "rejected", "No such image: edgerunner:1", 0);
    let error = swarm.launch(&order("edge-2"), &|_| {}).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Image);
    assert!(error.message.contains("correct swarm.launcher_image"), "{error}");
}

#[tokio::test]
async fn the_end_of_a_runner_is_reported_once_with_its_exit_code() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let mut exits = std::pin::pin!(swarm.exits());
    manager.report("edge-1", json!({ "event": "ended", "exit_code": 3, "log": "it broke\n" }));
    manager.set_task("edge-1", 1, "complete", "", 0);
    let exit = exits.next().await.unwrap().unwrap();
    assert_eq!((&*exit.runner, exit.status), ("edge-1", 3.into()));
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Exited(3.into())));
    assert_eq!(swarm.log("edge-1", 100).await.unwrap(), "it broke\n");
    // The next exit is another runner's.
    running(&swarm, &manager, "edge-2").await;
    manager.set_task("edge-2", 1, "complete", "", 0);
    assert_eq!(exits.next().await.unwrap().unwrap().runner, "edge-2");
}

#[tokio::test]
async fn a_runner_that_lacked_memory_on_its_node_is_named_so() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let mut exits = std::pin::pin!(swarm.exits());
    let ended = json!({ "event": "ended", "exit_code": 137, "out_of_memory": true, "log": "" });
    manager.report("edge-1", ended);
    manager.set_task("edge-1", 1, "complete", "", 0);
    let status = ExitStatus { code: 137, out_of_memory: true };
    assert_eq!(exits.next().await.unwrap().unwrap().status, status);
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Exited(status)));
}

#[tokio::test]
async fn a_log_that_nobody_waits_for_any_more_leaves_no_launcher() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let reading = {
        let swarm = swarm.clone();
        tokio::spawn(async move { swarm.log("edge-1", 5).await })
    };
    let name = "edge-1-log-0";
    let has_launcher =
        |world: &World| world.services.contains_key(name) || world.secrets.contains_key(name);
    manager.until("a launcher reads the log", |world| world.services.contains_key(name)).await;
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    manager.report(name, json!({ "event": "log", "log": "it is late\n" }));
    manager.until("the launcher is removed", |world| !has_launcher(world)).await;
}

#[tokio::test]
async fn a_runner_whose_launcher_is_killed_gets_another_on_its_node() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let mut exits = std::pin::pin!(swarm.exits());
    manager.set_task("edge-1", 1, "failed", "task: non-zero exit (137)", 137);
    let again = ["create edge-1", "delete edge-1", "create edge-1"];
    manager.until("another launcher", |world| world.calls == again).await;
    let order = manager.order_of("edge-1");
    assert_eq!(order["attend"]["labels"]["runner"], "edge-1");
    assert_eq!(order["attend"]["stop_grace"], json!({ "secs": 10, "nanos": 0 }));
    let constraints =
        manager.world().services["edge-1"]["TaskTemplate"]["Placement"]["Constraints"].clone();
    assert_eq!(constraints, json!(["node.id==n1", "node.id!=n2"]));
    // The first task is listed for a while.
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Running));
    manager.report("edge-1", json!({ "event": "ended", "exit_code": 137, "log": "" }));
    manager.set_task("edge-1", 2, "complete", "", 0);
    let exit = exits.next().await.unwrap().unwrap();
    assert_eq!((&*exit.runner, exit.status.code), ("edge-1", 137));
    assert_eq!(manager.world().calls, again, "it is attended to once");
}

#[tokio::test]
async fn a_runner_on_a_node_that_is_down_is_unreachable_and_its_removal_does_not_wait() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    manager.change(|world| world.down.insert("n1".into()));
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Unreachable));
    swarm.remove("edge-1", Duration::from_secs(10)).await.unwrap();
    assert!(manager.world().services.is_empty() && manager.world().secrets.is_empty());
}

#[tokio::test]
async fn a_removal_ends_once_the_launcher_has_removed_its_runner() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let removing = {
        let swarm = swarm.clone();
        tokio::spawn(async move { swarm.remove("edge-1", Duration::from_secs(10)).await })
    };
    manager.until("the service is removed", |world| world.services.is_empty()).await;
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Running));
    assert!(!removing.is_finished());
    manager.change(|world| world.tasks.clear());
    removing.await.unwrap().unwrap();
    assert_eq!(listed(&swarm, "edge-1").await, None);
}

/// A removal while the runner has no launcher: the first one was killed.
async fn removal_without_launcher(swarm: &Swarm, manager: &Manager) {
    let removing = {
        let swarm = swarm.clone();
        tokio::spawn(async move { swarm.remove("edge-1", Duration::from_secs(10)).await })
    };
    let created = |world: &World| world.services.contains_key("edge-1-remove");
    manager.until("a launcher that removes the runner", created).await;
    let order = manager.order_of("edge-1-remove");
    assert_eq!(order["remove"]["labels"]["runner"], "edge-1");
    assert_eq!(order["remove"]["labels"]["instance"], "edge.swarm");
    let task = manager.world().services["edge-1-remove"]["TaskTemplate"].clone();
    assert_eq!(task["Placement"]["Constraints"][0], "node.id==n1");
    assert_eq!(listed(swarm, "edge-1").await, Some(InstanceState::Running));
    assert!(!removing.is_finished());
    manager.report("edge-1-remove", json!({ "event": "ended", "exit_code": null, "log": "" }));
    removing.await.unwrap().unwrap();
    assert!(manager.world().services.is_empty() && manager.world().secrets.is_empty());
    // A manager lists the tasks of a removed service for a moment longer.
    manager.change(|world| world.tasks.clear());
    assert_eq!(listed(swarm, "edge-1").await, None);
}

#[tokio::test]
async fn a_runner_between_two_launchers_is_removed_from_its_node() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    manager.change(|world| world.refused.insert("edge-1".into()));
    manager.set_task("edge-1", 1, "failed", "task: non-zero exit (137)", 137);
    manager.until("the first launcher's end", |world| world.services.is_empty()).await;
    manager.change(|world| world.tasks.clear());
    removal_without_launcher(&swarm, &manager).await;
}

#[tokio::test]
async fn a_runner_whose_launcher_was_just_killed_is_removed_from_its_node() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let _removing = swarm.shared.removals.begin("edge-1");
    manager.set_task("edge-1", 1, "failed", "task: non-zero exit (137)", 137);
    assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Running));
    removal_without_launcher(&swarm, &manager).await;
}

#[tokio::test]
async fn a_runner_without_a_launcher_on_a_drained_node_is_not_forgotten() {
    let (swarm, manager) = start().await;
    running(&swarm, &manager, "edge-1").await;
    let _removing = swarm.shared.removals.begin("edge-1");
    manager.set_task("edge-1", 1, "failed", "task: non-zero exit (137)", 137);
    manager.change(|world| world.drained.insert("n1".into()));
    for _ in 0..2 {
        let error = swarm.remove("edge-1", Duration::from_secs(10)).await.unwrap_err();
        assert!(error.message.contains("`edgerunner nodes resume build-1`"), "{error}");
        manager.change(|world| world.tasks.clear());
        assert_eq!(listed(&swarm, "edge-1").await, Some(InstanceState::Running));
    }
    manager.change(|world| world.drained.clear());
    removal_without_launcher(&swarm, &manager).await;
}

#[tokio::test]
async fn another_manager_is_asked_if_one_is_away_or_has_no_leader() {
    let (first, first_address) = Manager::start().await;
    let (second, second_address) = Manager::start().await;
    let nobody = EngineAddress::Tcp { authority: "127.0.0.1:9".into(), tls: None };
    let swarm = swarm(vec![nobody, first_address, second_address]);
    running(&swarm, &first, "edge-1").await;
    second.set_task("edge-2", 1, "running", "", 0);
    first.change(|world| world.away = true);
    assert_eq!(listed(&swarm, "edge-2").await, Some(InstanceState::Running));
    second.change(|world| world.away = true);
    assert_eq!(swarm.list().await.unwrap_err().kind, ErrorKind::Unavailable);
    let mut exits = std::pin::pin!(swarm.exits());
    let kind = loop {
        if let Err(Error { kind, .. }) = exits.next().await.unwrap() {
            break kind;
        }
    };
    assert_eq!(kind, ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_sweep_spares_what_may_be_alive() {
    let (swarm, manager) = start().await;
    let ours = |runner: &str| {
        let labels = Labels { instance: "edge".into(), ..labels(runner) };
        json!({ "Name": runner, "Labels": labels.to_map() })
    };
    manager.change(|world| {
        for name in ["left", "recorded"] {
            world.services.insert(name.into(), ours(name));
            world.secrets.insert(name.into(), ours(name));
        }
        world.secrets.insert("secret-only".into(), ours("secret-only"));
        let theirs = json!({ "Name": "theirs", "Labels": { "dev.edgerunner.instance": "other" } });
        world.services.insert("theirs".into(), theirs);
    });
    running(&swarm, &manager, "running").await;
    let sweeping = {
        let swarm = swarm.clone();
        tokio::spawn(async move {
            swarm.sweep(async { Ok::<_, Error>(HashSet::from(["recorded".to_owned()])) }).await
        })
    };
    // The nodes are swept as well, the first time.
    let swept = |world: &World| world.services.contains_key("edge-sweep");
    manager.until("the nodes are swept", swept).await;
    let order = manager.order_of("edge-sweep");
    let mut alive: Vec<&str> =
        order["sweep"]["alive"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    alive.sort_unstable();
    assert_eq!(
        (alive, &order["sweep"]["instance"]),
        (vec!["recorded", "running"], &json!("edge.swarm"))
    );
    manager.report("edge-sweep", json!({ "event": "swept", "removed": 1, "failed": ["stuck"] }));
    let failed = sweeping.await.unwrap().unwrap();
    assert_eq!(failed.into_iter().map(|it| it.message).collect::<Vec<_>>(), ["stuck"]);
    let names = |map: &BTreeMap<String, Value>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&manager.world().services), ["recorded", "running", "theirs"]);
    assert_eq!(names(&manager.world().secrets), ["recorded", "running"]);
}
