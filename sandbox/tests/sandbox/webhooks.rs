//! Webhooks that are created through the API.

use edgerunner_sandbox::Settings;
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
