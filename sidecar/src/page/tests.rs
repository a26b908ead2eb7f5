//! Tests of the router with a real store; the test acts as the driver.

use std::time::Duration;

use axum::{
    body::{Body, BodyDataStream},
    http::Request,
};
use futures_util::StreamExt as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tower::ServiceExt as _;

use super::{assets::ASSETS, *};
use crate::{
    config::Config,
    control::{
        clock,
        command::{Command, CommandError},
        snapshot::Snapshot,
    },
};
use edgerunner_scheduler::{
    model::{Host, Job, JobKey, Visibility},
    plan::{self, Event},
};

/// Far longer than a refresh takes: the paused clock only moves while everything is idle.
const A_WHILE: Duration = Duration::from_secs(600);

struct Served {
    router: Router,
    commands: mpsc::Receiver<Command>,
    state: plan::State,
    _directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) =
            Store::open(&directory.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap();
        let (driver, commands) = mpsc::channel(8);
        let settings = Config::load(None, &|_| None).unwrap().planner_settings();
        let state = plan::State::new(settings, 1);
        Self {
            router: router(store, driver, Sidecars::default()),
            commands,
            state,
            _directory: directory,
        }
    }

    async fn get(&self, path: &str) -> Response {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn open_after(&self, number: &Value) -> OpenPage {
        let response = self.get(&format!("/page/events?after={number}")).await;
        OpenPage(response.into_body().into_data_stream())
    }

    async fn open(&self) -> OpenPage {
        let response = self.get("/page/events").await;
        assert_eq!(response.status(), StatusCode::OK);
        OpenPage(response.into_body().into_data_stream())
    }

    async fn answer_a_refresh(&mut self) {
        Self::answer(&mut self.commands, &self.state).await;
    }

    async fn answer(commands: &mut mpsc::Receiver<Command>, state: &plan::State) {
        match commands.recv().await.unwrap() {
            Command::GetSnapshot(reply) => {
                drop(reply.send(Ok(Snapshot::new(state, clock::now()))));
            }
            _ => panic!("the page is read-only"),
        }
    }

    async fn refuse_a_refresh(&mut self, why: &str) {
        match self.commands.recv().await.unwrap() {
            Command::GetSnapshot(reply) => {
                drop(reply.send(Err(CommandError::NotAsked(why.to_owned()))));
            }
            _ => panic!("the page is read-only"),
        }
    }

    fn queue(&mut self, id: u64) {
        self.queue_in_repository(id, Visibility::Private);
    }

    fn queue_in_repository(&mut self, id: u64, visibility: Visibility) {
        let job = Job {
            key: JobKey::new(id, 1),
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility,
            run_id: 0,
            from_fork: None,
            labels: vec!["self-hosted".into()],
            queued_at: clock::now().wall,
            delivery: "guid".into(),
        };
        plan::plan(&mut self.state, Event::JobQueued(job), clock::now());
    }
}

struct OpenPage(BodyDataStream);

impl OpenPage {
    /// The name and content of the next event other than heartbeats.
    async fn next(&mut self) -> (String, Value) {
        loop {
            let text = self.0.next().await.unwrap().unwrap();
            let text = std::str::from_utf8(&text).unwrap();
            let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
            let (name, data) = (line("event: ").unwrap(), line("data: ").unwrap_or_default());
            if name != "beat" {
                return (name.to_owned(), serde_json::from_str(data).unwrap());
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_of_a_public_repository_is_shown_with_the_reason() {
    let mut served = Served::start();
    served.queue_in_repository(7, Visibility::Public);
    let mut page = served.open().await;
    served.answer_a_refresh().await;
    let (_, content) = page.next().await;
    let findings = content["dashboard"]["attention"].as_array().unwrap();
    let finding = findings.iter().find(|it| it["group"] == "blocked").unwrap();
    assert_eq!(finding["jobs"], 1);
    assert!(finding["text"].as_str().unwrap().contains("public_repositories"), "{finding}");
}

#[tokio::test(start_paused = true)]
async fn one_refresh_serves_all_pages_and_then_only_changes_are_sent() {
    let mut served = Served::start();
    let mut pages = Vec::new();
    for _ in 0..8 {
        pages.push(served.open().await);
    }
    served.answer_a_refresh().await;
    for page in &mut pages {
        let (name, content) = page.next().await;
        assert_eq!((name.as_str(), &content["dashboard"]["waiting"]), ("dashboard", &0.into()));
        assert_eq!(content["dashboard"]["pools"]["default"]["max"], 10);
    }
    served.queue(7);
    served.answer_a_refresh().await;
    for page in &mut pages {
        let (name, content) = page.next().await;
        assert_eq!((name.as_str(), &content["dashboard"]["waiting"]), ("change", &1.into()));
        let pools = &content["dashboard"]["pools"];
        assert_eq!(pools, &serde_json::json!({ "default": { "queued": 1 } }));
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_refreshed_while_no_page_is_open_and_the_next_one_sees_nothing_outdated() {
    let mut served = Served::start();
    assert!(timeout(A_WHILE, served.commands.recv()).await.is_err());
    let mut page = served.open().await;
    served.answer_a_refresh().await;
    page.next().await;
    drop(page);
    // One refresh may have begun.
    if timeout(A_WHILE, served.answer_a_refresh()).await.is_ok() {
        assert!(timeout(A_WHILE, served.commands.recv()).await.is_err());
    }
    served.queue(7);
    let mut page = served.open().await;
    served.answer_a_refresh().await;
    let (name, content) = page.next().await;
    assert_eq!((name.as_str(), &content["dashboard"]["waiting"]), ("dashboard", &1.into()));
}

#[tokio::test(start_paused = true)]
async fn a_page_that_cannot_show_the_present_says_so_keeps_what_it_had_and_goes_on_by_itself() {
    let mut served = Served::start();
    let mut page = served.open().await;
    served.answer_a_refresh().await;
    let (_, content) = page.next().await;
    assert_eq!(content["dashboard"].get("outdated"), None);
    served.refuse_a_refresh("no answer").await;
    let (name, content) = page.next().await;
    let outdated = &content["dashboard"]["outdated"];
    assert_eq!(
        (name.as_str(), &outdated["title"]),
        ("change", &"The store does not answer".into())
    );
    assert!(outdated["message"].as_str().unwrap().contains("no answer"), "{outdated}");
    assert!(outdated["since_ms"].is_u64(), "{outdated}");
    assert_eq!(content["dashboard"].get("pools"), None, "unchanged");
    // One that is opened now is sent the same.
    let mut later = served.open().await;
    let (name, content) = later.next().await;
    assert_eq!((name.as_str(), &content["dashboard"]["outdated"]), ("dashboard", outdated));
    served.answer_a_refresh().await;
    let (_, content) = page.next().await;
    assert_eq!(content["dashboard"]["outdated"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_has_the_state_and_the_page_is_sent_what_changes_after_it() {
    let mut served = Served::start();
    let (response, ()) = tokio::join!(
        async {
            let request = Request::get("/").body(Body::empty()).unwrap();
            served.router.clone().oneshot(request).await.unwrap()
        },
        Served::answer(&mut served.commands, &served.state),
    );
    let html = axum::body::to_bytes(response.into_body(), 1_000_000).await.unwrap();
    let html = String::from_utf8(html.to_vec()).unwrap();
    let (_, first) = html.split_once("id=\"first\">").unwrap();
    let (first, _) = first.split_once("</script>").unwrap();
    let first: Value = serde_json::from_str(first).unwrap();
    assert_eq!(first["dashboard"]["pools"]["default"]["max"], 10);

    let mut page = served.open_after(&first["number"]).await;
    served.queue(7);
    served.answer_a_refresh().await;
    let (name, content) = page.next().await;
    assert_eq!((name.as_str(), &content["dashboard"]["waiting"]), ("change", &1.into()));
    // One whose state is too old, or of another process, is sent everything.
    let mut other = served.open_after(&1.into()).await;
    assert_eq!(other.next().await.0, "dashboard");
}

#[tokio::test(start_paused = true)]
async fn too_many_pages_are_rejected_until_one_is_closed() {
    let served = Served::start();
    let mut pages = Vec::new();
    for _ in 0..64 {
        pages.push(served.open().await);
    }
    assert_eq!(served.get("/page/events").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    pages.pop();
    served.open().await;
}

#[tokio::test]
async fn every_response_forbids_other_origins() {
    let served = Served::start();
    for path in ["/", "/page/main.js", "/page/events", "/page/jobs/1", "/page/runners/a"] {
        let response = served.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        for (name, value) in HEADERS {
            assert_eq!(response.headers()[&name], value, "{path}");
        }
    }
    for forbidden in ["unsafe", "http:", "https:", "*"] {
        assert!(!POLICY.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn the_page_names_only_what_is_served_and_writes_no_markup() {
    let paths: Vec<String> = ASSETS.iter().map(|(name, ..)| format!("/page/{name}")).collect();
    let (_, _, html) = ASSETS[0];
    let named = html.split('"').filter(|text| text.starts_with('/'));
    // Envoy serves that one to people who signed in.
    for path in named.filter(|path| *path != "/oauth2/sign-out") {
        assert!(paths.iter().any(|known| known == path), "{path}");
    }
    for (name, _, content) in ASSETS {
        for import in content.lines().filter(|line| line.starts_with("import ")) {
            let file = import.split("\"./").nth(1).unwrap().trim_end_matches("\";");
            assert!(paths.contains(&format!("/page/{file}")), "{name}: {import}");
        }
        for markup in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
            assert!(!content.contains(markup), "{name}: {markup}");
        }
    }
}

#[tokio::test]
async fn an_unknown_job_or_runner_is_reported_as_such() {
    let served = Served::start();
    for (path, expected) in
        [("/page/jobs/1", "null"), ("/page/jobs?run=1", "[]"), ("/page/runners/a", "null")]
    {
        let body = served.get(path).await.into_body();
        assert_eq!(axum::body::to_bytes(body, 100).await.unwrap(), expected, "{path}");
    }
    assert_eq!(served.get("/page/jobs/x").await.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_heartbeat_has_data_because_browsers_drop_events_without() {
    let heartbeats = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(heartbeat())]);
    let body = Sse::new(heartbeats).into_response().into_body();
    let sent = axum::body::to_bytes(body, 1_000).await.unwrap();
    assert_eq!(sent, "event: beat\ndata: 0\n\n");
}
