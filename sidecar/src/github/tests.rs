//! Against a server that answers what each test says and keeps what it was sent.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::SystemTime;

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

mod limits;
mod network;
mod statuses;
mod token_info;

const TOKEN: &str = "ghp_neverToBeSeen";

struct Seen {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    fn header(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

struct Server {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Server {
    async fn start(answer: impl Fn(&Seen) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = seen.clone();
        let handler = move |method: Method, uri: Uri, headers: HeaderMap, body: Bytes| async move {
            let body = serde_json::from_slice(&body).unwrap_or_default();
            let request = Seen { method, uri, headers, body };
            let response = answer(&request);
            kept.lock().unwrap().push(request);
            response
        };
        tokio::spawn(axum::serve(listener, axum::Router::new().fallback(handler)).into_future());
        Self { address, seen }
    }

    async fn always(status: u16, headers: &'static [(&str, &str)], body: &'static str) -> Self {
        Self::start(move |_| answer(status, headers, body)).await
    }

    fn github(&self) -> GitHub {
        client(&format!("http://{}", self.address))
    }

    fn only(&self) -> Seen {
        let mut seen = self.seen.lock().unwrap();
        assert_eq!(seen.len(), 1);
        seen.remove(0)
    }

    fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

fn settings(api_url: &str) -> Settings {
    Settings {
        name: "one".into(),
        api_url: api_url.to_owned(),
        identity: Identity::Token(SecretString::from(TOKEN).into()),
        ca: Vec::new(),
        proxy: None,
        timeout: Duration::from_millis(500),
    }
}

fn client(api_url: &str) -> GitHub {
    GitHub::new(settings(api_url)).unwrap()
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<String>) -> Response {
    let mut response = body.into().into_response();
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    for (name, value) in headers {
        let name = HeaderName::try_from(*name).unwrap();
        response.headers_mut().append(name, value.parse().unwrap());
    }
    response
}

fn organization() -> Target {
    Target::Organization("acme".into())
}

fn repository() -> Target {
    Target::Repository { owner: "acme".into(), name: "app".into() }
}

fn new_runner() -> NewRunner {
    NewRunner {
        name: "edge-1".into(),
        labels: vec!["self-hosted".into(), "linux".into()],
        group: RunnerGroup::Id(1),
        work_folder: "_work".into(),
    }
}

const JIT_REPLY: &str = r#"{"runner":{"id":23,"name":"edge-1","os":"unknown","status":"offline","busy":false,
    "labels":[{"name":"self-hosted"}]},"encoded_jit_config":"c2VjcmV0"}"#;

fn registration_reply(life: Duration) -> String {
    let expires = octocrab_time(SystemTime::now() + life);
    json!({ "token": "AABF3", "expires_at": expires }).to_string()
}

/// RFC 3339, as GitHub writes it, by way of octocrab's own type.
fn octocrab_time(at: SystemTime) -> Value {
    let mut token: octocrab::models::actions::SelfHostedRunnerToken = serde_json::from_value(
        json!({ "token": "", "expires_at": "2026-01-01T00:00:00.000-08:00" }),
    )
    .unwrap();
    token.expires_at = at.into();
    serde_json::to_value(token).unwrap()["expires_at"].clone()
}

#[tokio::test]
async fn every_call_bears_githubs_headers_once() {
    let server = Server::always(201, &[], JIT_REPLY).await;
    server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.header("accept"), ["application/vnd.github+json"]);
    assert_eq!(seen.header("x-github-api-version"), ["2022-11-28"]);
    assert_eq!(seen.header("user-agent"), [concat!("edgerunner/", env!("CARGO_PKG_VERSION"))]);
    assert_eq!(seen.header("authorization"), [format!("Bearer {TOKEN}")]);
    assert_eq!(seen.header("content-type"), ["application/json"]);
}

#[tokio::test]
async fn a_jit_configuration_is_asked_for() {
    let server = Server::always(201, &[], JIT_REPLY).await;
    let runner = server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    assert_eq!((runner.id, runner.encoded_jit_config.expose_secret()), (23, "c2VjcmV0"));
    assert!(!format!("{runner:?}").contains("c2VjcmV0"));

    let seen = server.only();
    assert_eq!(seen.method, Method::POST);
    assert_eq!(seen.uri, "/orgs/acme/actions/runners/generate-jitconfig");
    let expected = json!({
        "name": "edge-1",
        "labels": ["self-hosted", "linux"],
        "runner_group_id": 1,
        "work_folder": "_work",
    });
    assert_eq!(seen.body, expected);
}

#[tokio::test]
async fn each_scope_has_its_path_and_names_are_encoded() {
    for (target, path) in [
        (repository(), "/repos/acme/app/actions/runners/7"),
        (organization(), "/orgs/acme/actions/runners/7"),
        (Target::Enterprise("big".into()), "/enterprises/big/actions/runners/7"),
        (
            Target::Repository { owner: "a/b".into(), name: "c?d#e f%".into() },
            "/repos/a%2Fb/c%3Fd%23e%20f%25/actions/runners/7",
        ),
    ] {
        let server = Server::always(204, &[], "").await;
        server.github().remove_runner(&target, 7).await.unwrap();
        assert_eq!(server.only().uri, path);
    }
}

#[tokio::test]
async fn an_enterprise_servers_base_path_is_kept_on_every_page() {
    const FIRST: &str = "/api/v3/orgs/acme/actions/runners?per_page=100";
    const SECOND: &str = "/api/v3/orgs/acme/actions/runners?per_page=100&page=2";
    let server = Server::start(|seen| {
        let next = format!("<http://{}{SECOND}>; rel=\"next\"", seen.header("host")[0]);
        let links = [("link", next.as_str())];
        let links = if seen.uri == FIRST { &links[..] } else { &[] };
        answer(200, links, r#"{"runners":[]}"#)
    })
    .await;
    for slash in ["", "/"] {
        let github = client(&format!("http://{}/api/v3{slash}", server.address));
        github.runners(&organization()).await.unwrap();
    }
    let seen = server.seen.lock().unwrap();
    let uris: Vec<_> = seen.iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(uris, [FIRST, SECOND, FIRST, SECOND]);
}

fn in_group(name: &str) -> NewRunner {
    NewRunner { group: RunnerGroup::Name(name.into()), ..new_runner() }
}

/// Whose second page has the group `large`, with the id that is given.
async fn github_with_groups(large: Arc<Mutex<u64>>) -> Server {
    Server::start(move |seen| {
        let large = *large.lock().unwrap();
        let path = seen.uri.path();
        let Some(scope) = path.strip_suffix("/actions/runner-groups") else {
            let known = seen.body["runner_group_id"] == large;
            return answer(if known { 201 } else { 404 }, &[], if known { JIT_REPLY } else { "" });
        };
        let page = |id: u64, name: &str| {
            json!({ "total_count": 2, "runner_groups": [{ "id": id, "name": name }] }).to_string()
        };
        match seen.uri.query() {
            Some("per_page=100") => {
                let host = seen.header("host")[0];
                let next = format!("<http://{host}{scope}/actions/runner-groups?page=2>; rel=next");
                answer(200, &[("link", &next)], page(1, "Default"))
            }
            _ => answer(200, &[], page(large, "large")),
        }
    })
    .await
}

#[tokio::test]
async fn a_group_is_looked_up_by_its_name_once_for_each_target() {
    let server = github_with_groups(Arc::new(Mutex::new(7))).await;
    let (github, runner) = (server.github(), in_group("large"));
    for target in [organization(), Target::Enterprise("big".into())] {
        let asked = (0..5).map(|_| github.jit_config(&target, &runner));
        futures_util::future::try_join_all(asked).await.unwrap();
    }
    let paths = paths(&server);
    let count = |path: &str| paths.iter().filter(|it| *it == path).count();
    for scope in ["/orgs/acme", "/enterprises/big"] {
        assert_eq!(count(&format!("{scope}/actions/runner-groups")), 2, "{paths:?}");
        assert_eq!(count(&format!("{scope}/actions/runners/generate-jitconfig")), 5, "{paths:?}");
    }
    let seen = server.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().body["runner_group_id"], 7);
}

#[tokio::test]
async fn a_group_that_is_refused_is_looked_up_again() {
    let large = Arc::new(Mutex::new(7));
    let server = github_with_groups(large.clone()).await;
    let (github, runner) = (server.github(), in_group("large"));
    github.jit_config(&organization(), &runner).await.unwrap();
    *large.lock().unwrap() = 8;
    let error = github.jit_config(&organization(), &runner).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotFound);
    assert!(error.message.contains("org:acme in group large"), "{error}");
    github.jit_config(&organization(), &runner).await.unwrap();
}

#[tokio::test]
async fn a_group_that_is_missing_is_told_with_those_that_are_there() {
    let server = github_with_groups(Arc::new(Mutex::new(7))).await;
    let error = server.github().jit_config(&organization(), &in_group("lrge")).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotFound);
    assert!(error.message.contains("runner group lrge of org:acme"), "{error}");
    assert!(error.message.ends_with("Default, large"), "{error}");
    assert_eq!(server.count(), 2, "no runner is asked for");
}

#[tokio::test]
async fn twenty_waiters_share_one_registration_token() {
    let server =
        Server::start(|_| answer(201, &[], registration_reply(Duration::from_secs(3600)))).await;
    let github = server.github();
    let target = organization();
    let asked = (0..20).map(|_| github.registration_token(&target));
    for token in futures_util::future::join_all(asked).await {
        assert_eq!(token.unwrap().expose_secret(), "AABF3");
    }
    github.registration_token(&target).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.header("content-length"), ["0"]);
    assert_eq!(
        (seen.method.clone(), seen.uri.path()),
        (Method::POST, "/orgs/acme/actions/runners/registration-token")
    );

    github.registration_token(&repository()).await.unwrap();
    assert_eq!(server.count(), 1, "another target has its own token");
}

#[tokio::test]
async fn a_registration_token_near_its_end_is_not_handed_out_again() {
    let server =
        Server::start(|_| answer(201, &[], registration_reply(Duration::from_secs(299)))).await;
    let github = server.github();
    github.registration_token(&organization()).await.unwrap();
    github.registration_token(&organization()).await.unwrap();
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn a_registration_tokens_life_is_measured_by_githubs_clock() {
    let server = Server::start(|_| {
        let theirs = SystemTime::now() - Duration::from_secs(2 * 3600);
        let body = json!({
            "token": "AABF3",
            "expires_at": octocrab_time(theirs + Duration::from_secs(3600)),
        });
        answer(201, &[("date", &httpdate::fmt_http_date(theirs))], body.to_string())
    })
    .await;
    let github = server.github();
    github.registration_token(&organization()).await.unwrap();
    github.registration_token(&organization()).await.unwrap();
    assert_eq!(server.count(), 1);
}

#[tokio::test]
async fn waiters_share_a_failure_and_the_next_caller_tries_again() {
    let server = Server::always(418, &[], "").await;
    let github = server.github();
    let target = organization();
    let asked = (0..20).map(|_| github.registration_token(&target));
    for token in futures_util::future::join_all(asked).await {
        assert_eq!(token.unwrap_err().cause, Cause::UnexpectedAnswer);
    }
    assert_eq!(server.count(), 1);
    github.registration_token(&target).await.unwrap_err();
    assert_eq!(server.count(), 2);
}

#[tokio::test]
async fn runners_are_listed_over_all_pages() {
    let server = Server::start(|seen| {
        let page = |id: u64, status: &str| {
            json!({ "total_count": 2, "runners": [{
                "id": id, "name": format!("edge-{id}"), "os": "linux", "status": status, "busy": id == 2,
                "labels": [{ "id": 1, "name": "self-hosted", "type": "read-only" }, { "name": "gpu" }],
            }] })
            .to_string()
        };
        match seen.uri.query() {
            Some("per_page=100") => {
                let next = format!(
                    "<http://{}/orgs/acme/actions/runners?per_page=100&page=2>; rel=\"next\"",
                    seen.header("host")[0],
                );
                answer(200, &[("link", &next)], page(1, "offline"))
            }
            _ => answer(200, &[], page(2, "online")),
        }
    })
    .await;
    let runners = server.github().runners(&organization()).await.unwrap();
    let runner = |id: u64, up: bool| RegisteredRunner {
        id,
        name: format!("edge-{id}"),
        online: up,
        busy: up,
        labels: vec!["self-hosted".into(), "gpu".into()],
    };
    assert_eq!(runners, [runner(1, false), runner(2, true)]);
}

#[tokio::test]
async fn a_page_on_another_host_is_not_followed() {
    let thief = Server::always(200, &[], r#"{"runners":[]}"#).await;
    let link = format!("<http://{}/orgs/acme/actions/runners?page=2>; rel=\"next\"", thief.address);
    let server = Server::start(move |_| answer(200, &[("link", &link)], r#"{"runners":[]}"#)).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.cause, Cause::UnexpectedAnswer);
    assert!(error.message.contains("not followed"), "{error}");
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn pages_without_end_end() {
    let link = "</orgs/acme/actions/runners?page=2>; rel=\"next\"";
    let server = Server::start(move |_| answer(200, &[("link", link)], r#"{"runners":[]}"#)).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.cause, Cause::UnexpectedAnswer);
    assert_eq!(server.count(), client::PAGES_MAX);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let thief = Server::always(201, &[], JIT_REPLY).await;
    let location = format!("http://{}/", thief.address);
    for status in [301, 302, 307, 308] {
        let location = location.clone();
        let server = Server::start(move |_| answer(status, &[("location", &location)], "")).await;
        let error = server.github().jit_config(&repository(), &new_runner()).await.unwrap_err();
        assert_eq!(error.cause, Cause::UnexpectedAnswer);
        assert!(error.message.contains("redirects are not followed"), "{error}");
    }
    assert_eq!(thief.count(), 0);
}

#[tokio::test]
async fn a_removal_tells_removed_absent_and_busy_apart() {
    for (status, expected) in
        [(204, Removal::Removed), (404, Removal::NotFound), (422, Removal::Busy)]
    {
        let server = Server::always(status, &[], "").await;
        assert_eq!(server.github().remove_runner(&organization(), 7).await.unwrap(), expected);
        assert_eq!(server.only().method, Method::DELETE);
    }
    let server = Server::always(401, &[], r#"{"message":"Bad credentials"}"#).await;
    let error = server.github().remove_runner(&organization(), 7).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorized);
}

#[tokio::test]
async fn a_jobs_status_is_read() {
    let server = Server::always(
        200,
        &[],
        r#"{"id":9,"status":"completed","conclusion":"failure","runner_name":"edge-1","run_attempt":2}"#,
    )
    .await;
    let status = server.github().job("acme", "app", 9).await.unwrap().unwrap();
    let expected = JobStatus {
        status: JobProgress::Completed,
        conclusion: Some("failure".into()),
        runner_name: Some("edge-1".into()),
        run_attempt: 2,
    };
    assert_eq!(status, expected);
    assert_eq!(server.only().uri, "/repos/acme/app/actions/jobs/9");
}

#[tokio::test]
async fn a_job_may_be_held_or_gone() {
    let held = r#"{"id":9,"status":"waiting","conclusion":null,"runner_name":null}"#;
    let server = Server::always(200, &[], held).await;
    let status = server.github().job("acme", "app", 9).await.unwrap().unwrap();
    assert_eq!((status.status, status.run_attempt), (JobProgress::Held, 1));

    let server = Server::start(|request| match request.uri.path() {
        "/repos/acme/app/actions/runs" => answer(200, &[], r#"{"total_count":0}"#),
        _ => answer(404, &[], r#"{"message":"Not Found"}"#),
    })
    .await;
    assert_eq!(server.github().job("acme", "app", 9).await.unwrap(), None);
}

#[tokio::test]
async fn a_job_that_the_token_may_not_see_does_not_pass_for_gone() {
    let server = Server::always(404, &[], r#"{"message":"Not Found"}"#).await;
    let error = server.github().job("acme", "app", 9).await.unwrap_err();
    assert_eq!(error.cause, Cause::NotFound);
}

#[tokio::test]
async fn each_status_has_its_cause() {
    for (status, cause) in [
        (400, Cause::Invalid),
        (401, Cause::Unauthorized),
        (403, Cause::Forbidden),
        (404, Cause::NotFound),
        (422, Cause::Invalid),
        (429, Cause::RateLimited),
        (500, Cause::Server),
        (503, Cause::Server),
        (200, Cause::UnexpectedAnswer),
        (418, Cause::UnexpectedAnswer),
    ] {
        let server = Server::always(status, &[], r#"{"message":"As GitHub says"}"#).await;
        let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.cause, cause, "{status}");
        let line = error.to_string();
        assert!(line.contains(&status.to_string()) && line.contains("As GitHub says"), "{line}");
        assert!(
            line.contains("edge-1") && line.contains("org:acme") && !line.contains('\n'),
            "{line}"
        );
        assert_eq!(server.count(), 1, "no call is repeated");
    }
}

/// Where a runner of the name that is asked for is registered, in this state.
async fn github_with_the_name_taken(online: bool, busy: bool) -> Server {
    let there = Arc::new(Mutex::new(true));
    Server::start(move |seen| {
        let mut there = there.lock().unwrap();
        match seen.method {
            Method::GET => {
                assert_eq!(seen.uri.query(), Some("name=edge-1&per_page=100"));
                let status = if online { "online" } else { "offline" };
                let runner = json!({ "id": 5, "name": "Edge-1", "status": status, "busy": busy, "labels": [] });
                let other = json!({ "id": 4, "name": "edge-10", "status": status, "busy": busy, "labels": [] });
                let listed = if *there { vec![other, runner] } else { vec![other] };
                answer(200, &[], json!({ "total_count": 1, "runners": listed }).to_string())
            }
            Method::DELETE => {
                assert_eq!(seen.uri.path(), "/orgs/acme/actions/runners/5");
                *there = false;
                answer(204, &[], "")
            }
            _ if *there => answer(409, &[], r#"{"message":"Already exists"}"#),
            _ => answer(201, &[], JIT_REPLY),
        }
    })
    .await
}

#[tokio::test]
async fn a_name_taken_by_a_registration_that_was_lost_is_freed() {
    let server = github_with_the_name_taken(false, false).await;
    server.github().jit_config(&organization(), &new_runner()).await.unwrap();
    let seen = server.seen.lock().unwrap();
    let methods: Vec<_> = seen.iter().map(|seen| seen.method.as_str()).collect();
    assert_eq!(methods, ["POST", "GET", "DELETE", "POST"]);
}

#[tokio::test]
async fn a_name_taken_by_a_runner_that_is_up_is_left_to_it() {
    for (online, busy) in [(true, false), (false, true), (true, true)] {
        let server = github_with_the_name_taken(online, busy).await;
        let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
        assert_eq!(error.cause, Cause::NameTaken);
        assert_eq!(server.count(), 2);
    }
}

#[tokio::test]
async fn rate_limits_say_how_long() {
    let limited = |status, headers| async move {
        let server =
            Server::always(status, headers, r#"{"message":"API rate limit exceeded"}"#).await;
        let error = server.github().runners(&organization()).await.unwrap_err();
        (error.cause, error.retry_after.map(|wait| wait.as_secs()))
    };
    assert_eq!(limited(403, &[("retry-after", "7")]).await, (Cause::RateLimited, Some(7)));
    assert_eq!(limited(429, &[]).await, (Cause::RateLimited, Some(60)));
    let gone_by: &[_] = &[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "1000000000")];
    assert_eq!(limited(403, gone_by).await, (Cause::RateLimited, Some(1)));
}

#[tokio::test]
async fn the_details_of_a_refusal_are_told() {
    let body = r#"{"message":"Validation Failed","errors":[{"resource":"Runner","field":"runner_group_id","code":"missing"},"and more"]}"#;
    let server = Server::always(422, &[], body).await;
    let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert!(
        error.message.contains("Validation Failed: runner_group_id missing, and more"),
        "{error}"
    );
}

#[tokio::test]
async fn a_page_of_html_is_not_dumped() {
    let html = [("content-type", "text/html")];
    let server =
        Server::start(move |_| answer(500, &html, "<html>unicorn</html>".repeat(100))).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Server);
    assert!(error.message.contains("2000 bytes") && !error.message.contains("unicorn"), "{error}");
}

#[tokio::test]
async fn a_credential_in_an_answer_goes_nowhere() {
    let echo = json!({ "message": format!("Bad credentials: {TOKEN}") }).to_string();
    let server = Server::start(move |_| answer(401, &[], echo.clone())).await;
    let error = server.github().runners(&organization()).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");

    let server =
        Server::always(201, &[], r#"{"runner":{"id":"x"},"encoded_jit_config":"c2VjcmV0"}"#).await;
    let error = server.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::UnexpectedAnswer);
    assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
}

#[tokio::test]
async fn a_hang_times_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let error = github.runners(&organization()).await.unwrap_err();
    assert_eq!(error.cause, Cause::TimedOut);
}

#[tokio::test]
async fn at_most_twenty_calls_are_under_way() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let mut calls = tokio::task::JoinSet::new();
    for id in 0..50 {
        let github = github.clone();
        calls.spawn(async move { github.job("acme", "app", id).await });
    }
    let mut held = Vec::new();
    while let Ok(Ok((stream, _))) =
        tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
    {
        held.push(stream);
    }
    assert_eq!(held.len(), 20);
}

#[tokio::test]
async fn a_connection_closed_after_the_request_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let github = client(&format!("http://{}", listener.local_addr().unwrap()));
    let connections = tokio::spawn(async move {
        let mut count = 0;
        while let Ok(Ok((mut stream, _))) =
            tokio::time::timeout(Duration::from_millis(200), listener.accept()).await
        {
            count += 1;
            let _ = stream.read(&mut [0; 4096]).await;
        }
        count
    });
    let error = github.jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert_eq!(connections.await.unwrap(), 1);
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(&format!("http://{address}")).runners(&organization()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unreachable);
    assert!(error.message.contains("refused"), "{error}");
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused() {
    for (api_url, token) in [
        ("api.github.com", TOKEN),
        ("ftp://api.github.com", TOKEN),
        ("https://user:pass@api.github.com", TOKEN),
        ("https://api.github.com", "ghp_line\nbreak"),
    ] {
        let identity = Identity::Token(SecretString::from(token).into());
        let error = GitHub::new(Settings { identity, ..settings(api_url) }).err().unwrap();
        assert_eq!(error.cause, Cause::Invalid);
        assert!(!error.message.contains("ghp_") && !error.message.contains("pass"), "{error}");
    }
}

/// A token's file, and GitHub which takes these tokens alone.
struct Rotation {
    directory: tempfile::TempDir,
    accepted: Arc<Mutex<Vec<String>>>,
    server: Server,
}

impl Rotation {
    async fn start() -> Self {
        let accepted = Arc::new(Mutex::new(vec!["ghp_0".to_owned()]));
        let taken = accepted.clone();
        let server = Server::start(move |seen| {
            let bearer = seen.header("authorization")[0];
            let known = taken.lock().unwrap().iter().any(|own| bearer == format!("Bearer {own}"));
            answer(if known { 201 } else { 401 }, &[], if known { JIT_REPLY } else { "" })
        })
        .await;
        let rotation = Self { directory: tempfile::tempdir().unwrap(), accepted, server };
        rotation.write("ghp_0");
        rotation
    }

    fn file(&self) -> std::path::PathBuf {
        self.directory.path().join("token")
    }

    fn write(&self, token: &str) {
        let new = self.directory.path().join("new");
        std::fs::write(&new, token).unwrap();
        std::fs::rename(new, self.file()).unwrap();
    }

    fn github(&self) -> GitHub {
        let token = Secret { value: "ghp_0".into(), file: Some(self.file()) };
        let api_url = format!("http://{}", self.server.address);
        let identity = Identity::Token(token);
        GitHub::new(Settings { identity, ..settings(&api_url) }).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_rotated_under_load_without_a_failure() {
    let rotation = Rotation::start().await;
    let github = rotation.github();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (github, stop) = (github.clone(), stop.clone());
        callers.spawn(async move {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                github.jit_config(&organization(), &new_runner()).await?;
            }
            Ok::<_, Error>(())
        });
    }
    for number in 1..=20 {
        let token = format!("ghp_{number}");
        rotation.accepted.lock().unwrap().push(token.clone());
        rotation.write(&token);
        // Others of the old one are under way.
        rotation.accepted.lock().unwrap().remove(0);
        let seen = rotation.server.count();
        while rotation.server.count() < seen + 40 && callers.try_join_next().is_none() {
            tokio::task::yield_now().await;
        }
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let ends = callers.join_all().await;
    assert_eq!(ends.len(), 8, "one failed");
    ends.into_iter().collect::<Result<(), Error>>().unwrap();
}

#[tokio::test]
async fn a_token_that_is_refused_and_not_replaced_is_tried_once() {
    let rotation = Rotation::start().await;
    rotation.accepted.lock().unwrap().clear();
    let error = rotation.github().jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorized);
    assert_eq!(rotation.server.count(), 1);
}

#[tokio::test]
async fn the_key_of_an_app_may_be_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("app.pem");
    let server = github_of_an_app(Duration::from_secs(60), |_| false).await;
    let key = Secret { value: PRIVATE_KEY.into(), file: Some(file.clone()) };
    let github = app_with_key(server.address, key);
    let jwt = async || {
        github.jit_config(&organization(), &new_runner()).await.unwrap();
        let seen = server.seen.lock().unwrap();
        let asked = seen.iter().rfind(|seen| seen.uri.path().ends_with("/access_tokens")).unwrap();
        verified_by(OTHER_PRIVATE_KEY, asked.header("authorization")[0])
    };
    std::fs::write(&file, PRIVATE_KEY).unwrap();
    assert!(!jwt().await);
    std::fs::write(&file, OTHER_PRIVATE_KEY).unwrap();
    assert!(jwt().await);
    std::fs::write(&file, &OTHER_PRIVATE_KEY[..100]).unwrap();
    assert!(jwt().await, "half of a key leaves the last one");
}

/// Whether signing the same again with this key gives the same.
fn verified_by(key: &str, bearer: &str) -> bool {
    let token = bearer.strip_prefix("Bearer ").unwrap();
    let (message, signature) = token.rsplit_once('.').unwrap();
    let key = jsonwebtoken::EncodingKey::from_rsa_pem(key.as_bytes()).unwrap();
    let algorithm = jsonwebtoken::Algorithm::RS256;
    jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap() == signature
}

/// Made for these tests alone, as the other.
const OTHER_PRIVATE_KEY: &str = include_str!("test-app-rotated.pem");

/// Made for these tests alone.
const PRIVATE_KEY: &str = include_str!("test-app.pem");

fn app(address: SocketAddr) -> GitHub {
    app_with_key(address, SecretString::from(PRIVATE_KEY).into())
}

fn app_with_key(address: SocketAddr, private_key: Secret) -> GitHub {
    let identity = Identity::App { id: "12345".into(), private_key };
    GitHub::new(Settings { identity, ..settings(&format!("http://{address}")) }).unwrap()
}

/// GitHub as an App sees it. Each token that it gives out is another.
async fn github_of_an_app(
    lifetime: Duration,
    refuse: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Server {
    let given = Arc::new(Mutex::new(0));
    Server::start(move |seen| {
        let path = seen.uri.path();
        let bearer = seen.header("authorization")[0].to_owned();
        if path.ends_with("/installation") {
            return answer(200, &[], r#"{"id":77,"account":{"login":"acme"}}"#);
        }
        if path == "/app/installations/77/access_tokens" {
            let mut given = given.lock().unwrap();
            *given += 1;
            let expires =
                jiff::Timestamp::now() + jiff::SignedDuration::try_from(lifetime).unwrap();
            let body =
                json!({ "token": format!("ghs_{given}"), "expires_at": expires.to_string() });
            return answer(201, &[], body.to_string());
        }
        if refuse(&bearer) {
            return answer(401, &[], r#"{"message":"Bad credentials"}"#);
        }
        answer(201, &[], JIT_REPLY)
    })
    .await
}

fn paths(server: &Server) -> Vec<String> {
    server.seen.lock().unwrap().iter().map(|seen| seen.uri.path().to_owned()).collect()
}

fn claims(seen: &Seen) -> Value {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    let bearer = seen.header("authorization")[0].strip_prefix("Bearer ").unwrap();
    let claims = bearer.split('.').nth(1).unwrap();
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

#[tokio::test]
async fn many_waiters_of_an_app_share_one_token() {
    let server = github_of_an_app(Duration::from_secs(3_600), |_| false).await;
    let github = app(server.address);
    let (organization, repository, runner) = (organization(), repository(), new_runner());
    let calls = (0..10).map(|_| github.jit_config(&organization, &runner));
    futures_util::future::try_join_all(calls).await.unwrap();
    // The repository's owner is that organization: the same installation.
    github.jit_config(&repository, &runner).await.unwrap();
    let paths = paths(&server);
    let count = |end: &str| paths.iter().filter(|path| path.ends_with(end)).count();
    assert_eq!((count("/installation"), count("/access_tokens")), (1, 1), "{paths:?}");
    assert_eq!(paths[0], "/orgs/acme/installation");
    let seen = server.seen.lock().unwrap();
    let now = jiff::Timestamp::now().as_second();
    let claims = claims(&seen[0]);
    assert_eq!(claims["iss"], "12345");
    assert!(claims["iat"].as_i64().unwrap() <= now - 55);
    assert!((now + 500..=now + 600).contains(&claims["exp"].as_i64().unwrap()), "{claims}");
    assert_eq!(seen.last().unwrap().header("authorization"), ["Bearer ghs_1"]);
}

#[tokio::test]
async fn a_token_of_an_app_is_renewed_before_it_expires() {
    // Less than what must be left of it.
    let server = github_of_an_app(Duration::from_secs(60), |_| false).await;
    let github = app(server.address);
    for _ in 0..2 {
        github.jit_config(&repository(), &new_runner()).await.unwrap();
    }
    let paths = paths(&server);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/access_tokens")).count(), 2);
    assert_eq!(paths[0], "/repos/acme/app/installation");
}

#[tokio::test]
async fn a_token_of_an_app_that_expired_early_is_renewed_once_for_all() {
    let server =
        github_of_an_app(Duration::from_secs(3_600), |bearer| bearer.ends_with("_1")).await;
    let github = app(server.address);
    let (organization, runner) = (organization(), new_runner());
    let calls = (0..10).map(|_| github.jit_config(&organization, &runner));
    futures_util::future::try_join_all(calls).await.unwrap();
    let count = paths(&server).iter().filter(|path| path.ends_with("/access_tokens")).count();
    assert_eq!(count, 2);
}

#[tokio::test]
async fn an_app_whose_tokens_are_refused_is_tried_twice_and_no_more() {
    let server = github_of_an_app(Duration::from_secs(3_600), |_| true).await;
    let error = app(server.address).jit_config(&organization(), &new_runner()).await.unwrap_err();
    assert_eq!(error.cause, Cause::Unauthorized);
    assert!(!error.message.contains("ghs_"), "{error}");
    let paths = paths(&server);
    assert_eq!(paths.iter().filter(|path| path.ends_with("/generate-jitconfig")).count(), 2);
}

#[tokio::test]
async fn a_clock_that_is_wrong_does_not_keep_an_app_out() {
    let ahead = 3_600;
    let server = Server::start(move |seen| {
        let bearer = seen.header("authorization")[0].to_owned();
        if bearer == "Bearer ghs_1" {
            return answer(201, &[], JIT_REPLY);
        }
        let now = jiff::Timestamp::now().as_second() + ahead;
        let claims = claims(seen);
        let fits = claims["iat"].as_i64().unwrap() <= now && claims["exp"].as_i64().unwrap() > now;
        let date =
            httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(ahead.unsigned_abs()));
        let headers = [("date", date.as_str())];
        match seen.uri.path() {
            _ if !fits => {
                answer(401, &headers, r#"{"message":"'Expiration time' is in the past"}"#)
            }
            "/orgs/acme/installation" => answer(200, &headers, r#"{"id":1}"#),
            _ => answer(201, &headers, r#"{"token":"ghs_1","expires_at":"2999-01-01T00:00:00Z"}"#),
        }
    })
    .await;
    let github = app(server.address);
    github.jit_config(&organization(), &new_runner()).await.unwrap();
    assert_eq!(server.count(), 4, "{:?}", paths(&server));
}

#[tokio::test]
async fn what_keeps_an_app_out_says_what_to_do() {
    let cause = async |status, target: Target| {
        let server = Server::always(status, &[], "{}").await;
        let error = app(server.address).jit_config(&target, &new_runner()).await.unwrap_err();
        (error.cause, error.message)
    };
    let (refused, message) = cause(401, organization()).await;
    assert_eq!(refused, Cause::Unauthorized);
    assert!(message.contains("app_private_key"), "{message}");
    let (absent, message) = cause(404, repository()).await;
    assert_eq!(absent, Cause::NotFound);
    assert!(message.contains("install it at acme"), "{message}");
    let (enterprise, message) = cause(200, Target::Enterprise("corp".into())).await;
    assert_eq!(enterprise, Cause::Forbidden);
    assert!(message.contains("[[credentials]]"), "{message}");
    let unusable = "-----BEGIN RSA PRIVATE KEY-----\nnot a key".to_owned().into();
    assert!(private_key_problem(&unusable).is_some());
    assert!(private_key_problem(&PRIVATE_KEY.to_owned().into()).is_none());
}

const CORE: [(&str, &str); 4] = [
    ("x-ratelimit-limit", "5000"),
    ("x-ratelimit-remaining", "4321"),
    ("x-ratelimit-reset", "1700000000"),
    ("x-ratelimit-resource", "core"),
];

#[tokio::test]
async fn what_is_left_is_kept_for_each_budget() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/orgs/acme/installation" => answer(200, &CORE, r#"{"id":77}"#),
        "/app/installations/77/access_tokens" => {
            let body = r#"{"token":"ghs_1","expires_at":"2999-01-01T00:00:00Z"}"#;
            answer(201, &CORE, body)
        }
        _ => {
            let mut headers = CORE;
            headers[1].1 = "99";
            answer(200, &headers, r#"{"runners":[]}"#)
        }
    })
    .await;
    let app = app(server.address);
    app.runners(&organization()).await.unwrap();
    let budget = |remaining| Budget { limit: 5_000, remaining, reset: 1_700_000_000 };
    let both = [(String::new(), budget(4_321)), ("acme".to_owned(), budget(99))];
    assert_eq!(app.budgets(), both);

    let token = server.github();
    token.runners(&organization()).await.unwrap();
    assert_eq!(token.budgets(), [(String::new(), budget(99))]);
}

#[tokio::test]
async fn a_refused_token_tells_nothing_of_what_is_left() {
    let server = Server::always(401, &[("x-ratelimit-limit", "60")], "{}").await;
    let github = server.github();
    github.runners(&organization()).await.unwrap_err();
    assert_eq!(github.budgets(), []);
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() {
    let etag = r#"W/"one""#;
    let server = Server::start(move |seen| {
        let host = seen.header("host")[0];
        let next = format!("<http://{host}/orgs/acme/hooks/1/deliveries?cursor=2>; rel=\"next\"");
        match seen.header("if-none-match")[..] {
            [known] if known == etag => answer(304, &[("etag", etag)], ""),
            _ => answer(200, &[("etag", etag), ("link", &next)], DELIVERIES),
        }
    })
    .await;
    let github = server.github();
    let hook = "orgs/acme/hooks/1".parse().unwrap();
    let first = github.deliveries(&hook, None).await.unwrap();
    let second = github.deliveries(&hook, None).await.unwrap();
    assert_eq!((first.unchanged, second.unchanged), (false, true));
    assert_eq!((&first.items, &first.next), (&second.items, &second.next));
    assert_eq!(first.next.as_deref(), Some("/orgs/acme/hooks/1/deliveries?cursor=2"));
    assert_eq!(server.seen.lock().unwrap()[1].header("if-none-match"), [etag]);
    // Nothing but GET has a condition.
    github.redeliver(&hook, 1).await.unwrap_err();
    assert!(server.seen.lock().unwrap()[2].header("if-none-match").is_empty());
}

const DELIVERIES: &str = r#"[
    {"id":12345678,"guid":"0b989ba4-242f-11e5-81e1-c7b6966d2516",
     "delivered_at":"2019-06-03T00:57:16Z","redelivery":false,"duration":0.27,"status":"OK",
     "status_code":200,"event":"workflow_job","action":"queued","installation_id":123,
     "repository_id":456,"throttled_at":null},
    {"id":123456789,"guid":"0b989ba4-242f-11e5-81e1-c7b6966d2517",
     "delivered_at":"2019-06-04T00:57:16.5Z","redelivery":true,"duration":0.28,
     "status":"failed to connect to host","status_code":502,"event":"ping","action":null,
     "installation_id":null,"repository_id":null}]"#;

#[tokio::test]
async fn deliveries_are_listed_by_hook() {
    for (hook, path) in [
        ("repos/acme/app/hooks/7", "/repos/acme/app/hooks/7/deliveries?per_page=100"),
        ("orgs/acme/hooks/7", "/orgs/acme/hooks/7/deliveries?per_page=100"),
    ] {
        let server = Server::always(200, &[], DELIVERIES).await;
        let page = server.github().deliveries(&hook.parse().unwrap(), None).await.unwrap();
        let delivery = |id, guid: &str, at, status, event: &str, action: &str| Delivery {
            id,
            guid: format!("0b989ba4-242f-11e5-81e1-{guid}"),
            at,
            status,
            event: event.into(),
            action: action.into(),
        };
        let expected = [
            delivery(12345678, "c7b6966d2516", 1_559_523_436_000, 200, "workflow_job", "queued"),
            delivery(123456789, "c7b6966d2517", 1_559_609_836_500, 502, "ping", ""),
        ];
        assert_eq!(page.items, expected);
        assert_eq!((page.next, page.unchanged), (None, false));
        let seen = server.only();
        assert_eq!((seen.method.clone(), seen.uri.to_string()), (Method::GET, path.to_owned()));
        statuses::check_headers(&seen);
    }
}

#[tokio::test]
async fn a_delivery_is_sent_again() {
    let server = Server::always(202, &[], "{}").await;
    server.github().redeliver(&"repos/acme/app/hooks/7".parse().unwrap(), 9).await.unwrap();
    let seen = server.only();
    assert_eq!(seen.method, Method::POST);
    assert_eq!(seen.uri, "/repos/acme/app/hooks/7/deliveries/9/attempts");
    assert_eq!((seen.header("content-length"), &seen.body), (vec!["0"], &Value::Null));
    statuses::check_headers(&seen);
}

#[tokio::test]
async fn an_apps_own_hook_is_asked_about_as_the_app() {
    let server = Server::start(|seen| match seen.method {
        Method::POST => answer(202, &CORE, "{}"),
        _ => answer(200, &CORE, DELIVERIES),
    })
    .await;
    let github = app(server.address);
    assert_eq!(github.deliveries(&WebhookId::App, None).await.unwrap().items.len(), 2);
    github.redeliver(&WebhookId::App, 9).await.unwrap();
    assert_eq!(paths(&server), ["/app/hook/deliveries", "/app/hook/deliveries/9/attempts"]);
    let seen = server.seen.lock().unwrap();
    assert_eq!(claims(&seen[0])["iss"], "12345");
    assert_eq!(claims(&seen[1])["iss"], "12345");
    assert_eq!(github.budgets()[0].0, "");
}

#[tokio::test]
async fn a_token_is_not_sent_where_only_an_app_may_ask() {
    let server = Server::always(200, &[], DELIVERIES).await;
    let error = server.github().deliveries(&WebhookId::App, None).await.unwrap_err();
    assert_eq!((error.cause, server.count()), (Cause::Forbidden, 0));
}

#[tokio::test]
async fn runs_and_their_jobs_are_listed() {
    let server = Server::start(|seen| match seen.uri.path() {
        "/repos/acme/app/actions/runs" => {
            let runs = json!({ "total_count": 1, "workflow_runs": [{ "id": 30433642, "name": "CI" }] });
            answer(200, &[], runs.to_string())
        }
        _ => answer(200, &[], json!({ "total_count": 2, "jobs": [
            { "id": 1, "run_id": 30433642, "run_attempt": 2, "status": "queued", "conclusion": null,
              "created_at": "2020-01-20T09:42:40Z", "started_at": "2020-01-20T09:42:40Z",
              "name": "build", "workflow_name": "CI", "head_branch": "main",
              "html_url": "https://github.com/acme/app/actions/runs/30433642/job/1",
              "labels": ["self-hosted", "gpu"], "runner_id": null },
            { "id": 2, "run_id": 30433642, "status": "waiting", "created_at": "2020-01-20T09:42:40Z",
              "name": "deploy", "workflow_name": null, "head_branch": null, "html_url": null,
              "labels": [] },
        ] }).to_string()),
    })
    .await;
    let github = server.github();
    for status in [RunStatus::Queued, RunStatus::InProgress] {
        let runs = github.runs("acme", "app", status, None).await.unwrap();
        assert_eq!(runs.items, [30433642]);
    }
    let jobs = github.jobs_of_run("acme", "app", 30433642, None).await.unwrap().items;
    let queued = ListedJob {
        id: 1,
        run_id: 30433642,
        run_attempt: 2,
        status: JobProgress::Queued,
        created_at: 1_579_513_360_000,
        name: "build".into(),
        workflow_name: "CI".into(),
        head_branch: "main".into(),
        html_url: "https://github.com/acme/app/actions/runs/30433642/job/1".into(),
        labels: vec!["self-hosted".into(), "gpu".into()],
    };
    assert_eq!(jobs[0], queued);
    assert_eq!((jobs[1].status, jobs[1].run_attempt), (JobProgress::Held, 1));
    let seen = server.seen.lock().unwrap();
    let uris: Vec<_> = seen.iter().map(|request| request.uri.to_string()).collect();
    assert_eq!(
        uris,
        [
            "/repos/acme/app/actions/runs?status=queued&per_page=100",
            "/repos/acme/app/actions/runs?status=in_progress&per_page=100",
            "/repos/acme/app/actions/runs/30433642/jobs?filter=latest&per_page=100",
        ]
    );
    seen.iter().for_each(statuses::check_headers);
}

#[tokio::test]
async fn githubs_addresses_are_asked_for() {
    let server =
        Server::always(200, &[], r#"{"hooks":["192.30.252.0/22"],"web":["192.30.252.0/22"]}"#)
            .await;
    assert_eq!(server.github().webhook_addresses().await.unwrap(), ["192.30.252.0/22"]);
    let seen = server.only();
    assert_eq!((&seen.method, seen.uri.path()), (&Method::GET, "/meta"));
    statuses::check_headers(&seen);
}

#[tokio::test]
async fn each_documented_refusal_of_a_look_for_what_was_missed_has_its_cause() {
    for (status, cause) in [
        (400, Cause::Invalid),
        (401, Cause::Unauthorized),
        (403, Cause::Forbidden),
        (404, Cause::NotFound),
        (422, Cause::Invalid),
        (500, Cause::Server),
        // Nothing was kept that it could confirm.
        (304, Cause::UnexpectedAnswer),
    ] {
        let server = Server::always(status, &[], r#"{"message":"As GitHub says"}"#).await;
        let (github, hook) = (server.github(), "orgs/acme/hooks/1".parse().unwrap());
        let errors = [
            github.deliveries(&hook, None).await.unwrap_err(),
            github.redeliver(&hook, 1).await.unwrap_err(),
            github.runs("acme", "app", RunStatus::Queued, None).await.unwrap_err(),
            github.jobs_of_run("acme", "app", 1, None).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.cause, cause, "{error}");
        }
        let repeats = |method: Method| {
            let seen = server.seen.lock().unwrap();
            seen.iter().filter(|request| request.method == method).count()
        };
        // Nothing is asked for twice where GitHub may have heard it the first time.
        assert_eq!(repeats(Method::POST), 1);
        assert_eq!(repeats(Method::GET) > 3, status == 500);
    }
}

#[tokio::test]
async fn times_that_are_none_are_told() {
    let server = Server::always(
        200,
        &[],
        r#"[{"id":1,"guid":"","delivered_at":"yesterday",
        "status_code":0,"event":"ping"}]"#,
    )
    .await;
    let hook = "orgs/acme/hooks/1".parse().unwrap();
    let error = server.github().deliveries(&hook, None).await.unwrap_err();
    assert!(error.message.contains("RFC 3339"), "{error}");
}
