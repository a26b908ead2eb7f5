//! Tests of the whole router, with a planner in place of the driver.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use metrics_exporter_prometheus::PrometheusBuilder;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use super::*;
use crate::{
    config::Config,
    control::{
        clock,
        command::{CommandError, EventSender, Readiness, Retried},
        executor::Places,
        figures::Figures,
        sidecars::Sidecars,
        snapshot::{QueuedJob, RunnerView, Snapshot},
    },
    provider::{ErrorKind, Node, Provider, fake::Fake, node::Availability},
    store::{Delivery, JobDetails, Peak, RunnerRecord},
};
use edgerunner_scheduler::{
    model::{Host, Job, JobKey, JobState, Visibility},
    plan::{self, Adopted, AdoptedContainer, Event, Parameters, Pool},
};

const TOKEN: &str = "s3cret";

struct Served {
    router: Router,
    /// The same behind sign-in.
    signed_in: Router,
    store: Store,
    driver: CommandSender,
    fake: Fake,
    /// Snapshots that were requested.
    snapshots: Arc<AtomicUsize>,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start(token: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(&directory.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap();
        let mut settings = Config::load(None, &|_| None).unwrap().planner_settings();
        settings.pools.push(Pool { name: "gpu".into(), ..settings.pools[0].clone() });
        let (inputs, mut receiver) = mpsc::channel(1);
        let snapshots = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&snapshots);
        let driver = inputs.clone();
        tokio::spawn(async move {
            let mut state = plan::State::new(settings, 1);
            while let Some(input) = receiver.recv().await {
                if matches!(input, Command::GetSnapshot(_)) {
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                reply(&mut state, input);
            }
        });
        let fake = Fake::new();
        let places = Places::new(vec![("Fake".to_owned(), Provider::Fake(fake.clone()))]);
        let api = Api::new(
            store.clone(),
            places,
            inputs,
            &Server {
                api_token: token.map(Into::into),
                trusted_names: vec!["runners.example.com".into()],
                ..Server::default()
            },
            Arc::default(),
            PrometheusBuilder::new().build_recorder().handle(),
            Sidecars::default(),
        );
        let signed_in = Api { entrance: Entrance::SignIn, ..api.clone() }.router(Router::new());
        let router = api.router(Router::new());
        Self { router, signed_in, store, driver, fake, snapshots, _directory: directory }
    }

    async fn event(&self, event: Event) {
        EventSender::new(self.driver.clone()).send(event).await;
    }

    async fn queue(&self, job: Job) {
        let delivery = Delivery {
            hook: String::new(),
            hook_id: 1,
            hook_target_type: "repository".into(),
            hook_target_id: 2,
            received_at: job.queued_at,
            state: JobState::Queued,
            job: job.clone(),
            details: JobDetails::default(),
            conclusion: String::new(),
            runner_name: String::new(),
        };
        self.store.deliver([delivery].into()).await.unwrap();
        self.event(Event::JobQueued(job)).await;
    }

    async fn call(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let request =
            headers.iter().fold(Request::get(path), |it, (name, value)| it.header(*name, *value));
        self.call(request.body(Body::empty()).unwrap()).await
    }

    async fn change(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Value,
    ) -> (StatusCode, Value) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .body(Body::from(body.to_string()));
        let (status, body) = self.call(request.unwrap()).await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

/// Replies as the driver would; runners are named after the reply.
fn reply(state: &mut plan::State, input: Command) {
    match input {
        Command::GetSnapshot(reply) => drop(reply.send(Ok(Snapshot::new(state, clock::now())))),
        Command::GetFigures(reply) => {
            let figures = Figures::new(state, Vec::new(), Vec::new(), clock::now());
            drop(reply.send(Some(figures)));
        }
        Command::GetReadiness(reply) => drop(reply.send(match state.recovered() {
            true => Readiness::Ready,
            false => Readiness::Recovering(None),
        })),
        Command::GetQueued { jobs, reply } => {
            drop(reply.send(Ok(QueuedJob::of(state, &jobs, clock::now()))));
        }
        Command::Drain { pool, draining, reply } => {
            let pools = &state.settings().pools;
            let index = pool.map(|name| pools.iter().position(|pool| pool.name == name));
            let done = match index {
                Some(None) => Err(CommandError::NoSuchPool { pools: vec!["gpu".into()] }),
                Some(Some(_)) if !draining && state.draining() => Err(CommandError::AllDraining),
                None | Some(Some(_)) => {
                    let event = Event::Drain { pool: index.flatten(), draining };
                    plan::plan(state, event, clock::now());
                    Ok(())
                }
            };
            drop(reply.send(done));
        }
        Command::Retry { reply } => {
            plan::plan(state, Event::Retry, clock::now());
            drop(reply.send(Ok(Retried { retried: 2, rate_limited: 1 })));
        }
        Command::RemoveRunner { runner, force, reply } => {
            drop(reply.send(match (&*runner, force) {
                ("idle", _) | ("busy", true) => Ok(leaving(&runner)),
                ("busy", false) => Err(CommandError::Busy),
                _ => Err(CommandError::NoSuchRunner),
            }));
        }
        Command::Event(event) => drop(plan::plan(state, *event, clock::now())),
        Command::SetPools(_) => panic!("the API does not send this"),
    }
}

fn leaving(name: &str) -> RunnerView {
    RunnerView {
        name: name.into(),
        pool: "gpu".into(),
        node: None,
        host: "github.com".into(),
        target: "org:acme".into(),
        phase: "leaving".into(),
        since_ms: 2,
        created_ms: 1,
        registration_id: None,
        job_id: None,
        why: None,
        unreachable_ms: None,
    }
}

#[tokio::test]
async fn one_pool_or_all_pools_are_drained_and_resumed() {
    let served = Served::start(Some(TOKEN));
    let post = async |path, pool: Option<&str>| {
        let (status, body) = served.change("POST", path, TOKEN, json!({ "pool": pool })).await;
        assert_eq!(status, 200, "{body}");
        body
    };
    let (drain, resume) = ("/api/v1/drain", "/api/v1/resume");
    let draining = |all: bool, pools: &[&str]| json!({ "draining": all, "pools": pools });
    assert_eq!(post(drain, Some("gpu")).await, draining(false, &["gpu"]));
    assert_eq!(post(drain, None).await, draining(true, &["gpu"]));
    let one = json!({ "pool": "gpu" });
    let (status, error) = served.change("POST", resume, TOKEN, one).await;
    assert_eq!(status, 409, "{error}");
    assert!(error["error"].as_str().unwrap().contains("run `edgerunner resume`"), "{error}");
    assert_eq!(post(drain, Some("default")).await, draining(true, &["default", "gpu"]));
    assert_eq!(post(resume, None).await, draining(false, &[]));
}

#[tokio::test]
async fn nothing_changes_without_the_token_or_for_a_malformed_request() {
    let refused = async |served: &Served, token: &str, body: Value, status: u16, why: &str| {
        for path in ["/api/v1/drain", "/api/v1/resume"] {
            let (found, error) = served.change("POST", path, token, body.clone()).await;
            assert_eq!(found, status, "{error}");
            assert!(error["error"].as_str().unwrap().contains(why), "{error}");
        }
    };
    let all = || json!({ "pool": null });
    let served = Served::start(Some(TOKEN));
    refused(&served, "another", all(), 401, "server.api_token").await;
    // Before the body is read.
    refused(&served, "another", json!("?"), 401, "server.api_token").await;
    refused(&served, TOKEN, json!({ "pool": "gpo" }), 404, "gpu").await;
    refused(&served, TOKEN, json!({ "pol": "gpu" }), 422, "pol").await;
    let (status, _) = served.change("DELETE", "/api/v1/runners/idle", "another", all()).await;
    assert_eq!(status, 401);
    let without = Served::start(None);
    refused(&without, TOKEN, all(), 403, "set server.api_token").await;
}

#[tokio::test]
async fn a_runner_is_removed_and_a_busy_one_only_by_force() {
    let served = Served::start(Some(TOKEN));
    for (path, expected) in [
        ("idle", 202),
        ("busy", 409),
        ("busy?force=false", 409),
        ("busy?force=true", 202),
        ("busy?force=yes", 400),
        ("busy?forse=true", 400),
        ("nobody", 404),
        ("%ff", 400),
    ] {
        let path = format!("/api/v1/runners/{path}");
        let (status, body) = served.change("DELETE", &path, TOKEN, Value::Null).await;
        assert_eq!(status, expected, "{path}: {body}");
        assert!(body["phase"] == "leaving" || body["error"].is_string(), "{body}");
    }
}

#[tokio::test]
async fn nodes_are_listed_drained_and_resumed() {
    let served = Served::start(Some(TOKEN));
    let (path, drain) = ("/api/v1/nodes", "/api/v1/nodes/build-1/drain");
    assert_eq!(served.get(path, &[]).await, (StatusCode::OK, "[]".into()));
    let post = async |path: &str| served.change("POST", path, TOKEN, Value::Null).await;
    let (status, error) = post(drain).await;
    assert_eq!(status, 404, "{error}");
    assert!(error["error"].as_str().unwrap().contains("Docker Swarm"), "{error}");

    let labels = [("disk".to_owned(), "ssd".to_owned())].into();
    let busy = Node { runners: 3, reserved_cpus: 2.5, labels, ..Node::example("build-1") };
    let paused = Node { availability: Availability::Pause, ..Node::example("build-2") };
    served.fake.set_nodes(vec![busy, paused]);
    let (status, body) = served.get(path, &[]).await;
    assert_eq!(status, 200, "{body}");
    let nodes: Value = serde_json::from_str(&body).unwrap();
    let expected = json!({
        "name": "build-1", "id": "id-of-build-1", "state": "ready", "message": "",
        "availability": "active", "manager": false, "leader": false, "engine": "26.1.5",
        "too_old": false, "cpus": 4.0, "memory_mib": 8192, "reserved_cpus": 2.5,
        "reserved_memory_mib": 0, "runners": 3, "labels": { "disk": "ssd" }, "condition": "ready",
    });
    assert_eq!(nodes[0], expected);
    assert_eq!(nodes[1]["condition"], "drained", "{body}");

    let (status, node) = post(drain).await;
    assert_eq!(status, 200, "{node}");
    assert_eq!((&node["availability"], &node["runners"]), (&"drain".into(), &3.into()));
    let (status, node) = post("/api/v1/nodes/build-2/resume").await;
    assert_eq!((status, &node["condition"]), (StatusCode::OK, &"ready".into()), "{node}");

    for (kind, expected) in
        [(ErrorKind::Gone, 404), (ErrorKind::Refused, 409), (ErrorKind::Unavailable, 503)]
    {
        served.fake.fail_next("drain_node", kind);
        let (status, error) = post(drain).await;
        assert_eq!(status, expected, "{error}");
        assert!(error["error"].as_str().unwrap().contains("Fake"), "{error}");
    }
    assert_eq!(post("/api/v1/nodes/build-3/drain").await.0, 404);
    assert_eq!(post("/api/v1/nodes/%ff/drain").await.0, 400);
    let (status, _) = served.change("POST", drain, "another", Value::Null).await;
    assert_eq!(status, 401);
    served.fake.set_away(true);
    assert_eq!(served.get(path, &[]).await.0, 503);
}

fn record(name: &str) -> RunnerRecord {
    RunnerRecord {
        name: name.into(),
        pool: "gpu".into(),
        provider: String::new(),
        node: None,
        host: Host::default(),
        target: "org:acme".into(),
        phase: "gone".into(),
        created_at: 1,
        started_at: None,
        online_at: None,
        credential: None,
        registration_id: None,
        job: None,
        why: None,
        end: None,
        failed: true,
        gone_at: Some(2),
        peak: Peak::default(),
    }
}

#[tokio::test]
async fn the_log_of_a_failed_runner_is_kept_and_others_have_none() {
    let served = Served::start(None);
    served.store.save_runner(record("failed")).await.unwrap();
    served.store.save_runner_log("failed".into(), "no space left\n".into()).await.unwrap();
    let log = async |name: &str| served.get(&format!("/api/v1/runners/{name}/logs"), &[]).await;
    served.store.save_runner(record("unread")).await.unwrap();
    served.store.save_runner(RunnerRecord { failed: false, ..record("fine") }).await.unwrap();
    assert_eq!(log("failed").await, (StatusCode::OK, "no space left\n".into()));
    let (status, error) = log("unread").await;
    assert_eq!(status, 404);
    assert!(error.contains("the runner failed, but its log is not available"), "{error}");
    let (status, error) = log("fine").await;
    assert_eq!(status, 404);
    assert!(error.contains("did not fail"), "{error}");
    assert_eq!(log("nobody").await.0, 404);
}

#[tokio::test]
async fn runners_that_are_gone_are_left_out_on_request() {
    let served = Served::start(None);
    for (name, gone_at) in [("gone", Some(2)), ("here", None)] {
        served.store.save_runner(RunnerRecord { gone_at, ..record(name) }).await.unwrap();
    }
    let names = async |path: &str| {
        let (status, body) = served.get(path, &[]).await;
        assert_eq!(status, 200, "{body}");
        let runners: Vec<Value> = serde_json::from_str(&body).unwrap();
        let mut names: Vec<String> =
            runners.iter().map(|it| it["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    };
    assert_eq!(names("/api/v1/runners").await, ["gone", "here"]);
    assert_eq!(names("/api/v1/runners?live=true").await, ["here"]);
    assert_eq!(served.get("/api/v1/runners?live=maybe", &[]).await.0, 400);
}

#[tokio::test]
async fn a_runner_shows_that_its_machine_does_not_answer() {
    let served = Served::start(None);
    served.event(Event::Recovered { provider: 0 }).await;
    let adopted = Adopted {
        runner: "lost".into(),
        pool: "gpu".into(),
        provider: 0,
        target: "org:acme".parse().unwrap(),
        registration_id: None,
        job: None,
        created_at: 1,
        container: AdoptedContainer::Unreachable,
        parameters: Parameters::default(),
        devices: Vec::new(),
        parked: None,
    };
    served.event(Event::Adopted(adopted)).await;
    for name in ["lost", "fine"] {
        let record = RunnerRecord { failed: false, gone_at: None, ..record(name) };
        served.store.save_runner(record).await.unwrap();
    }
    let (status, body) = served.get("/api/v1/runners", &[]).await;
    assert_eq!(status, 200, "{body}");
    let runners: Vec<Value> = serde_json::from_str(&body).unwrap();
    for runner in runners {
        assert_eq!(runner["unreachable_ms"].is_u64(), runner["name"] == "lost", "{runner}");
    }
}

#[tokio::test]
async fn jobs_are_listed_with_their_pools_and_one_is_shown_with_all_attempts() {
    let served = Served::start(None);
    let deliveries = [(1, 1, "self-hosted"), (1, 2, "self-hosted"), (2, 1, "ubuntu-latest")];
    for (id, run_attempt, label) in deliveries {
        let job = Job {
            key: JobKey::new(id, run_attempt),
            repository: format!("acme/app-{id}"),
            organization: String::new(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 0,
            from_fork: None,
            labels: vec![label.into()],
            queued_at: id,
            delivery: format!("{id}-{run_attempt}"),
        };
        served.queue(job).await;
    }
    let jobs = async |path: &str| {
        let (status, body) = served.get(path, &[]).await;
        assert_eq!(status, 200, "{path}: {body}");
        let jobs: Vec<Value> = serde_json::from_str(&body).unwrap();
        let pool = |job: &Value| job["pool"].as_str().unwrap_or_default().to_owned();
        jobs.iter().map(|job| (job["id"].as_u64().unwrap(), pool(job))).collect::<Vec<_>>()
    };
    let (default, none) = (|| "default".to_owned(), String::new());
    let both = [(1, default()), (1, default()), (2, none.clone())];
    assert_eq!(jobs("/api/v1/jobs?state=queued").await, both);
    // The reason is that of this moment, not the one that was stored last.
    let (_, body) = served.get("/api/v1/jobs/1", &[]).await;
    let attempts: Vec<Value> = serde_json::from_str(&body).unwrap();
    assert_eq!(attempts[0]["waiting"], "recovering", "{body}");
    assert!(attempts[0]["waiting_message"].as_str().unwrap().contains("just started"), "{body}");
    assert_eq!(jobs("/api/v1/jobs?pool=default").await, [(1, default()), (1, default())]);
    assert!(jobs("/api/v1/jobs?pool=gpu").await.is_empty());
    assert!(jobs("/api/v1/jobs?state=completed").await.is_empty());
    assert_eq!(jobs("/api/v1/jobs?repository=acme/app-2").await, [(2, none)]);
    assert_eq!(jobs("/api/v1/jobs?label=UBUNTU-latest").await, [(2, String::new())]);
    assert!(jobs("/api/v1/jobs?label=ubuntu-latest&pool=default").await.is_empty());
    assert_eq!(jobs("/api/v1/jobs?limit=1").await.len(), 1);
    assert_eq!(jobs("/api/v1/jobs/1").await, [(1, default()), (1, default())]);
    for (path, expected) in [
        ("/api/v1/jobs?limit=0", 400),
        ("/api/v1/jobs?limit=1001", 400),
        ("/api/v1/jobs?state=waiting", 400),
        ("/api/v1/jobs?repo=acme/app", 400),
        ("/api/v1/jobs/x", 400),
        ("/api/v1/jobs/3", 404),
    ] {
        let (status, body) = served.get(path, &[]).await;
        assert_eq!(status, expected, "{path}: {body}");
        assert!(body.contains("error"), "{path}: {body}");
    }
}

#[tokio::test]
async fn readiness_and_metrics_need_no_snapshot() {
    let served = Served::start(None);
    assert_eq!(served.get("/readyz", &[]).await.0, 503);
    served.event(Event::Recovered { provider: 0 }).await;
    assert_eq!(served.get("/readyz", &[]).await, (StatusCode::OK, "ready\n".into()));
    assert_eq!(served.get("/metrics", &[]).await.0, 200);
    assert_eq!(served.snapshots.load(Ordering::Relaxed), 0);
    assert_eq!(served.get("/api/v1/status", &[]).await.0, 200);
    assert_eq!(served.snapshots.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_status_says_what_needs_attention_each_cause_once() {
    let served = Served::start(None);
    let status = async || {
        let (status, body) = served.get("/api/v1/status", &[]).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()
    };
    served.event(Event::Recovered { provider: 0 }).await;
    assert_eq!(status().await["attention"], json!([]));
    let gone_at = Some(clock::now().wall);
    let died = RunnerRecord { job: Some(JobKey::new(7, 1)), gone_at, ..record("edge-1") };
    served.store.save_runner(died).await.unwrap();
    served.event(Event::Drain { pool: Some(1), draining: true }).await;
    let found = status().await;
    let said = |index: usize, name: &str| found["attention"][index][name].clone();
    assert_eq!(found["attention"].as_array().unwrap().len(), 2, "{found}");
    assert_eq!((said(0, "group"), said(1, "group")), ("broken".into(), "blocked".into()));
    assert_eq!(said(0, "title"), "1 runner died during a job");
    assert_eq!(said(0, "command"), "edgerunner runners logs edge-1");
    assert_eq!(said(1, "command"), "edgerunner resume --pool gpu");
    assert!(found["pools"].is_array(), "the state is there as well: {found}");
}

#[tokio::test]
async fn pages_of_other_sites_and_unknown_host_names_are_rejected() {
    let served = Served::start(None);
    let host = ("host", "127.0.0.1:8081");
    for (headers, expected) in [
        (&[][..], 200),
        (&[host][..], 200),
        (&[("host", "localhost")][..], 200),
        (&[("host", "[::1]")][..], 200),
        (&[("host", "runners.example.com")][..], 200),
        (&[("host", "Runners.Example.com:8443")][..], 200),
        (&[("host", "a.runners.example.com")][..], 421),
        (&[("host", "evil.example:8081")][..], 421),
        (&[("host", "127.0.0.1.evil.example")][..], 421),
        (&[host, ("origin", "http://127.0.0.1:8081")][..], 200),
        (&[host, ("origin", "http://127.0.0.1:9")][..], 403),
        (&[host, ("origin", "https://evil.example")][..], 403),
        (&[host, ("origin", "null")][..], 403),
        (&[("origin", "http://127.0.0.1:8081")][..], 403),
    ] {
        let (status, body) = served.get("/api/v1/pools", headers).await;
        assert_eq!(status, expected, "{headers:?}: {body}");
    }
}

/// A request of somebody whom Envoy signed in, with these headers besides.
fn by_user(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "runners.example.com")
        .header(header::CONTENT_TYPE, "application/json")
        .header("x-forwarded-for", "203.0.113.9, 192.0.2.7");
    let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
    request.body(Body::from(json!({ "pool": "gpu" }).to_string())).unwrap()
}

const ORIGIN: (&str, &str) = ("origin", "https://runners.example.com");
const ANN: (&str, &str) = ("x-edgerunner-user", "ann@example.com");
const OPERATE: (&str, &str) = ("x-edgerunner-role", "operate");
const READ: (&str, &str) = ("x-edgerunner-role", "read");

#[tokio::test]
async fn people_who_signed_in_change_only_what_their_role_permits() {
    let served = Served::start(Some(TOKEN));
    let drain = "/api/v1/drain";
    for (method, path, headers, expected, why) in [
        ("GET", "/api/v1/pools", &[ANN, READ][..], 200, ""),
        ("GET", "/api/v1/pools", &[ANN], 200, ""),
        ("GET", "/api/v1/pools", &[READ], 403, "x-edgerunner-user"),
        ("GET", "/api/v1/pools", &[("x-edgerunner-user", " "), READ], 403, "x-edgerunner-user"),
        ("GET", "/api/v1/pools", &[ANN, ANN, READ], 403, "x-edgerunner-user"),
        ("POST", drain, &[ANN, OPERATE, ORIGIN], 200, ""),
        ("POST", drain, &[ANN, READ, ORIGIN], 403, "may read, but not operate"),
        ("POST", drain, &[ANN, ORIGIN], 403, "may read, but not operate"),
        ("POST", drain, &[ANN, OPERATE, OPERATE, ORIGIN], 403, "may read, but not operate"),
        ("POST", drain, &[ANN, OPERATE], 403, "header Origin"),
        ("POST", drain, &[ANN, OPERATE, ("origin", "https://evil.example")], 403, "other sites"),
        ("POST", drain, &[ANN, OPERATE, ("origin", "null")], 403, "other sites"),
        ("POST", drain, &[OPERATE, ORIGIN], 403, "x-edgerunner-user"),
        ("DELETE", "/api/v1/runners/idle", &[ANN, OPERATE, ORIGIN], 202, ""),
        ("DELETE", "/api/v1/runners/idle", &[ANN, READ, ORIGIN], 403, "may read"),
    ] {
        let response = served.signed_in.clone().oneshot(by_user(method, path, headers)).await;
        let response = response.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, expected, "{method} {path} {headers:?}: {body}");
        assert!(body.contains(why), "{method} {path} {headers:?}: {body}");
    }
    // The API token is no way around sign-in.
    let bearer = format!("Bearer {TOKEN}");
    let headers = [ANN, READ, ORIGIN, ("authorization", &*bearer)];
    let response = served.signed_in.clone().oneshot(by_user("POST", drain, &headers)).await;
    assert_eq!(response.unwrap().status(), 403);
    let mut request = by_user("GET", "/api/v1/pools", &[ANN]);
    request.headers_mut().insert(header::HOST, "127.0.0.1".parse().unwrap());
    let response = served.signed_in.clone().oneshot(request).await;
    assert_eq!(response.unwrap().status(), 421);
}

#[tokio::test]
async fn nobody_states_a_name_or_a_role_without_signing_in() {
    let served = Served::start(Some(TOKEN));
    for header in [ANN, OPERATE, READ] {
        let (status, body) = served.get("/api/v1/pools", &[header]).await;
        assert_eq!(status, 403, "{header:?}: {body}");
        assert!(body.contains("server.sign_in_address"), "{body}");
        assert_eq!(served.get("/healthz", &[header]).await.0, 403);
    }
    let (_, caller) = served.get("/api/v1/caller", &[]).await;
    assert_eq!(caller, r#"{"user":null,"may_operate":false}"#);
    let request = by_user("GET", "/api/v1/caller", &[ANN, OPERATE]);
    let response = served.signed_in.clone().oneshot(request).await.unwrap();
    let caller = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(&caller[..], br#"{"user":"ann@example.com","may_operate":true}"#);
}

#[tokio::test]
async fn every_change_is_on_record_with_who_made_it_and_how_it_ended() {
    let served = Served::start(Some(TOKEN));
    let post = async |path, pool: Value| {
        served.change("POST", path, TOKEN, json!({ "pool": pool })).await.0.as_u16()
    };
    assert_eq!(post("/api/v1/drain", Value::Null).await, 200);
    assert_eq!(post("/api/v1/resume", json!("gpo")).await, 404);
    let headers = [ANN, OPERATE, ORIGIN];
    for (method, path) in [("POST", "/api/v1/retry"), ("DELETE", "/api/v1/runners/busy")] {
        let response = served.signed_in.clone().oneshot(by_user(method, path, &headers)).await;
        drop(response.unwrap());
    }
    // Refused before it was a change.
    served.change("POST", "/api/v1/drain", "another", Value::Null).await;
    let (status, body) = served.get("/api/v1/audit", &[]).await;
    assert_eq!(status, 200, "{body}");
    let changes: Vec<Value> = serde_json::from_str(&body).unwrap();
    let summary = |change: &Value| {
        let text = |field: &str| change[field].as_str().unwrap().to_owned();
        format!("{} {} {} {}", text("who"), text("address"), text("action"), text("target"))
    };
    let summaries: Vec<String> = changes.iter().map(summary).collect();
    assert_eq!(
        summaries,
        [
            "ann@example.com 192.0.2.7 remove busy",
            "ann@example.com 192.0.2.7 retry ",
            "API token  resume gpo",
            "API token  drain ",
        ]
    );
    let outcomes: Vec<&str> = changes.iter().map(|it| it["outcome"].as_str().unwrap()).collect();
    assert_eq!((outcomes[1], outcomes[3]), ("done", "done"));
    assert!(outcomes[0].contains("running a job"), "{outcomes:?}");
    assert!(outcomes[2].starts_with("no such pool"), "{outcomes:?}");
    let (_, body) = served.get("/api/v1/audit?limit=1", &[]).await;
    assert_eq!(serde_json::from_str::<Vec<Value>>(&body).unwrap().len(), 1);
    assert_eq!(served.get("/api/v1/audit?limit=x", &[]).await.0, 400);
}

#[tokio::test]
async fn a_report_needs_a_time_and_a_known_property() {
    let served = Served::start(None);
    let (status, body) = served.get("/api/v1/report", &[]).await;
    assert_eq!(status, 200, "{body}");
    let report: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&report["by"], &report["total"]), (&json!("repository"), &Value::Null));
    let span = report["until_ms"].as_u64().unwrap() - report["since_ms"].as_u64().unwrap();
    assert_eq!(span, 7 * 24 * 3_600_000);
    for by in ["repository", "workflow", "pool", "label"] {
        let (status, body) = served.get(&format!("/api/v1/report?by={by}&since_ms=0"), &[]).await;
        assert_eq!(status, 200, "{body}");
    }
    let too_large = "since_ms=9223372036854775808";
    for query in ["by=user", too_large, "since_ms=-1", "since_ms=soon", "until=1"] {
        let (status, body) = served.get(&format!("/api/v1/report?{query}"), &[]).await;
        assert_eq!(status, 400, "{query}: {body}");
    }
}

#[tokio::test]
async fn every_operation_is_described() {
    let (_, text) = Served::start(None).get("/api/v1/openapi.json", &[]).await;
    let description: Value = serde_json::from_str(&text).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1"), "{text}");
    for (method, path) in [
        ("get", "/api/v1/status"),
        ("get", "/api/v1/pools"),
        ("get", "/api/v1/jobs"),
        ("get", "/api/v1/jobs/{id}"),
        ("get", "/api/v1/runners"),
        ("get", "/api/v1/runners/{name}/logs"),
        ("get", "/api/v1/nodes"),
        ("get", "/api/v1/egress"),
        ("get", "/api/v1/report"),
        ("post", "/api/v1/nodes/{name}/drain"),
        ("post", "/api/v1/nodes/{name}/resume"),
        ("delete", "/api/v1/runners/{name}"),
        ("post", "/api/v1/drain"),
        ("post", "/api/v1/resume"),
        ("post", "/api/v1/retry"),
        ("get", "/api/v1/audit"),
        ("get", "/api/v1/caller"),
    ] {
        let operation = &description["paths"][path][method];
        assert!(operation["responses"]["421"].is_object(), "{method} {path}");
        assert!(operation["summary"].is_string(), "{method} {path}");
        let guarded = operation["security"][0]["api_token"].is_array();
        assert_eq!(guarded, method != "get", "{method} {path}");
    }
}
