//! The commands against a GitHub with one webhook.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::Router;
use http::{Method, Uri};
use serde_json::{Value, json};

use super::*;

const URL: &str = "https://hooks.example.com/webhooks/github";
const SHORT: Duration = Duration::from_millis(50);
const LONG: Duration = Duration::from_secs(20);

/// What the server knows, and the requests that it got.
#[derive(Default)]
struct Known {
    webhooks: Vec<Value>,
    /// Newest first.
    deliveries: Vec<Value>,
    /// The status of pings and redeliveries; `None`: they are not listed.
    answered: Option<u16>,
    calls: Vec<String>,
}

impl Known {
    fn deliver(&mut self, guid: &str, event: &str) {
        if let Some(status) = self.answered {
            let delivery = json!({ "id": self.deliveries.len() + 1, "guid": guid, "event": event,
                "delivered_at": "2026-01-01T00:00:00Z", "status_code": status, "action": null });
            self.deliveries.insert(0, delivery);
        }
    }

    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        self.calls.push(format!("{method} {path}"));
        let path = path.trim_start_matches("/repos/acme/app/hooks");
        match (method.as_str(), path) {
            ("GET", "") => (200, self.webhooks.clone().into()),
            ("POST", "") => {
                let hook = json!({ "id": 7, "active": true, "events": body["events"],
                    "config": { "url": body["config"]["url"], "content_type": "json" } });
                self.webhooks.push(hook.clone());
                self.deliver("first", "ping");
                (201, hook)
            }
            ("POST", "/7/pings") => {
                self.deliver("again", "ping");
                (204, Value::Null)
            }
            ("GET", "/7/deliveries") => (200, self.deliveries.clone().into()),
            ("POST", _) => {
                self.deliver("first", "ping");
                (202, json!({}))
            }
            _ => (404, json!({ "message": "Not Found" })),
        }
    }
}

/// On a thread of its own, because each command has its own runtime.
fn server(known: &Arc<Mutex<Known>>) -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let known = Arc::clone(known);
    let handler = move |method: Method, uri: Uri, body: axum::body::Bytes| async move {
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let (status, body) = known.lock().unwrap().answer(&method, uri.path(), &body);
        let body = if status == 204 { String::new() } else { body.to_string() };
        (StatusCode::from_u16(status).unwrap(), body)
    };
    std::thread::spawn(move || {
        block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            Ok(axum::serve(listener, Router::new().fallback(handler)).await?)
        })
    });
    address
}

fn start(known: Known) -> (Config, Arc<Mutex<Known>>) {
    let known = Arc::new(Mutex::new(known));
    let api_url = format!("http://{}", server(&known));
    let config = Config::load(None, &|name| match name {
        "GITHUB_API_URL" => Some(api_url.clone()),
        "GITHUB_TOKEN" => Some("token".into()),
        "GITHUB_WEBHOOK_SECRET" => Some("secret".into()),
        _ => None,
    });
    (config.unwrap(), known)
}

fn app() -> Target {
    "repo:acme/app".parse().unwrap()
}

fn webhook(active: bool, event: &str) -> Value {
    json!({ "id": 7, "active": active, "events": [event], "config": { "url": URL } })
}

fn error(result: Result<()>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn a_webhook_is_created_if_its_ping_is_answered_with_success() {
    let (config, known) = start(Known { answered: Some(200), ..Known::default() });
    create(&config, &app(), Some(URL), LONG).unwrap();
    assert!(known.lock().unwrap().calls.contains(&"POST /repos/acme/app/hooks".to_owned()));
}

#[test]
fn a_ping_that_failed_or_is_not_listed_fails_the_command_and_says_so() {
    for (answered, expected) in [
        (Some(502), "answered 502: GitHub did not reach Envoy"),
        (Some(401), "answered 401: the filter has a different secret"),
        (Some(403), "answered 403: Envoy's list of GitHub's IP ranges"),
        (Some(0), "answered 0: GitHub did not reach Envoy"),
        (None, "does not list how it was answered yet"),
    ] {
        let (config, _) = start(Known { answered, ..Known::default() });
        let limit = if answered.is_some() { LONG } else { SHORT };
        let message = error(create(&config, &app(), Some(URL), limit));
        assert!(message.contains(expected), "{message}");
        assert!(!message.contains("label"), "{message}");
    }
}

#[test]
fn a_webhook_that_exists_is_named_and_nothing_is_created() {
    for url in [URL, "https://HOOKS.example.com:443/webhooks/github"] {
        let webhooks = vec![webhook(true, WEBHOOK_EVENT)];
        let (config, known) = start(Known { webhooks, ..Known::default() });
        create(&config, &app(), Some(url), SHORT).unwrap();
        assert_eq!(known.lock().unwrap().calls, ["GET /repos/acme/app/hooks"], "{url}");
    }
    for (webhook, expected) in [
        (webhook(false, WEBHOOK_EVENT), "it is not active"),
        (webhook(true, "push"), "but not the event workflow_job"),
    ] {
        let (config, _) = start(Known { webhooks: vec![webhook], ..Known::default() });
        let message = error(create(&config, &app(), Some(URL), SHORT));
        assert!(message.contains(expected), "{message}");
        assert!(message.contains("repos/acme/app/hooks/7"), "{message}");
    }
}

#[test]
fn a_ping_and_a_redelivery_show_their_own_answer_and_no_earlier_one() {
    let mut earlier = Known { answered: Some(200), ..Known::default() };
    earlier.deliver("first", "ping");
    let hook: WebhookId = "repos/acme/app/hooks/7".parse().unwrap();
    let (config, known) = start(Known { answered: Some(503), ..earlier });
    let message = error(ping(&config, &hook, LONG));
    assert!(message.contains("answered 503"), "{message}");
    let message = error(redeliver(&config, &hook, "FIRST", LONG));
    assert!(message.contains("the redelivery of FIRST was answered 503"), "{message}");
    known.lock().unwrap().answered = Some(200);
    ping(&config, &hook, LONG).unwrap();
    redeliver(&config, &hook, "first", LONG).unwrap();
}

#[test]
fn the_list_has_the_path_that_other_commands_take() {
    let webhooks = vec![webhook(true, WEBHOOK_EVENT)];
    let (config, _) = start(Known { webhooks, ..Known::default() });
    let listed = serde_json::to_value(list(&config, &app()).unwrap()).unwrap();
    assert_eq!(listed[0]["path"], "repos/acme/app/hooks/7");
    assert_eq!((&listed[0]["id"], &listed[0]["config"]["url"]), (&json!(7), &json!(URL)));
    assert!(pingable(listed[0]["path"].as_str().unwrap()).is_ok());
}

#[test]
fn the_webhook_of_an_app_cannot_be_pinged() {
    let refused = pingable("app/hook").unwrap_err();
    assert!(refused.contains("GitHub cannot ping"), "{refused}");
    assert!(pingable("app").unwrap_err().contains("repos/OWNER/NAME/hooks/ID"));
}

#[test]
fn only_http_and_https_urls_are_taken() {
    assert!(signed_webhook::url(URL).is_ok());
    for wrong in ["ftp://hooks.example.com", "hooks.example.com/webhooks", "https://"] {
        assert!(signed_webhook::url(wrong).is_err(), "{wrong}");
    }
}
