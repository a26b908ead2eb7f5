//! The REST API: response bodies, statuses and headers.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use edgerunner_sandbox::{JobRequest, Settings};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Answer, TOKEN, World, settings};

const RUNNERS: &str = "/repos/acme/app/actions/runners";

fn runner(name: &str) -> Value {
    json!({"name": name, "runner_group_id": 1, "labels": ["self-hosted", "X64"]})
}

async fn generate(world: &World, body: Value) -> Answer {
    let path = format!("{RUNNERS}/generate-jitconfig");
    world.call(Method::POST, &path, Some(body)).await
}

fn assert_error(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    assert!(body["message"].is_string());
    assert!(body["documentation_url"].is_string());
    assert_eq!(body["status"], json!(status.as_u16().to_string()));
}

#[tokio::test]
async fn a_jit_configuration_has_githubs_format() {
    let world = World::new().await;
    let answer = generate(&world, runner("one")).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    let body = answer.json();
    let runner = &body["runner"];
    assert_eq!(runner["name"], json!("one"));
    assert_eq!(runner["os"], json!("unknown"));
    assert_eq!(runner["status"], json!("offline"));
    assert_eq!(runner["busy"], json!(false));
    assert_eq!(runner["runner_group_id"], json!(1));
    let labels = runner["labels"].as_array().expect("a list");
    let names: Vec<&str> = labels.iter().filter_map(|label| label["name"].as_str()).collect();
    assert_eq!(names, ["self-hosted", "x64"], "lower case, and without default labels");
    assert!(labels.iter().all(|label| label["id"].is_u64() && label["type"].is_string()));

    let decode = |text: &Value| -> Value {
        let bytes = STANDARD.decode(text.as_str().expect("text")).expect("base64");
        serde_json::from_slice(&bytes).expect("JSON")
    };
    let files = decode(&body["encoded_jit_config"]);
    let file = decode(&files[".runner"]);
    // GitHub writes numbers and most truth values as text.
    assert_eq!(file["AgentId"], json!(runner["id"].to_string()));
    assert_eq!(file["AgentName"], json!("one"));
    assert_eq!((&file["PoolId"], &file["PoolName"]), (&json!("1"), &json!("Default")));
    assert_eq!((&file["Ephemeral"], &file["DisableUpdate"]), (&json!("True"), &json!("True")));
    assert_eq!(file["UseV2Flow"], json!(true));
    let broker = file["ServerUrlV2"].as_str().expect("text");
    assert!(broker.starts_with(&world.sandbox.url()) && broker.ends_with('/'), "{broker}");
    assert_eq!(file["GitHubUrl"], json!(format!("{}/acme/app", world.sandbox.url())));
    assert_eq!(file["WorkFolder"], json!("_work"));
    let credentials = decode(&files[".credentials"]);
    assert_eq!(credentials["Scheme"], json!("OAuth"));
    for field in ["ClientId", "AuthorizationUrl", "RequireFipsCryptography"] {
        assert!(credentials["Data"][field].is_string(), "{credentials}");
    }
    let key = decode(&files[".credentials_rsaparams"]);
    assert_eq!(key["exponent"], json!("AQAB"));
    for (field, bytes) in [("modulus", 256), ("d", 256), ("p", 128), ("q", 128), ("dp", 128)] {
        let number = STANDARD.decode(key[field].as_str().expect("text")).expect("base64");
        assert_eq!(number.len(), bytes, "{field}");
    }
    assert!(key["dq"].is_string() && key["inverseQ"].is_string());
}

#[tokio::test]
async fn invalid_jit_requests_are_rejected_as_by_github() {
    let world = World::new().await;
    for field in ["name", "runner_group_id", "labels"] {
        let mut body = runner("one");
        body.as_object_mut().expect("an object").remove(field);
        let answer = generate(&world, body).await;
        assert_error(&answer, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer.text().contains(field));
    }
    let empty = generate(&world, json!({})).await;
    assert!(empty.text().contains("weren't supplied"));
    for wrong in [
        json!({"name": 1, "runner_group_id": 1, "labels": ["a"]}),
        json!({"name": "one", "runner_group_id": "1", "labels": ["a"]}),
        json!({"name": "one", "runner_group_id": 1, "labels": []}),
        json!({"name": "one", "runner_group_id": 1, "labels": [1]}),
    ] {
        assert_error(&generate(&world, wrong).await, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_error(&generate(&world, json!([])).await, StatusCode::BAD_REQUEST);
    let no_group = json!({"name": "one", "runner_group_id": 99, "labels": ["a"]});
    assert_error(&generate(&world, no_group).await, StatusCode::NOT_FOUND);
    assert_eq!(generate(&world, runner("one")).await.status, StatusCode::CREATED);
    assert_error(&generate(&world, runner("ONE")).await, StatusCode::CONFLICT);
    let elsewhere = "/orgs/acme/actions/runners/generate-jitconfig";
    let answer = world.call(Method::POST, elsewhere, Some(runner("one"))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "names are unique within a scope");
}

#[tokio::test]
async fn every_scope_has_its_runners_at_both_base_paths() {
    let world = World::new().await;
    for scope in ["/repos/acme/app", "/orgs/acme", "/enterprises/all"] {
        for base in ["", "/api/v3"] {
            let path = format!("{base}{scope}/actions/runners");
            let body = Some(runner(&format!("runner{}", base.len())));
            let made = world.call(Method::POST, &format!("{path}/generate-jitconfig"), body).await;
            assert_eq!(made.status, StatusCode::CREATED);
            let id = made.json()["runner"]["id"].clone();
            let one = world.get(&format!("{path}/{id}")).await;
            assert_eq!(one.json()["id"], id);
            for token in ["registration-token", "remove-token"] {
                let answer = world.call(Method::POST, &format!("{path}/{token}"), None).await;
                assert_eq!(answer.status, StatusCode::CREATED);
                assert!(answer.json()["token"].is_string());
                assert!(answer.json()["expires_at"].as_str().expect("text").ends_with('Z'));
            }
        }
        let list = world.get(&format!("{scope}/actions/runners")).await.json();
        assert_eq!(list["total_count"], json!(2));
    }
}

#[tokio::test]
async fn lists_are_paged_by_link() {
    let world = World::new().await;
    for number in 0..7 {
        generate(&world, runner(&format!("runner-{number}"))).await;
    }
    let mut next = Some(format!("{}{RUNNERS}?per_page=3", world.sandbox.url()));
    let mut names = Vec::new();
    let mut pages = 0;
    while let Some(url) = next {
        let answer = world.get(&url).await;
        let body = answer.json();
        assert_eq!(body["total_count"], json!(7));
        for runner in body["runners"].as_array().expect("a list") {
            names.push(runner["name"].as_str().expect("text").to_owned());
        }
        pages += 1;
        next = answer
            .header("link")
            .split(", ")
            .find_map(|link| link.strip_suffix(">; rel=\"next\"")?.strip_prefix('<'))
            .map(str::to_owned);
    }
    assert_eq!((pages, names.len()), (3, 7));
    let named = world.get(&format!("{RUNNERS}?name=runner-4")).await;
    assert_eq!(named.json()["total_count"], json!(1));
    assert_eq!(named.header("link"), "");
}

#[tokio::test]
async fn unauthenticated_requests_are_rejected() {
    let world = World::new().await;
    let get = async |headers: &[(&str, &str)]| {
        world.try_call(Method::GET, RUNNERS, None, headers).await.expect("an answer")
    };
    let agent = ("user-agent", "test");
    let none = get(&[agent]).await;
    assert_error(&none, StatusCode::UNAUTHORIZED);
    assert!(none.text().contains("Requires authentication"));
    let wrong = get(&[agent, ("authorization", "Bearer wrong")]).await;
    assert_error(&wrong, StatusCode::UNAUTHORIZED);
    assert!(wrong.text().contains("Bad credentials"));
    let token = format!("token {TOKEN}");
    assert_eq!(get(&[agent, ("authorization", &token)]).await.status, StatusCode::OK);
    let nameless = get(&[("authorization", &token)]).await;
    assert_eq!(nameless.status, StatusCode::FORBIDDEN);
    assert!(nameless.text().contains("User-Agent"));
    let version = [agent, ("authorization", &*token), ("x-github-api-version", "1999-01-01")];
    assert_error(&get(&version).await, StatusCode::BAD_REQUEST);
    let calls = world.sandbox.calls();
    assert_eq!(calls.len(), 5);
    assert_eq!(calls[1].status, Some(401));
    assert_eq!(calls[1].headers["authorization"], "Bearer", "the token is not kept");
}

#[tokio::test]
async fn responses_have_githubs_headers_and_a_304_is_free() {
    let world = World::new().await;
    let answer = world.get(RUNNERS).await;
    assert_eq!(answer.header("content-type"), "application/json; charset=utf-8");
    assert_eq!(answer.header("x-ratelimit-limit"), "5000");
    assert_eq!(answer.header("x-ratelimit-remaining"), "4999");
    assert_eq!(answer.header("x-ratelimit-used"), "1");
    assert_eq!(answer.header("x-ratelimit-resource"), "core");
    assert!(answer.header("x-ratelimit-reset").parse::<u64>().is_ok());
    assert!(!answer.header("x-github-request-id").is_empty());
    assert!(!answer.header("x-github-media-type").is_empty());
    let bearer = format!("Bearer {TOKEN}");
    let headers = [
        ("user-agent", "test"),
        ("authorization", &*bearer),
        ("if-none-match", answer.header("etag")),
    ];
    let again = world.try_call(Method::GET, RUNNERS, None, &headers).await.expect("an answer");
    assert_eq!(again.status, StatusCode::NOT_MODIFIED);
    assert_eq!(again.header("x-ratelimit-used"), "1");
    let limits = world.get("/rate_limit").await.json();
    assert_eq!(limits["resources"]["core"]["used"], json!(1));
}

#[tokio::test]
async fn the_hourly_limit_is_enforced() {
    let world = World::start(Settings { requests_per_hour: 1, ..settings() }).await;
    assert_eq!(world.get("/user").await.status, StatusCode::OK);
    let refused = world.get("/user").await;
    assert_error(&refused, StatusCode::FORBIDDEN);
    assert_eq!(refused.header("x-ratelimit-remaining"), "0");
}

#[tokio::test]
async fn the_hourly_limit_is_each_tokens_own() {
    let tokens = ["one", "two"].map(str::to_owned);
    let world = World::start(Settings { tokens: tokens.into(), ..settings() }).await;
    let call = async |authorization: &str| {
        let headers = [("user-agent", "test"), ("authorization", authorization)];
        world.try_call(Method::GET, "/user", None, &headers).await.expect("an answer")
    };
    assert_eq!(call("Bearer one").await.header("x-ratelimit-used"), "1");
    assert_eq!(call("Bearer one").await.header("x-ratelimit-used"), "2");
    assert_eq!(call("Bearer two").await.header("x-ratelimit-used"), "1");
    // A request with an invalid token counts against the address.
    let wrong = call("Bearer three").await;
    assert_eq!((wrong.status, wrong.header("x-ratelimit-limit")), (StatusCode::UNAUTHORIZED, "60"));
}

#[tokio::test]
async fn unknown_resources_are_not_found() {
    let (owners, enterprise) = (vec!["acme".to_owned()], Some("acme-inc".to_owned()));
    let world = World::start(Settings { owners, enterprise, ..settings() }).await;
    for path in [
        "/nothing",
        "/enterprises/other/actions/runners",
        "/repos/other/app/actions/runners",
        "/orgs/other",
        "/repos/acme/app/actions/runners/7",
        "/repos/acme/app/actions/runners/seven",
        "/repos/acme/app/actions/jobs/7",
        "/repos/acme/app/actions/runs/7/jobs",
        "/repos/acme/app/actions/runner-groups",
        "/repos/acme/app/hooks/7/deliveries",
    ] {
        assert_error(&world.get(path).await, StatusCode::NOT_FOUND);
    }
    for path in ["/orgs/ACME", "/enterprises/ACME-inc/actions/runners"] {
        assert_eq!(world.get(path).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn groups_account_and_meta() {
    let world = World::new().await;
    let groups = world.get("/orgs/acme/actions/runner-groups").await.json();
    assert_eq!(groups["total_count"], json!(2));
    let default = &groups["runner_groups"][0];
    assert_eq!(
        (&default["id"], &default["name"], &default["default"]),
        (&json!(1), &json!("Default"), &json!(true))
    );
    assert_eq!(world.get("/user").await.json()["login"], json!("octocat"));
    assert_eq!(world.get("/orgs/acme").await.json()["login"], json!("acme"));
    let repository = world.get("/repos/acme/app").await.json();
    assert_eq!(repository["full_name"], json!("acme/app"));
    assert!(repository["url"].as_str().expect("text").ends_with("/repos/acme/app"));
    let agent = [("user-agent", "test")];
    let meta = world.try_call(Method::GET, "/meta", None, &agent).await.expect("an answer");
    assert_eq!(meta.status, StatusCode::OK);
    let domains = &meta.json()["domains"];
    assert_eq!(domains["actions_inbound"]["full_domains"][0], json!("github.com"));
    let meta = world.get("/api/v3/meta").await.json();
    assert!(meta["installed_version"].is_string() && meta["domains"].is_null(), "{meta}");
}

#[tokio::test]
async fn queued_jobs_are_found_through_their_runs() {
    let world = World::new().await;
    let ids = world.sandbox.queue_jobs(&JobRequest { count: 2, ..JobRequest::default() });
    let runs = world.get("/repos/acme/app/actions/runs?status=queued").await.json();
    assert_eq!(runs["total_count"], json!(1));
    let run = &runs["workflow_runs"][0]["id"];
    let jobs = world.get(&format!("/repos/acme/app/actions/runs/{run}/jobs")).await.json();
    let listed: Vec<u64> = jobs["jobs"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|job| job["id"].as_u64())
        .collect();
    assert_eq!(listed, ids);
    let job = world.get(&format!("/repos/acme/app/actions/jobs/{}", ids[0])).await.json();
    assert_eq!((&job["status"], &job["conclusion"]), (&json!("queued"), &Value::Null));
    for id in ids {
        world.sandbox.cancel_job(id).expect("a queued job can be cancelled");
    }
    let runs = world.get("/repos/acme/app/actions/runs?status=queued").await.json();
    assert_eq!(runs["total_count"], json!(0));
    let runs = world.get("/repos/acme/app/actions/runs?status=cancelled").await.json();
    assert_eq!(runs["total_count"], json!(1));
}

#[tokio::test]
async fn an_app_gets_a_token_for_its_installation() {
    let world = World::new().await;
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let token = |issuer: &str, iat: u64, exp: u64| {
        let claims = json!({"iss": issuer, "iat": iat, "exp": exp}).to_string();
        format!("Bearer e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    };
    let call = async |method, path: &str, authorization: &str| {
        let headers = [("user-agent", "test"), ("authorization", authorization)];
        world.try_call(method, path, None, &headers).await.expect("an answer")
    };
    let good = token("424242", now - 10, now + 300);
    assert_eq!(call(Method::GET, "/app", &good).await.json()["id"], json!(424_242));
    let installation = call(Method::GET, "/orgs/acme/installation", &good).await.json();
    let all = call(Method::GET, "/app/installations", &good).await.json();
    assert_eq!(all[0]["id"], installation["id"]);
    let path = format!("/app/installations/{}/access_tokens", installation["id"]);
    let issued = call(Method::POST, &path, &good).await;
    assert_eq!(issued.status, StatusCode::CREATED);
    // The App and each of its installations have separate rate limits.
    assert_eq!(issued.header("x-ratelimit-used"), "4");
    let bearer = format!("Bearer {}", issued.json()["token"].as_str().expect("text"));
    let first = call(Method::GET, RUNNERS, &bearer).await;
    assert_eq!((first.status, first.header("x-ratelimit-used")), (StatusCode::OK, "1"));
    let renewed = call(Method::POST, &path, &good).await.json()["token"].clone();
    let renewed = format!("Bearer {}", renewed.as_str().expect("text"));
    assert_eq!(call(Method::GET, "/user", &renewed).await.header("x-ratelimit-used"), "2");
    assert_error(&call(Method::GET, RUNNERS, &good).await, StatusCode::FORBIDDEN);
    assert_error(&call(Method::GET, "/app", &bearer).await, StatusCode::UNAUTHORIZED);
    world.sandbox.expire_installation_tokens();
    assert_error(&call(Method::GET, RUNNERS, &bearer).await, StatusCode::UNAUTHORIZED);
    for bad in [
        token("424242", now + 120, now + 300),
        token("424242", now - 300, now - 100),
        token("424242", now, now + 3_600),
    ] {
        assert_error(&call(Method::GET, "/app", &bad).await, StatusCode::UNAUTHORIZED);
    }
    let other = token("7", now, now + 60);
    assert_error(&call(Method::GET, "/app", &other).await, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_end_of_a_version_is_known_for_the_latest_versions_only() {
    let world = World::new().await;
    let path = |version: &str| format!("{RUNNERS}/deprecations/{version}");
    let known = world.call(Method::GET, &path("2.335.0"), None).await;
    assert_eq!(known.status, StatusCode::OK);
    let body = known.json();
    assert_eq!(body["runner_version"], json!("2.335.0"));
    for field in ["runtime_deprecates_at", "registration_deprecates_at"] {
        let ends: jiff::Timestamp = body[field].as_str().expect("text").parse().expect("a time");
        assert!(ends > jiff::Timestamp::now(), "{body}");
    }
    let old = world.call(Method::GET, &path("2.300.0"), None).await;
    assert_error(&old, StatusCode::NOT_FOUND);
    let ends = json!({"ends": "2026-12-08T00:00:00Z"});
    let set = "/_sandbox/runner-versions/2.300.0";
    assert_eq!(world.call(Method::PUT, set, Some(ends)).await.status, StatusCode::NO_CONTENT);
    let known = world.call(Method::GET, &path("2.300.0"), None).await;
    assert_eq!(known.json()["runtime_deprecates_at"], json!("2026-12-08T00:00:00Z"));
}
