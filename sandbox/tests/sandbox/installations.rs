//! Installations of the GitHub App that are suspended or removed.

use edgerunner_sandbox::{APP_ID, InstallationStatus, JobRequest, Settings, WebhookKind};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Answer, Receiver, World, app_jwt, settings};

async fn call(world: &World, method: Method, path: &str, token: &str) -> Answer {
    let authorization = format!("Bearer {token}");
    let headers = [("user-agent", "test"), ("authorization", &*authorization)];
    world.try_call(method, path, None, &headers).await.expect("an answer")
}

/// The installation's id.
async fn installation(world: &World, owner: &str) -> Value {
    let path = format!("/orgs/{owner}/installation");
    let answer = call(world, Method::GET, &path, &app_jwt(APP_ID)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()["id"].clone()
}

async fn new_token(world: &World, installation: &Value) -> Answer {
    let path = format!("/app/installations/{installation}/access_tokens");
    call(world, Method::POST, &path, &app_jwt(APP_ID)).await
}

fn token(answer: &Answer) -> String {
    answer.json()["token"].as_str().expect("a token").to_owned()
}

const RUNNERS: &str = "/orgs/acme/actions/runners";

#[tokio::test]
async fn a_suspended_installation_gets_no_token_and_its_tokens_are_refused() {
    let world = World::new().await;
    let id = installation(&world, "acme").await;
    let token = token(&new_token(&world, &id).await);
    assert_eq!(call(&world, Method::GET, RUNNERS, &token).await.status, StatusCode::OK);
    world.sandbox.set_installation("Acme", InstallationStatus::Suspended);
    for refused in [new_token(&world, &id).await, call(&world, Method::GET, RUNNERS, &token).await]
    {
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        assert_eq!(refused.json()["message"], json!("This installation has been suspended"));
    }
    let all = call(&world, Method::GET, "/app/installations", &app_jwt(APP_ID)).await.json();
    assert_eq!(all[0]["id"], id);
    assert!(all[0]["suspended_at"].is_string(), "{all}");
    world.sandbox.set_installation("acme", InstallationStatus::Active);
    assert_eq!(call(&world, Method::GET, RUNNERS, &token).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_app_that_is_installed_again_has_another_installation() {
    let world = World::new().await;
    let id = installation(&world, "acme").await;
    let token = token(&new_token(&world, &id).await);
    world.sandbox.set_installation("acme", InstallationStatus::Uninstalled);
    assert_eq!(new_token(&world, &id).await.status, StatusCode::NOT_FOUND);
    let refused = call(&world, Method::GET, RUNNERS, &token).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let path = "/orgs/acme/installation";
    let absent = call(&world, Method::GET, path, &app_jwt(APP_ID)).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    let all = call(&world, Method::GET, "/app/installations", &app_jwt(APP_ID)).await;
    assert_eq!(all.json(), json!([]));
    world.sandbox.set_installation("acme", InstallationStatus::Active);
    let again = installation(&world, "acme").await;
    assert_ne!(again, id);
    assert_eq!(new_token(&world, &again).await.status, StatusCode::CREATED);
    assert_eq!(new_token(&world, &id).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_token_of_an_installation_is_good_for_its_owner_alone() {
    let world = World::new().await;
    let id = installation(&world, "acme").await;
    let token = token(&new_token(&world, &id).await);
    for path in ["/orgs/globex/actions/runners", "/repos/globex/app/actions/runners"] {
        let answer = call(&world, Method::GET, path, &token).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
    let new = "globex/app".to_owned().try_into().expect("a repository name");
    let old = JobRequest::default().repository;
    world.sandbox.rename_repository(&old, new).expect("a free name");
    let transferred = call(&world, Method::GET, "/repos/acme/app/actions/runners", &token).await;
    assert_eq!(transferred.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_app_hears_nothing_of_owners_that_suspended_or_removed_it() {
    let receiver = Receiver::start().await;
    let world = World::start(Settings {
        webhook_url: Some(receiver.url.clone()),
        webhook_kind: WebhookKind::Integration,
        ..settings()
    })
    .await;
    for status in [InstallationStatus::Suspended, InstallationStatus::Uninstalled] {
        let path = "/_sandbox/installations/acme";
        let body = json!({ "status": status });
        let answer = world.try_call(Method::PUT, path, Some(body), &[]).await.expect("an answer");
        assert_eq!(answer.json(), json!({ "status": status }));
        world.sandbox.queue_job(&JobRequest::default());
    }
    let repository = "globex/app".to_owned().try_into().expect("a repository name");
    world.sandbox.queue_job(&JobRequest { repository, ..JobRequest::default() });
    let first = receiver.wait_for(1).await.remove(0);
    assert_eq!(first.json()["repository"]["full_name"], json!("globex/app"));
}
