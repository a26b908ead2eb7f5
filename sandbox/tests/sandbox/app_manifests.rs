//! A GitHub App that is registered from a manifest.

use edgerunner_sandbox::JobRequest;
use http::{Method, StatusCode, header};
use serde_json::json;

use super::support::{Receiver, World};

/// Posts a manifest as a browser does. Returns the address that it is redirected to.
async fn submitted(world: &World, page: &str, manifest: &str) -> String {
    let body: String = manifest.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let form = [(header::CONTENT_TYPE.as_str(), "application/x-www-form-urlencoded")];
    let url = format!("{}{page}", world.sandbox.url());
    let answer = world.send(Method::POST, &url, format!("manifest={body}"), &form).await;
    assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text());
    answer.header("location").to_owned()
}

#[tokio::test]
async fn a_code_is_exchanged_once_for_an_app_whose_webhook_is_active() {
    let receiver = Receiver::start().await;
    let world = World::new().await;
    let redirect = "http://127.0.0.1:1/callback";
    let hook = json!({ "url": receiver.url, "active": true });
    let manifest =
        json!({ "url": "http://x", "redirect_url": redirect, "hook_attributes": hook }).to_string();
    for page in
        ["/settings/apps/new?state=a%20b", "/organizations/acme/settings/apps/new?state=a%20b"]
    {
        let location = submitted(&world, page, &manifest).await;
        let (address, query) = location.split_once('?').expect("a query");
        assert_eq!(address, redirect);
        let (code, state) = query.split_once('&').expect("two parameters");
        assert_eq!(state, "state=a%20b");
        let code = code.strip_prefix("code=").expect("a code");
        let path = format!("/app-manifests/{code}/conversions");
        let headers = [("user-agent", "test")];
        let made = world.try_call(Method::POST, &path, None, &headers).await.expect("an answer");
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text());
        let made = made.json();
        assert_eq!(made["id"], edgerunner_sandbox::APP_ID);
        assert!(made["pem"].as_str().is_some_and(|pem| pem.starts_with("-----BEGIN RSA")));
        assert!(made["webhook_secret"].is_string() && made["html_url"].is_string(), "{made}");
        let again = world.try_call(Method::POST, &path, None, &headers).await.expect("an answer");
        assert_eq!(again.status, StatusCode::NOT_FOUND);
    }
    world.sandbox.queue_job(&JobRequest::default());
    let sent = receiver.wait_for(1).await.remove(0);
    assert_eq!(sent.header("x-github-hook-installation-target-type"), "integration");
}

#[tokio::test]
async fn an_account_is_an_organization_unless_it_is_the_users_own() {
    let world = World::new().await;
    for (login, kind) in [("acme", "Organization"), ("octocat", "User")] {
        let path = format!("/users/{login}");
        let headers = [("user-agent", "test")];
        let found = world.try_call(Method::GET, &path, None, &headers).await.expect("an answer");
        assert_eq!(found.json()["type"], kind, "{login}");
    }
}
