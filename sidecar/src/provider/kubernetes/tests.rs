//! Tests of the provider against an API server in memory.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use edgerunner_testkit::{Authority, control_plane::kubeconfig};
use futures_util::StreamExt as _;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::{spawn, task::JoinHandle, time::timeout};

use super::{
    Kubernetes,
    access::Inspection,
    cluster::Cluster,
    fake_api::{ApiServer, Fault, NAMESPACE, client},
    protect::{DO_NOT_DISRUPT, SAFE_TO_EVICT},
};
use crate::{
    config::{Config, KubernetesConfig},
    provider::{
        error::{Error, ErrorKind},
        instance::{Exit, InstanceState, Launched},
        labels::Labels,
        order::{Images, Order},
    },
};
use edgerunner_scheduler::plan::ExitStatus;

const LIMIT: Duration = Duration::from_secs(600);
const GRACE: Duration = Duration::from_secs(10);
const OWNER: &str = "ci-runners";

struct World {
    api: ApiServer,
    kubernetes: Kubernetes,
    waits: Arc<Mutex<Vec<Option<String>>>>,
}

fn order(runner: &str) -> Order {
    let pool = &Config::load(None, &|_| None).unwrap().pools[0];
    let images = Images::new(&pool.container, &[]);
    let labels = Labels {
        instance: "ci".into(),
        pool: "default".into(),
        runner: runner.into(),
        host: "github.com".into(),
        target: "repo:acme/app".into(),
        launched_unix_ms: 1_700_000_000_123,
        ..Labels::default()
    };
    let env: Vec<(String, SecretString)> = vec![
        ("ACTIONS_RUNNER_INPUT_JITCONFIG".into(), "sesame-jit".into()),
        ("API_KEY".into(), "sesame-key".into()),
    ];
    Order::new(labels, images, pool, env, 17)
}

impl World {
    fn new() -> Self {
        let api = ApiServer::new();
        let kubernetes = Kubernetes::new(Cluster::of(client(&api), NAMESPACE), "ci");
        Self { api, kubernetes, waits: Arc::default() }
    }

    fn launch(&self, runner: &str) -> JoinHandle<Result<Launched, Error>> {
        let (kubernetes, waits, order) =
            (self.kubernetes.clone(), Arc::clone(&self.waits), order(runner));
        spawn(async move {
            let on_wait = move |why: Option<String>| waits.lock().unwrap().push(why);
            timeout(LIMIT, kubernetes.launch(&order, &on_wait)).await.unwrap()
        })
    }

    /// Launches a runner, and returns once it runs.
    async fn run(&self, runner: &str) {
        let launched = self.launch(runner);
        self.created(runner).await;
        self.api.update(runner, &running());
        launched.await.unwrap().unwrap();
    }

    async fn created(&self, runner: &str) {
        timeout(LIMIT, async {
            while self.api.get("secrets", runner).is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap();
    }

    async fn waited(&self, expected: &[Option<&str>]) {
        timeout(LIMIT, async {
            loop {
                let waits = self.waits.lock().unwrap().clone();
                let found: Vec<Option<&str>> = waits.iter().map(|it| it.as_deref()).collect();
                if found == expected {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{:?}", self.waits.lock().unwrap()));
    }

    async fn remove(&self, runner: &str) -> Result<(), Error> {
        timeout(LIMIT, self.kubernetes.remove(runner, GRACE)).await.unwrap()
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.api.names("pods"), [""; 0]);
        assert_eq!(self.api.names("secrets"), [""; 0]);
    }
}

fn container(state: &Value) -> Value {
    json!([{ "name": "runner", "image": "runner:1", "imageID": "", "ready": true,
             "restartCount": 0, "state": state }])
}

fn running() -> Value {
    json!({ "spec": { "nodeName": "node-1" }, "status": { "phase": "Running",
        "conditions": [{ "type": "PodScheduled", "status": "True" },
                       { "type": "Ready", "status": "True" }],
        "containerStatuses": container(&json!({ "running": {} })) } })
}

fn ended(code: i64) -> Value {
    json!({ "status": { "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": container(&json!({ "terminated": { "exitCode": code } })) } })
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({ "spec": { "nodeName": "node-1" }, "status": { "phase": "Pending",
        "conditions": [{ "type": "PodScheduled", "status": "True" }],
        "containerStatuses":
            container(&json!({ "waiting": { "reason": reason, "message": message } })) } })
}

#[tokio::test(start_paused = true)]
async fn a_runner_is_a_pod_and_a_secret_that_the_pod_owns() {
    let world = World::new();
    let launched = world.launch("ci-default-1");
    world.created("ci-default-1").await;
    world.api.update("ci-default-1", &running());
    let launched = launched.await.unwrap().unwrap();
    assert_eq!(launched.node.as_deref(), Some("node-1"));

    let pod = world.api.get("pods", "ci-default-1").unwrap();
    let owner = world.api.get("configmaps", OWNER).unwrap();
    let owners = |object: &Value| object["metadata"]["ownerReferences"].clone();
    assert_eq!(owners(&pod)[0]["uid"], owner["metadata"]["uid"]);
    assert_eq!(pod["spec"]["restartPolicy"], "Never");
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
    assert!(!pod.to_string().contains("sesame"), "{pod}");
    let secret = world.api.get("secrets", "ci-default-1").unwrap();
    assert_eq!(owners(&secret)[0]["uid"], pod["metadata"]["uid"]);

    let instances = world.kubernetes.list().await.unwrap();
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0].labels, order("ci-default-1").labels);
    assert_eq!(instances[0].state, InstanceState::Running);

    world.api.update("ci-default-1", &ended(0));
    world.remove("ci-default-1").await.unwrap();
    world.nothing_is_left();
    // A runner that does not exist is removed.
    world.remove("ci-default-1").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_fails_halfway_leaves_nothing() {
    let world = World::new();
    world.api.fault("POST secrets", Fault::Status(403, "no secrets for you"));
    let error = world.launch("ci-1").await.unwrap().unwrap_err();
    assert!(error.message.contains("no secrets for you"), "{error}");
    assert_eq!(world.api.names("pods"), ["ci-1"]);
    world.remove("ci-1").await.unwrap();
    world.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn a_launch_whose_answers_are_lost_creates_one_pod() {
    let world = World::new();
    for request in ["POST configmaps", "POST pods", "POST secrets"] {
        world.api.fault(request, Fault::Lose);
    }
    world.run("ci-1").await;
    assert_eq!(world.api.names("pods"), ["ci-1"]);
    for request in ["DELETE pods/ci-1", "DELETE secrets/ci-1"] {
        world.api.fault(request, Fault::Lose);
    }
    world.api.update("ci-1", &ended(0));
    world.remove("ci-1").await.unwrap();
    world.nothing_is_left();
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_somebody_else_is_left_alone() {
    let world = World::new();
    let other = json!({ "metadata": { "name": "ci-1", "uid": "other" } });
    world.api.put("pods", other.clone());
    world.api.put("secrets", other);
    let error = world.launch("ci-1").await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    world.remove("ci-1").await.unwrap();
    assert_eq!(world.api.names("pods"), ["ci-1"]);
    assert_eq!(world.api.names("secrets"), ["ci-1"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_node_has_room_for_waits_without_a_limit() {
    let world = World::new();
    let launched = world.launch("ci-1");
    world.created("ci-1").await;
    let message = "0/3 nodes are available: 3 Insufficient cpu.";
    world.api.update(
        "ci-1",
        &json!({ "status": { "conditions": [{ "type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message }] } }),
    );
    world.waited(&[Some(message)]).await;
    world.api.update("ci-1", &waiting("ContainerCreating", ""));
    world.waited(&[Some(message), None]).await;
    world.api.update("ci-1", &running());
    launched.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_is_waited_for() {
    let world = World::new();
    let message = "pods \"ci-1\" is forbidden: exceeded quota: ci, requested: pods=1, used: pods=9";
    for _ in 0..3 {
        world.api.fault("POST pods", Fault::Status(403, message));
    }
    let launched = world.launch("ci-1");
    world.created("ci-1").await;
    world.api.update("ci-1", &running());
    launched.await.unwrap().unwrap();
    world.waited(&[Some(message), None]).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_start_is_a_failure_with_its_cause() {
    let evicted = json!({ "status": { "phase": "Failed", "reason": "Evicted",
                                      "message": "The node was low on resource: memory." } });
    for (change, kind, expected) in [
        (waiting("ErrImagePull", "not found"), ErrorKind::Image, "not found"),
        (waiting("ImagePullBackOff", "Back-off"), ErrorKind::Image, "Back-off"),
        // It may pass, and does not.
        (waiting("CreateContainerConfigError", "no key"), ErrorKind::Refused, "no key"),
        (evicted, ErrorKind::Refused, "Evicted: The node was low on resource: memory."),
    ] {
        let world = World::new();
        let launched = world.launch("ci-1");
        world.created("ci-1").await;
        world.api.update("ci-1", &change);
        let error = launched.await.unwrap().unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(expected), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_problem_that_passes_is_no_failure() {
    let world = World::new();
    let launched = world.launch("ci-1");
    world.created("ci-1").await;
    world.api.update("ci-1", &waiting("CreateContainerConfigError", "secret not found"));
    tokio::time::sleep(Duration::from_secs(15)).await;
    world.api.update("ci-1", &running());
    launched.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_admission_refuses_is_a_failure_of_the_pool_and_missing_permissions_are_not() {
    let world = World::new();
    let denied = "pods \"ci-1\" is forbidden: violates PodSecurity \"restricted:latest\"";
    world.api.fault("POST pods", Fault::Status(403, denied));
    let error = world.launch("ci-1").await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Refused, "{error}");
    let forbidden =
        "pods is forbidden: User \"u\" cannot create resource \"pods\" in API group \"\"";
    world.api.fault("POST pods", Fault::Status(403, forbidden));
    let error = world.launch("ci-1").await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(error.message.contains("runners.yaml"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_deleted_while_it_starts_ends_its_launch() {
    let world = World::new();
    let launched = world.launch("ci-1");
    world.created("ci-1").await;
    world.api.remove("ci-1");
    let error = launched.await.unwrap().unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone, "{error}");
}

async fn next_exit(
    exits: &mut (impl futures_util::Stream<Item = Result<Exit, Error>> + Unpin),
) -> Exit {
    timeout(LIMIT, exits.next()).await.unwrap().unwrap().unwrap()
}

#[tokio::test(start_paused = true)]
async fn exits_are_seen_whatever_becomes_of_the_watch() {
    let world = World::new();
    for runner in ["ci-1", "ci-2", "ci-3", "ci-4"] {
        world.run(runner).await;
    }
    let mut exits = world.kubernetes.exits().boxed();
    world.api.update("ci-1", &ended(7));
    let expected = |runner: &str, code: i64| Exit { runner: runner.into(), status: code.into() };
    assert_eq!(next_exit(&mut exits).await, expected("ci-1", 7));
    // The watch goes on where it ended.
    world.api.break_watches();
    world.api.update("ci-2", &ended(0));
    assert_eq!(next_exit(&mut exits).await, expected("ci-2", 0));
    // It cannot: everything is listed again.
    world.api.compact();
    world.api.update("ci-3", &ended(1));
    assert_eq!(next_exit(&mut exits).await, expected("ci-3", 1));
    // Gone in the meantime.
    world.api.remove("ci-4");
    world.api.compact();
    assert_eq!(next_exit(&mut exits).await, expected("ci-4", 137));
}

#[tokio::test(start_paused = true)]
async fn memory_that_is_used_up_is_known_of_an_exit() {
    let world = World::new();
    world.run("ci-1").await;
    let mut exits = world.kubernetes.exits().boxed();
    let state = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } });
    let change = json!({ "status": { "phase": "Failed", "containerStatuses": container(&state) } });
    world.api.update("ci-1", &change);
    let status = ExitStatus { code: 137, out_of_memory: true };
    assert_eq!(next_exit(&mut exits).await, Exit { runner: "ci-1".into(), status });
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_fails_ends_the_stream_of_exits() {
    let world = World::new();
    world.run("ci-1").await;
    let mut exits = world.kubernetes.exits().boxed();
    world.api.fault("WATCH pods", Fault::Status(500, "etcdserver: no leader"));
    world.api.break_watches();
    let error = timeout(LIMIT, exits.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.message.contains("no leader"), "{error}");
    assert!(timeout(LIMIT, exits.next()).await.unwrap().is_none());
    // It goes on by itself.
    let mut exits = world.kubernetes.exits().boxed();
    world.api.update("ci-1", &ended(0));
    assert_eq!(next_exit(&mut exits).await.runner, "ci-1");
}

#[tokio::test(start_paused = true)]
async fn a_launch_ends_although_the_watch_stays_silent() {
    let world = World::new();
    world.run("ci-1").await;
    // The next watch never answers.
    world.api.fault("WATCH pods", Fault::Silence);
    world.api.break_watches();
    world.run("ci-2").await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_api_server_is_asked_again_and_one_that_is_away_reported() {
    let world = World::new();
    world.run("ci-1").await;
    let begun = tokio::time::Instant::now();
    for fault in [Fault::Busy(429, 3), Fault::Busy(503, 0), Fault::Break] {
        world.api.fault("GET pods", fault);
    }
    assert_eq!(world.kubernetes.list().await.unwrap().len(), 1);
    assert!(begun.elapsed() >= Duration::from_secs(3));
    world.api.fault("GET pods", Fault::Silence);
    let error = world.kubernetes.list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    world.api.fault("GET pods", Fault::Nonsense("<html>sesame"));
    let error = world.kubernetes.list().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    assert!(!error.message.contains("sesame"), "{error}");
    for _ in 0..10 {
        world.api.fault("GET pods", Fault::Break);
    }
    let error = world.kubernetes.list().await.unwrap_err();
    assert!(error.message.contains("connection reset"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_long_list_comes_in_pages() {
    let world = World::new();
    let metadata = json!({ "annotations": order("x").labels.to_map() });
    for number in 0..1_001 {
        let mut metadata = metadata.clone();
        metadata["name"] = json!(format!("ci-{number}"));
        world.api.put("pods", json!({ "metadata": metadata }));
    }
    assert_eq!(world.kubernetes.list().await.unwrap().len(), 1_001);
}

/// Its kubelet never reports that it has stopped.
#[tokio::test(start_paused = true)]
async fn a_pod_on_a_lost_node_is_unreachable_and_removed_by_force() {
    let world = World::new();
    world.run("ci-1").await;
    world.api.update(
        "ci-1",
        &json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } }),
    );
    let state = world.kubernetes.list().await.unwrap()[0].state;
    assert_eq!(state, InstanceState::Unreachable);
    world.remove("ci-1").await.unwrap();
    world.nothing_is_left();
    let deletions = world.api.requests().iter().filter(|it| *it == "DELETE pods/ci-1").count();
    assert_eq!(deletions, 2);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_stops_in_time_is_deleted_once() {
    let world = World::new();
    world.run("ci-1").await;
    let kubernetes = world.kubernetes.clone();
    let removed = spawn(async move { kubernetes.remove("ci-1", GRACE).await });
    world.api.requested("DELETE pods/ci-1").await;
    world.api.remove("ci-1");
    removed.await.unwrap().unwrap();
    world.nothing_is_left();
    let deletions = world.api.requests().iter().filter(|it| *it == "DELETE pods/ci-1").count();
    assert_eq!(deletions, 1);
}

#[tokio::test(start_paused = true)]
async fn the_cluster_may_end_idle_runners_and_not_busy_ones() {
    let world = World::new();
    world.run("ci-1").await;
    let annotations = || world.api.get("pods", "ci-1").unwrap()["metadata"]["annotations"].clone();
    assert_eq!(annotations()[SAFE_TO_EVICT], "true");
    assert!(annotations()[DO_NOT_DISRUPT].is_null());
    world.kubernetes.protect("ci-1").await.unwrap();
    assert_eq!(annotations()[SAFE_TO_EVICT], "false");
    assert_eq!(annotations()[DO_NOT_DISRUPT], "true");
    // The rest of the record stays.
    assert_eq!(world.kubernetes.list().await.unwrap()[0].labels, order("ci-1").labels);
    timeout(LIMIT, async {
        while !world.kubernetes.shared.pods.get("ci-1").unwrap().protected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    world.kubernetes.protect("ci-1").await.unwrap();
    let patches = world.api.requests().iter().filter(|it| it.starts_with("PATCH")).count();
    assert_eq!(patches, 1);
}

#[tokio::test(start_paused = true)]
async fn a_log_is_masked_by_what_its_pod_was_created_with() {
    let world = World::new();
    world.run("ci-1").await;
    world.api.set_log("--jitconfig sesame-jit\nkey sesame-key\n");
    let log = world.kubernetes.log("ci-1", 100).await.unwrap();
    assert_eq!(log, "--jitconfig ***\nkey ***\n");
    let change = json!({ "status": { "phase": "Failed", "reason": "Evicted", "message": "memory",
                                     "containerStatuses": [] } });
    world.api.update("ci-1", &change);
    let log = world.kubernetes.log("ci-1", 100).await.unwrap();
    assert!(log.ends_with("[edgerunner: the pod ended: Evicted: memory]\n"), "{log}");
    let error = world.kubernetes.log("ci-2", 100).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Gone);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_permitted_is_named() {
    let api = ApiServer::new();
    api.deny("patch pods");
    api.deny("get pods/log");
    let inspection = Inspection::of(Cluster::of(client(&api), NAMESPACE));
    let permissions = inspection.permissions("ci").await.unwrap();
    let denied: Vec<&str> =
        permissions.iter().filter(|it| !it.allowed).map(|it| it.what.as_str()).collect();
    assert_eq!(denied, ["patch pods", "get pods/log"]);
    assert_eq!(permissions.last().unwrap().what, format!("get configmaps {OWNER}"));
    assert_eq!(permissions.len(), 11);
    assert_eq!(inspection.version().await.unwrap().git_version, "v1.37.0");
}

#[tokio::test(start_paused = true)]
async fn the_role_that_is_shipped_permits_what_is_needed_and_nothing_else() {
    let shipped = include_str!("../../../../packaging/kubernetes/runners.yaml");
    let resources: Vec<Value> = serde_saphyr::from_multiple(shipped).unwrap();
    let role = resources.iter().find(|it| it["kind"] == "Role").unwrap();
    let texts = |list: &Value| -> Vec<String> {
        let items = list.as_array().unwrap().iter();
        items.map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let mut permitted = BTreeSet::new();
    for rule in role["rules"].as_array().unwrap() {
        let names =
            if rule["resourceNames"].is_null() { vec![] } else { texts(&rule["resourceNames"]) };
        for resource in texts(&rule["resources"]) {
            for verb in texts(&rule["verbs"]) {
                permitted.insert([vec![verb, resource.clone()], names.clone()].concat().join(" "));
            }
        }
    }
    let inspection = Inspection::of(Cluster::of(client(&ApiServer::new()), NAMESPACE));
    let needed = inspection.permissions("edgerunner").await.unwrap();
    assert_eq!(permitted, needed.into_iter().map(|it| it.what).collect());
}

#[tokio::test]
async fn a_kubeconfig_leads_to_the_api_server_over_tls() {
    let authority = Authority::new().unwrap();
    let api = ApiServer::new();
    let address = api.serve(&authority.issue("127.0.0.1").unwrap(), "sesame").await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kubeconfig");
    let config = KubernetesConfig {
        kubeconfig: Some(file.clone()),
        context: Some("test".into()),
        namespace: None,
    };
    let write = |authority: &str, token: &str| {
        std::fs::write(&file, kubeconfig(address, authority, token, NAMESPACE)).unwrap();
    };

    write(&authority.certificate, "sesame");
    let kubernetes = Kubernetes::connect(&config, "ci");
    assert_eq!(kubernetes.list().await.unwrap(), []);
    let inspection = Inspection::new(&config);
    assert_eq!(inspection.namespace().await.unwrap(), NAMESPACE);
    assert_eq!(inspection.permissions("ci").await.unwrap().len(), 11);

    write(&authority.certificate, "another");
    let error = Inspection::new(&config).version().await.unwrap_err();
    assert!(error.message.contains("does not accept the credentials"), "{error}");
    write(&Authority::new().unwrap().certificate, "sesame");
    let error = Inspection::new(&config).version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    std::fs::write(&file, "nonsense: [").unwrap();
    let error = Inspection::new(&config).version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
    let outside = KubernetesConfig::default();
    let error = Inspection::new(&outside).version().await.unwrap_err();
    assert!(error.message.contains("set kubernetes.kubeconfig"), "{error}");
}
