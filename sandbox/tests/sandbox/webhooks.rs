//! Webhooks that are created through the API.

use edgerunner_sandbox::{JobRequest, Settings, WebhookKind};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::support::{Receiver, World, settings};

const HOOKS: &str = "/repos/acme/app/hooks";

fn new_hook(url: &str) -> Value {
    let config = json!({ "url": url, "content_type": "json", "secret": "another" });
    json!({ "name": "web", "active": true, "events": ["workflow_job"], "config": config })
}

#[tokio::test]
async fn a_new_webhook_is_pinged_listed_and_pinged_again() {
    let receiver = Receiver::start().await;
    let world = World::start(Settings { webhook_secret: "old".into(), ..settings() }).await;
    assert_eq!(world.get(HOOKS).await.json(), json!([]));
    let made = world.call(Method::POST, HOOKS, Some(new_hook(&receiver.url))).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
    let made = made.json();
    assert_eq!(made["config"]["url"], json!(receiver.url));
    assert_eq!(made["config"]["secret"], Value::Null);
    let ping = receiver.wait_for(1).await.remove(0);
    assert_eq!(ping.headers["x-github-event"], "ping");

    assert_eq!(world.get(HOOKS).await.json()[0]["id"], made["id"]);
    let ping = format!("{HOOKS}/{}/pings", made["id"]);
    assert_eq!(world.call(Method::POST, &ping, None).await.status, StatusCode::NO_CONTENT);
    receiver.wait_for(2).await;
    let absent = world.call(Method::POST, &format!("{HOOKS}/7/pings"), None).await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert_eq!(world.get("/orgs/acme/hooks").await.json(), json!([]));
}

/// The fields that GitHub's OpenAPI description requires, and those of a ping's `hook`.
#[tokio::test]
async fn each_kind_of_webhook_has_the_fields_that_github_documents() {
    let common = ["id", "name", "active", "events", "config", "updated_at", "created_at", "type"];
    let of_repository = &["url", "test_url", "ping_url", "deliveries_url", "last_response"][..];
    for (webhook_kind, path, own) in [
        (WebhookKind::Repository, Some("/repos/acme/app"), of_repository),
        (WebhookKind::Organization, Some("/orgs/acme"), &["url", "ping_url", "deliveries_url"]),
        (WebhookKind::Integration, None, &["deliveries_url", "app_id"]),
    ] {
        let receiver = Receiver::start().await;
        let webhook_url = Some(receiver.url.clone());
        let world = World::start(Settings { webhook_url, webhook_kind, ..settings() }).await;
        world.sandbox.ping(&JobRequest::default().repository).expect("a ping");
        let ping = receiver.wait_for(1).await.remove(0).json();
        let mut views = vec![ping["hook"].clone()];
        if let Some(path) = path {
            views.push(world.get(&format!("{path}/hooks")).await.json()[0].clone());
        }
        for hook in &views {
            let fields = hook.as_object().expect("an object");
            let expected = common.iter().chain(own);
            assert!(expected.clone().all(|field| fields.contains_key(*field)), "{hook}");
            assert_eq!(fields.len(), expected.count(), "{hook}");
        }
        if let Some(path) = path {
            let url = format!("{}{path}/hooks/{}", world.sandbox.url(), ping["hook_id"]);
            assert_eq!(views[0]["url"], json!(url));
            assert_eq!(views[0]["ping_url"], json!(format!("{url}/pings")));
            assert_eq!(views[0]["deliveries_url"], json!(format!("{url}/deliveries")));
        }
        assert_eq!(ping["repository"].is_object(), webhook_kind == WebhookKind::Repository);
        assert_eq!(ping["organization"].is_object(), webhook_kind == WebhookKind::Organization);
    }
}

#[tokio::test]
async fn invalid_webhooks_are_rejected_as_by_github() {
    let receiver = Receiver::start().await;
    let world = World::with_webhook(&receiver).await;
    for (wrong, message) in [
        (new_hook(&receiver.url), "Hook already exists on this repository"),
        (json!({ "config": {} }), "url can't be blank"),
        (json!({ "name": "email", "config": { "url": "http://x" } }), "The name must be 'web'"),
    ] {
        let answer = world.call(Method::POST, HOOKS, Some(wrong)).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer.json()["errors"][0]["message"], json!(message));
    }
    let enterprise = world.get("/enterprises/big/hooks").await;
    assert_eq!(enterprise.status, StatusCode::NOT_FOUND);
}
