//! The executor against a fake provider, a small GitHub and its own store.

mod accounts;
mod parked;
mod places;
mod space;
mod young;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use axum::{
    Json, Router,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, StatusCode, Uri};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time};

use super::*;
use crate::{
    config::Config,
    control::command::{self, Command},
    provider::{ErrorKind, InstanceState, Labels, Provider, fake::Fake},
    store::{Delivery, JobDetails, Peak, RunnerRecord},
};
use edgerunner_scheduler::{
    model::{Cause, Host, Job, JobKey, JobState, ServerTarget, Visibility},
    plan::{
        AdoptedContainer, ExitStatus, Launch, LookUpFailure, Parameters, Removal, RemovalFailure,
        Stage,
    },
};

const TARGET: &str = "repo:acme/app";
const CREATED_AT: u64 = 1_700_000_000_000;

/// Registers and removes runners, unless it is made to refuse.
#[derive(Clone, Default)]
struct GitHub(Arc<Mutex<GitHubState>>);

#[derive(Default)]
struct GitHubState {
    /// As `DELETE runners/7`.
    calls: Vec<String>,
    refuse: Option<StatusCode>,
    /// Requests whose path contains it are not answered.
    silent: Option<&'static str>,
    /// This token is refused.
    revoked: Option<&'static str>,
    /// Of the runner that is listed.
    version: Option<&'static str>,
    /// When every version ends; none is known otherwise.
    version_ends: Option<&'static str>,
}

impl GitHub {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let github = self.clone();
        let handler = async move |method: Method, uri: Uri, headers: HeaderMap| {
            let silent = github.0.lock().unwrap().silent;
            let answer = github.answer(&method, &uri, &headers);
            if silent.is_some_and(|part| uri.path().contains(part)) {
                std::future::pending::<()>().await;
            }
            answer
        };
        tokio::spawn(axum::serve(listener, Router::new().fallback(handler)).into_future());
        url
    }

    fn answer(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
        let mut state = self.0.lock().unwrap();
        let path = uri.path().trim_start_matches("/repos/acme/app/actions/");
        let path = path.trim_start_matches("/repos/acme/lib/actions/");
        state.calls.push(format!("{method} {path}"));
        let bearer = headers["authorization"].to_str().unwrap();
        if state.revoked.is_some_and(|token| bearer.ends_with(token)) {
            let refused = Json(json!({ "message": "Bad credentials" }));
            return (StatusCode::UNAUTHORIZED, refused).into_response();
        }
        if let Some(status) = state.refuse {
            return (status, Json(json!({ "message": "no" }))).into_response();
        }
        let runner = json!({
            "id": 7, "name": "edge-1", "os": "linux", "status": "online", "busy": true,
            "labels": [], "version": state.version,
        });
        match (method.as_str(), path) {
            ("POST", "runners/generate-jitconfig") => {
                let reply = json!({ "runner": runner, "encoded_jit_config": "c2VjcmV0" });
                (StatusCode::CREATED, Json(reply)).into_response()
            }
            ("GET", "runners") => {
                Json(json!({ "total_count": 1, "runners": [runner] })).into_response()
            }
            ("GET", "runs") => {
                Json(json!({ "total_count": 0, "workflow_runs": [] })).into_response()
            }
            ("GET", path) if path.starts_with("runners/deprecations/") => {
                match state.version_ends {
                    Some(ends) => Json(json!({ "runtime_deprecates_at": ends })).into_response(),
                    None => (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" })))
                        .into_response(),
                }
            }
            ("POST", path) if path.contains("/rerun") => {
                (StatusCode::CREATED, Json(json!({}))).into_response()
            }
            ("DELETE", _) => StatusCode::NO_CONTENT.into_response(),
            _ => (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response(),
        }
    }

    fn refuse(&self, status: StatusCode) {
        self.0.lock().unwrap().refuse = Some(status);
    }

    fn allow(&self) {
        self.0.lock().unwrap().refuse = None;
    }

    fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }
}

struct World {
    executor: Executor,
    provider: Fake,
    github: GitHub,
    store: Store,
    commands: mpsc::Receiver<Command>,
    _directory: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let github = GitHub::default();
        let api_url = github.start().await;
        Self::new(github, &api_url, "")
    }

    /// Without GitHub, for tests whose time stands still.
    fn offline() -> Self {
        Self::new(GitHub::default(), "http://127.0.0.1:9", "")
    }

    /// `pools`: TOML in place of the pool `default`.
    fn new(github: GitHub, api_url: &str, pools: &str) -> Self {
        Self::with(github, api_url, pools, Vec::new())
    }

    /// `others`: providers after the first.
    fn with(github: GitHub, api_url: &str, pools: &str, others: Vec<(String, Provider)>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        let text = format!("[github]\ntoken = \"ghp_token\"\napi_url = \"{api_url}\"\n{pools}");
        std::fs::write(&file, text).unwrap();
        let config = Config::load(Some(&file), &|_| None).unwrap();
        let clients = Clients::new(&config.credentials, Duration::from_secs(10)).unwrap();
        let (store, _) =
            Store::open(&directory.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap();
        let provider = Fake::new();
        let (sender, commands) = command::channel();
        let executor = Executor::new(
            LaunchConfig {
                instance: "edge".into(),
                pools: config.pools,
                registries: config.registries,
                reserves: config.reserves,
            },
            Arc::new(clients),
            Places::new(
                [("Fake".to_owned(), Provider::Fake(provider.clone()))]
                    .into_iter()
                    .chain(others)
                    .collect(),
            ),
            store.clone(),
            Arc::new(DeliveryTraces::new()),
            EventSender::new(sender),
        );
        Self { executor, provider, github, store, commands, _directory: directory }
    }

    fn launch(&self, runner: &str) -> JoinHandle<()> {
        self.launch_at(TARGET, runner)
    }

    fn launch_at(&self, target: &str, runner: &str) -> JoinHandle<()> {
        self.launch_with(0, target, runner)
    }

    fn launch_with(&self, credential: usize, target: &str, runner: &str) -> JoinHandle<()> {
        let launch = Launch {
            runner: runner.into(),
            pool: 0,
            target: target.parse().unwrap(),
            parameters: Parameters::default(),
            credential,
            devices: Vec::new(),
            park: false,
            prompted_by: None,
        };
        let pool = Arc::clone(&self.executor.pools()[0]);
        let recorded = self.store.save_runner(record(runner));
        tokio::spawn(self.executor.clone().launch(pool, launch, CREATED_AT, recorded))
    }

    async fn remove(&mut self, removal: Removal) -> Event {
        self.executor.clone().remove(removal).await;
        self.event().await
    }

    async fn event(&mut self) -> Event {
        match self.commands.recv().await {
            Some(Command::Event(event)) => *event,
            _ => panic!("the executor sends events only"),
        }
    }

    /// Skips progress.
    async fn outcome(&mut self) -> Event {
        loop {
            match self.event().await {
                Event::Progress { .. } | Event::Registered { .. } => {}
                event => return event,
            }
        }
    }

    fn no_event(&mut self) {
        assert!(self.commands.try_recv().is_err());
    }
}

fn record(runner: &str) -> RunnerRecord {
    RunnerRecord {
        name: runner.into(),
        pool: "default".into(),
        provider: String::new(),
        node: None,
        host: Host::default(),
        target: TARGET.into(),
        phase: "provisioning".into(),
        created_at: CREATED_AT,
        started_at: None,
        online_at: None,
        credential: None,
        registration_id: None,
        job: None,
        why: None,
        end: None,
        failed: false,
        gone_at: None,
        peak: Peak::default(),
    }
}

fn removal(runner: &str) -> Removal {
    Removal {
        runner: runner.into(),
        pool: "default".into(),
        provider: 0,
        target: TARGET.parse().unwrap(),
        registration_id: Some(7),
        deregister: true,
        container: true,
        container_first: false,
        force: false,
        attempts: 0,
        keep_logs: false,
    }
}

fn labels(runner: &str) -> Labels {
    Labels {
        instance: "edge".into(),
        pool: "default".into(),
        runner: runner.into(),
        host: String::new(),
        target: TARGET.into(),
        launched_unix_ms: CREATED_AT,
        parameters: String::new(),
        devices: Vec::new(),
        parked: None,
    }
}

#[track_caller]
fn assert_failed(event: Event, expected: Cause, left_behind: bool) -> String {
    let Event::LaunchFailed { runner, cause, message, may_exist, .. } = event else {
        panic!("{event:?}");
    };
    assert_eq!((&*runner, cause, may_exist), ("edge-1", expected, left_behind), "{message}");
    message
}

#[track_caller]
fn failure(event: Event) -> RemovalFailure {
    let Event::RemovalFailed { failure, .. } = event else { panic!("{event:?}") };
    failure
}

// Launch

#[tokio::test]
async fn a_launch_reports_each_step_and_carries_the_credentials() {
    let mut world = World::start().await;
    world.launch("edge-1").await.unwrap();
    let mut stages = Vec::new();
    loop {
        match world.event().await {
            Event::Progress { stage, .. } => stages.push(stage),
            Event::Registered { registration_id, .. } => assert_eq!(registration_id, 7),
            Event::Launched { runner } => break assert_eq!(runner, "edge-1"),
            event => panic!("{event:?}"),
        }
    }
    assert_eq!(stages, [Stage::Image, Stage::Credentials, Stage::Container]);
    let image = "ghcr.io/actions/actions-runner:latest";
    assert_eq!(world.provider.calls(), [format!("prepare {image}"), "launch edge-1".into()]);

    let order = world.provider.order("edge-1").unwrap();
    assert_eq!(order.labels, labels("edge-1"));
    let jit = order.env.iter().find(|it| it.name == "ACTIONS_RUNNER_INPUT_JITCONFIG").unwrap();
    assert_eq!(jit.value.expose_secret(), "c2VjcmV0");
    assert_eq!(world.store.present_runners().await.unwrap()[0].name, "edge-1");
}

#[tokio::test]
async fn the_image_comes_before_the_credentials() {
    let mut world = World::start().await;
    world.provider.fail_next("prepare", ErrorKind::Image);
    world.launch("edge-1").await.unwrap();
    assert_failed(world.outcome().await, Cause::Image, false);
    assert_eq!(world.github.calls(), [""; 0]);
}

#[tokio::test]
async fn a_launch_that_github_refuses_leaves_nothing_behind() {
    let mut world = World::start().await;
    world.github.refuse(StatusCode::FORBIDDEN);
    world.launch("edge-1").await.unwrap();
    assert_failed(world.outcome().await, Cause::Forbidden, false);
    assert!(!world.provider.calls().contains(&"launch edge-1".to_owned()));
}

#[tokio::test]
async fn a_burst_of_launches_that_github_refuses_costs_one_request() {
    let mut world = World::start().await;
    world.github.refuse(StatusCode::NOT_FOUND);
    for number in 0..40 {
        world.launch(&format!("edge-{number}"));
    }
    for _ in 0..40 {
        let event = world.outcome().await;
        let failed = matches!(event, Event::LaunchFailed { cause: Cause::Forbidden, .. });
        assert!(failed, "{event:?}");
    }
    assert_eq!(world.github.calls(), ["POST runners/generate-jitconfig"]);
    // A later launch finds out whether it is still so.
    world.github.allow();
    world.launch("edge-40");
    assert!(matches!(world.outcome().await, Event::Launched { .. }));
}

/// Two credentials for [`TARGET`].
const TWO_CREDENTIALS: &str = r#"
    [[credentials]]
    name = "one"
    targets = ["acme/*"]
    token = "ghp_one"
    [[credentials]]
    name = "two"
    targets = ["acme/*"]
    token = "ghp_two"
"#;

#[tokio::test]
async fn a_launch_uses_its_own_credential_and_does_not_fail_with_those_of_another() {
    let github = GitHub::default();
    github.0.lock().unwrap().revoked = Some("ghp_one");
    let api_url = github.start().await;
    let mut world = World::new(github, &api_url, TWO_CREDENTIALS);
    for number in 0..20 {
        world.launch_with(number % 2, TARGET, &format!("edge-{number}"));
    }
    let (mut launched, mut refused) = (0, 0);
    for _ in 0..20 {
        match world.outcome().await {
            Event::Launched { .. } => launched += 1,
            Event::LaunchFailed { cause: Cause::Unauthorized, .. } => refused += 1,
            event => panic!("{event:?}"),
        }
    }
    assert_eq!((launched, refused), (10, 10));
    assert_eq!(world.github.calls().len(), 11, "the refused ones cost one request");
    // Other requests use the one that works.
    assert!(matches!(world.remove(removal("edge-1")).await, Event::Removed { .. }));
    assert_eq!(world.github.calls().len(), 12);
}

#[tokio::test]
async fn launches_at_a_target_that_does_not_answer_hold_up_no_others() {
    let mut world = World::start().await;
    world.github.0.lock().unwrap().silent = Some("/acme/app/");
    for number in 0..40 {
        world.launch(&format!("edge-{number}"));
    }
    let elsewhere: Vec<_> = (50..55)
        .map(|number| world.launch_at("repo:acme/lib", &format!("edge-{number}")))
        .collect();
    for launch in elsewhere {
        time::timeout(Duration::from_secs(5), launch).await.expect("it does not wait").unwrap();
    }
    for _ in 0..5 {
        assert!(matches!(world.outcome().await, Event::Launched { .. }));
    }
}

#[tokio::test]
async fn an_answer_that_is_not_githubs_may_have_registered_the_runner() {
    let mut world = World::start().await;
    // A page of some server in between.
    world.github.refuse(StatusCode::OK);
    world.launch("edge-1").await.unwrap();
    assert_failed(world.outcome().await, Cause::UnexpectedResponse, false);
}

#[tokio::test]
async fn a_launch_that_the_provider_refuses_may_have_left_a_runner() {
    let mut world = World::start().await;
    for (kind, cause) in [
        (ErrorKind::Refused, Cause::Container),
        (ErrorKind::Gone, Cause::Container),
        (ErrorKind::Unavailable, Cause::DockerUnavailable),
    ] {
        world.provider.fail_next("launch", kind);
        world.launch("edge-1").await.unwrap();
        let message = assert_failed(world.outcome().await, cause, true);
        assert_eq!(message, format!("Fake: {kind:?}"));
    }
}

#[tokio::test]
async fn a_launch_without_a_response_ends_at_its_limit() {
    let mut world = World::start().await;
    let _never = world.provider.hold_next("launch");
    world.launch("edge-1");
    world.provider.called("launch edge-1").await;
    time::pause();
    let begun = time::Instant::now();
    let message = assert_failed(world.outcome().await, Cause::TimedOut, true);
    assert_eq!(message, "the launch took longer than 300 s");
    assert!(begun.elapsed() >= Duration::from_secs(299), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_exit_during_the_launch_is_reported_too() {
    let mut world = World::start().await;
    let executor = world.executor.clone();
    executor.recover_and_watch(Vec::new()).into_iter().for_each(|work| drop(tokio::spawn(work)));
    assert!(matches!(world.event().await, Event::Recovered { provider: 0 }));
    assert!(matches!(world.event().await, Event::Survey { .. }));
    let release = world.provider.hold_next("launch");
    world.launch("edge-1");
    world.provider.called("launch edge-1").await;

    world.provider.exit("edge-1", 3);
    let exited = world.outcome().await;
    assert!(
        matches!(
            &exited,
            Event::ContainerExited { runner, status } if runner == "edge-1" && status.code == 3
        ),
        "{exited:?}"
    );
    release.notify_one();
    assert!(matches!(world.outcome().await, Event::Launched { .. }));
}

#[tokio::test]
async fn more_launches_than_the_limit_take_turns() {
    let mut world = World::start().await;
    let launches_max = Provider::Fake(world.provider.clone()).launches_max();
    let runners: Vec<String> = (0..=launches_max).map(|number| format!("edge-{number}")).collect();
    let held: Vec<_> = runners.iter().map(|_| world.provider.hold_next("launch")).collect();
    for runner in &runners {
        world.launch(runner);
    }
    let launched = |world: &World| {
        world.provider.calls().iter().filter(|call| call.starts_with("launch")).count()
    };
    let limit = Instant::now() + Duration::from_secs(5);
    while launched(&world) < launches_max && Instant::now() < limit {
        time::sleep(Duration::from_millis(1)).await;
    }
    // All have their images and all but one their credentials: the last waits for its turn.
    time::sleep(Duration::from_millis(20)).await;
    assert_eq!(launched(&world), launches_max);
    held[0].notify_one();
    assert!(matches!(world.outcome().await, Event::Launched { .. }));
    held.iter().for_each(|held| held.notify_one());
    for _ in 0..launches_max {
        assert!(matches!(world.outcome().await, Event::Launched { .. }));
    }
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_does_not_stop_the_others() {
    let pools = "[[pools]]\nname = \"one\"\nrunner_image = \"a:1\"\n\
                 [[pools]]\nname = \"two\"\nrunner_image = \"b:1\"\n";
    let world = World::new(GitHub::default(), "http://127.0.0.1:9", pools);
    world.provider.fail_next("prepare", ErrorKind::Image);
    world.executor.clone().pull_images().await;
    assert_eq!(world.provider.calls(), ["prepare a:1", "prepare b:1"]);
}

// Remove

#[tokio::test]
async fn the_registration_goes_before_the_container() {
    let mut world = World::start().await;
    world.provider.insert(labels("edge-1"), InstanceState::Running);
    world.provider.fail_next("remove", ErrorKind::Refused);
    let event = world.remove(removal("edge-1")).await;
    assert!(matches!(event, Event::RemovalFailed { .. }), "{event:?}");
    assert_eq!(world.github.calls(), ["DELETE runners/7"]);

    let event = world.remove(removal("edge-1")).await;
    assert!(matches!(event, Event::Removed { .. }), "{event:?}");
    assert_eq!(world.provider.instances(), []);
}

#[tokio::test]
async fn by_force_the_container_goes_before_the_registration() {
    let mut world = World::start().await;
    let forced = Removal { force: true, container_first: true, ..removal("edge-1") };
    world.github.refuse(StatusCode::FORBIDDEN);
    let failure = failure(world.remove(forced.clone()).await);
    assert!(failure.container_removed && !failure.deregistered, "{failure:?}");
    assert_eq!(failure.cause, Cause::Forbidden);
    assert_eq!(world.provider.calls(), ["remove edge-1"]);

    // Neither waits for the other.
    world.github.allow();
    world.provider.fail_next("remove", ErrorKind::Unavailable);
    let failure = self::failure(world.remove(forced.clone()).await);
    assert!(failure.deregistered && !failure.container_removed, "{failure:?}");
    assert_eq!(failure.cause, Cause::DockerUnavailable);

    let event = world.remove(forced).await;
    assert!(matches!(event, Event::Removed { .. }), "{event:?}");
}

#[tokio::test]
async fn a_busy_runner_keeps_its_container() {
    let mut world = World::start().await;
    world.github.refuse(StatusCode::UNPROCESSABLE_ENTITY);
    let event = world.remove(removal("edge-1")).await;
    assert!(matches!(event, Event::RemovalRefused { .. }), "{event:?}");
    assert_eq!(world.provider.calls(), [""; 0]);
}

#[tokio::test]
async fn github_refuses_for_other_reasons_too_and_the_container_of_an_idle_runner_stays() {
    let mut world = World::start().await;
    for (status, cause) in [
        (StatusCode::FORBIDDEN, Cause::Forbidden),
        (StatusCode::UNAUTHORIZED, Cause::Unauthorized),
        (StatusCode::BAD_GATEWAY, Cause::GitHubUnavailable),
        (StatusCode::TEMPORARY_REDIRECT, Cause::UnexpectedResponse),
    ] {
        world.github.refuse(status);
        let failure = failure(world.remove(removal("edge-1")).await);
        assert_eq!((failure.cause, failure.deregistered), (cause, false), "{failure:?}");
        assert!(!failure.container_removed);
    }
    assert_eq!(world.provider.calls(), [""; 0]);
    // Until the planner no longer asks for it.
    let alone = Removal { deregister: false, ..removal("edge-1") };
    assert!(matches!(world.remove(alone).await, Event::Removed { .. }));
    assert_eq!(world.provider.calls(), ["remove edge-1"]);
}

#[tokio::test]
async fn many_removals_that_github_refuses_cost_one_request() {
    let mut world = World::start().await;
    world.github.refuse(StatusCode::FORBIDDEN);
    for number in 0..20 {
        tokio::spawn(world.executor.clone().remove(removal(&format!("edge-{number}"))));
    }
    for _ in 0..20 {
        assert_eq!(failure(world.event().await).cause, Cause::Forbidden);
    }
    assert_eq!(world.github.calls(), ["DELETE runners/7"]);
}

#[tokio::test(start_paused = true)]
async fn a_removal_without_a_response_ends_at_its_limit() {
    let mut world = World::offline();
    let _never = world.provider.hold_next("remove");
    let stuck = Removal { deregister: false, ..removal("edge-1") };
    let failure = failure(world.remove(stuck).await);
    assert_eq!(failure.message, "the removal took longer than 610 s");
}

#[tokio::test]
async fn a_registration_that_was_left_is_removed_without_its_container() {
    let mut world = World::start().await;
    let target: ServerTarget = TARGET.parse().unwrap();
    world.executor.clone().deregister_left("edge-1".into(), target.clone(), 7).await;
    assert!(matches!(world.event().await, Event::Deregistered { .. }));
    assert_eq!(world.github.calls(), ["DELETE runners/7"]);
    world.github.refuse(StatusCode::FORBIDDEN);
    world.executor.clone().deregister_left("edge-1".into(), target, 7).await;
    assert!(matches!(world.event().await, Event::LookUpFailed { .. }));
    assert_eq!(world.provider.calls(), [""; 0]);
}

#[tokio::test]
async fn an_unknown_registration_is_searched_for_by_name() {
    let mut world = World::start().await;
    let unknown = Removal { registration_id: None, ..removal("edge-1") };
    assert!(matches!(world.remove(unknown.clone()).await, Event::Removed { .. }));
    assert_eq!(world.github.calls(), ["GET runners", "DELETE runners/7"]);

    let other = Removal { runner: "edge-2".into(), ..unknown };
    assert!(matches!(world.remove(other).await, Event::Removed { .. }));
    assert_eq!(world.github.calls()[2..], ["GET runners"]);
}

#[tokio::test]
async fn the_log_of_a_failed_runner_is_kept_and_a_missing_one_stops_nothing() {
    let mut world = World::start().await;
    for runner in ["edge-1", "edge-2", "edge-3"] {
        world.store.save_runner(record(runner)).await.unwrap();
    }
    for runner in ["edge-1", "edge-3"] {
        world.provider.insert(labels(runner), InstanceState::Exited(1.into()));
    }
    for runner in ["edge-1", "edge-2", "edge-3"] {
        if runner == "edge-3" {
            world.provider.fail_next("log", ErrorKind::Refused);
        }
        let failed = Removal { keep_logs: true, deregister: false, ..removal(runner) };
        assert!(matches!(world.remove(failed).await, Event::Removed { .. }));
    }
    let mut logs = Vec::new();
    for runner in ["edge-1", "edge-2", "edge-3"] {
        logs.push(world.store.runner(runner.into()).await.unwrap().unwrap().log);
    }
    let unreadable = "[edgerunner: the log could not be read: Fake: Refused]\n";
    assert_eq!(logs, [Some("log of edge-1".into()), None, Some(unreadable.into())]);
}

// Sweep

#[tokio::test]
async fn a_sweep_spares_recorded_and_listed_runners_and_passes_over_stuck_leftovers() {
    let world = World::offline();
    world.store.save_runner(record("recorded")).await.unwrap();
    world.provider.insert(labels("listed"), InstanceState::Running);
    for (runner, stuck) in
        [("a", false), ("b", true), ("c", false), ("listed", false), ("recorded", false)]
    {
        world.provider.add_leftover(runner, stuck);
    }
    world.executor.clone().sweep().await;
    assert_eq!(world.provider.leftovers(), ["b", "listed", "recorded"]);
}

// Recover

#[tokio::test]
async fn recovery_joins_the_store_and_the_provider() {
    let mut world = World::offline();
    world.provider.insert(labels("both"), InstanceState::Exited(2.into()));
    world.provider.insert(labels("labels-only"), InstanceState::Created);
    world.provider.insert(labels("removing"), InstanceState::Removing);
    world.provider.insert(
        Labels { target: "nowhere".into(), ..labels("without-target") },
        InstanceState::Running,
    );
    let job = Some(JobKey::new(5, 1));
    let records = vec![
        RunnerRecord { registration_id: Some(9), job, ..record("both") },
        record("store-only"),
        RunnerRecord { target: "nowhere".into(), ..record("unreadable") },
    ];
    world.executor.recover(0, records).await;

    let mut adopted = Vec::new();
    loop {
        match world.event().await {
            Event::Adopted(it) => {
                adopted.push((it.runner, it.registration_id, it.job, it.container));
            }
            Event::Recovered { provider: 0 } => break,
            event => panic!("{event:?}"),
        }
    }
    // In the store's order, then the rest.
    adopted[2..].sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("both", Some(9), job, AdoptedContainer::Exited(2.into())),
        ("store-only", None, None, AdoptedContainer::Missing),
        ("labels-only", None, None, AdoptedContainer::Created),
        ("removing", None, None, AdoptedContainer::Missing),
    ];
    assert_eq!(adopted, expected.map(|(runner, id, job, it)| (runner.to_owned(), id, job, it)));
    world.no_event();
}

#[tokio::test]
async fn recovery_does_not_adopt_a_runner_that_is_on_record_as_gone() {
    let mut world = World::offline();
    let gone = RunnerRecord {
        phase: "gone".into(),
        why: Some("its job is done".into()),
        gone_at: Some(CREATED_AT),
        ..record("gone")
    };
    world.store.save_runner(gone).await.unwrap();
    world.provider.insert(labels("gone"), InstanceState::Removing);
    world.executor.recover(0, Vec::new()).await;
    let event = world.event().await;
    let Event::OnRecordAsGone(found) = event else { panic!("{event:?}") };
    assert_eq!(found.runner, "gone");
    assert!(matches!(world.event().await, Event::Recovered { provider: 0 }));
}

#[tokio::test]
async fn a_runner_of_an_earlier_version_is_on_the_server_that_serves_its_target() {
    let mut world = World::new(
        GitHub::default(),
        "http://127.0.0.1:9",
        r#"
        [[credentials]]
        name = "ours"
        targets = ["acme/*", "acme"]
        token = "ghp_other"
        api_url = "https://ghe.example.com/api/v3"
        "#,
    );
    let on = |host: &str| Labels { host: host.into(), ..labels("with-host") };
    world.provider.insert(on("127.0.0.1:9"), InstanceState::Running);
    world.provider.insert(labels("labels-only"), InstanceState::Running);
    world.executor.recover(0, vec![record("store-only")]).await;
    let mut found = Vec::new();
    loop {
        match world.event().await {
            Event::Adopted(it) => found.push((it.runner, it.target.host.as_str())),
            Event::Recovered { provider: 0 } => break,
            event => panic!("{event:?}"),
        }
    }
    found.sort();
    let expected = [
        ("labels-only", "ghe.example.com"),
        ("store-only", "ghe.example.com"),
        ("with-host", "127.0.0.1:9"),
    ];
    assert_eq!(found, expected.map(|(runner, host)| (runner.to_owned(), host)));
}

#[tokio::test(start_paused = true)]
async fn recovery_waits_until_the_provider_answers() {
    let mut world = World::offline();
    world.provider.set_away(true);
    let works = world.executor.recover_and_watch(Vec::new());
    works.into_iter().for_each(|work| drop(tokio::spawn(work)));
    time::sleep(Duration::from_secs(3600)).await;
    world.no_event();
    assert!(world.executor.provider_error().is_some());

    world.provider.set_away(false);
    assert!(matches!(world.event().await, Event::Recovered { provider: 0 }));
    assert_eq!(world.executor.provider_error(), None);
}

#[tokio::test(start_paused = true)]
async fn watching_resumes_with_a_survey_when_the_provider_is_back() {
    let mut world = World::offline();
    let works = world.executor.recover_and_watch(Vec::new());
    works.into_iter().for_each(|work| drop(tokio::spawn(work)));
    assert!(matches!(world.event().await, Event::Recovered { provider: 0 }));
    assert!(matches!(world.event().await, Event::Survey { .. }));

    world.provider.insert(labels("edge-1"), InstanceState::Running);
    world.provider.set_away(true);
    // Nothing reports it.
    world.provider.exit("edge-1", 1);
    time::sleep(Duration::from_secs(3600)).await;
    world.no_event();

    world.provider.set_away(false);
    let Event::Survey { containers, .. } = world.event().await else { panic!("no survey") };
    assert_eq!(containers[0].container, AdoptedContainer::Exited(1.into()));
    world.provider.exit("edge-1", 1);
    assert!(matches!(
        world.event().await,
        Event::ContainerExited { status: ExitStatus { code: 1, .. }, .. }
    ));
}

#[tokio::test]
async fn a_survey_without_a_response_reports_nothing() {
    let mut world = World::offline();
    world.provider.fail_next("list", ErrorKind::Unavailable);
    world.executor.clone().survey(0).await;
    world.no_event();
}

// Look up

#[tokio::test]
async fn registrations_are_reported_as_github_lists_them() {
    let mut world = World::start().await;
    world.executor.clone().look_up(TARGET.parse().unwrap()).await;
    let Event::Registrations { runners, .. } = world.event().await else { panic!("no answer") };
    let found: Vec<_> = runners.iter().map(|it| (&*it.name, it.id, it.online, it.busy)).collect();
    assert_eq!(found, [("edge-1", 7, true, true)]);

    world.github.refuse(StatusCode::FORBIDDEN);
    world.executor.clone().look_up(TARGET.parse().unwrap()).await;
    let event = world.event().await;
    assert!(matches!(event, Event::LookUpFailed { cause: Cause::Forbidden, .. }), "{event:?}");
}

#[tokio::test]
async fn a_job_that_github_does_not_know_is_over() {
    let mut world = World::start().await;
    let job = JobKey::new(5, 1);
    let target = TARGET.parse().unwrap();
    world.executor.clone().look_up_job(job, "acme/app".into(), target).await;
    let event = world.event().await;
    assert!(matches!(event, Event::JobFound { state: JobState::Completed, .. }), "{event:?}");
}

#[tokio::test]
async fn a_job_that_cannot_be_looked_up_is_reported_with_the_reason() {
    let mut world = World::start().await;
    let job = JobKey::new(5, 1);
    let target: ServerTarget = TARGET.parse().unwrap();
    for (status, expected) in [
        (StatusCode::NOT_FOUND, LookUpFailure::Refused),
        (StatusCode::GONE, LookUpFailure::Refused),
        (StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS, LookUpFailure::Refused),
        (StatusCode::UNAUTHORIZED, LookUpFailure::Unavailable { retry_after: Duration::ZERO }),
    ] {
        world.github.refuse(status);
        world.executor.clone().look_up_job(job, "acme/app".into(), target.clone()).await;
        let event = world.event().await;
        assert!(
            matches!(event, Event::JobLookUpFailed { failure, .. } if failure == expected),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn a_run_that_cannot_be_looked_up_is_reported_with_the_reason() {
    let mut world = World::start().await;
    let host = Host::new("github.com");
    let target: ServerTarget = TARGET.parse().unwrap();
    for (status, expected) in [
        (StatusCode::NOT_FOUND, LookUpFailure::Refused),
        (StatusCode::UNAUTHORIZED, LookUpFailure::Unavailable { retry_after: Duration::ZERO }),
    ] {
        world.github.refuse(status);
        world.executor.clone().look_up_run(host, 9, "acme/app".into(), target.clone()).await;
        let event = world.event().await;
        assert!(
            matches!(event, Event::RunLookUpFailed { run_id: 9, failure, .. } if failure == expected),
            "{event:?}"
        );
    }
}

#[tokio::test]
async fn a_job_that_is_given_up_is_completed_in_the_store() {
    let world = World::offline();
    let key = JobKey::new(5, 1);
    let delivery = Delivery {
        hook: String::new(),
        hook_id: 0,
        hook_target_type: String::new(),
        hook_target_id: 0,
        received_at: CREATED_AT,
        state: JobState::InProgress,
        job: Job {
            key,
            repository: "acme/app".into(),
            organization: String::new(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 0,
            from_fork: None,
            labels: Vec::new(),
            queued_at: CREATED_AT,
            delivery: "guid".into(),
        },
        details: JobDetails::default(),
        conclusion: String::new(),
        runner_name: "someone-elses".into(),
    };
    world.store.deliver(Arc::new([delivery])).await.unwrap();
    world.executor.clone().give_up_job(key, "a reason".into()).await;
    let job = world.store.job(key).await.unwrap().unwrap();
    assert_eq!((job.state, &*job.conclusion), (JobState::Completed, "unknown"));
    assert_eq!(world.store.open_jobs().await.unwrap(), []);
}
