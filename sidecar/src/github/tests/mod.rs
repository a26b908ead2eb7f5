//! Tests against a server that responds as each test says and records its requests.

mod app;
mod budgets;
mod client;
mod clients;
mod deliveries;
mod errors;
mod jit;
mod jobs;
mod limits;
mod meta;
mod network;
mod pages;
mod redirects;
mod registration_tokens;
mod reruns;
mod rotation;
mod runner_groups;
mod runner_versions;
mod runners;
mod spending;
mod statuses;
mod token_info;

use std::{net::SocketAddr, sync::Mutex, time::SystemTime};

use axum::{
    body::Bytes,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, HeaderName, StatusCode, Uri};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::*;
use crate::{
    config::{Identity, RunnerGroup},
    secret::Secret,
};
use edgerunner_scheduler::missed::{DeliveryAttempt, RunStatus, WebhookId};

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

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn github(&self) -> GitHub {
        client(&self.url())
    }

    /// Waits long enough for retries.
    fn patient_github(&self) -> GitHub {
        patient_client(&self.url())
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

const TIMEOUT: Duration = Duration::from_millis(500);
/// Enough for retries.
const LONG_TIMEOUT: Duration = Duration::from_secs(20);

fn credential(api_url: &str) -> CredentialConfig {
    CredentialConfig {
        name: "one".into(),
        targets: Vec::new(),
        api_url: api_url.to_owned(),
        web_url: String::new(),
        identity: Identity::Token(SecretString::from(TOKEN).into()),
        ca: Vec::new(),
        proxy: None,
    }
}

fn client(api_url: &str) -> GitHub {
    GitHub::new(&credential(api_url), TIMEOUT).unwrap()
}

fn patient_client(api_url: &str) -> GitHub {
    GitHub::new(&credential(api_url), LONG_TIMEOUT).unwrap()
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

const TOKEN_REPLY: &str = r#"{"token":"AABF3","expires_at":"2999-01-01T00:00:00Z"}"#;

fn registration_reply(life: Duration) -> String {
    let expires = rfc_3339(SystemTime::now() + life);
    json!({ "token": "AABF3", "expires_at": expires }).to_string()
}

/// As GitHub writes it: milliseconds, and an offset.
fn rfc_3339(at: SystemTime) -> String {
    let at = jiff::Timestamp::try_from(at)
        .unwrap()
        .to_zoned(jiff::tz::TimeZone::fixed(jiff::tz::offset(-8)));
    at.strftime("%Y-%m-%dT%H:%M:%S%.3f%:z").to_string()
}

/// Made for tests alone.
const OTHER_PRIVATE_KEY: &str = include_str!("../test-app-rotated.pem");

/// Made for tests alone.
const PRIVATE_KEY: &str = include_str!("../test-app.pem");

fn app(address: SocketAddr) -> GitHub {
    app_with_key(address, SecretString::from(PRIVATE_KEY).into())
}

fn app_with_key(address: SocketAddr, private_key: Secret) -> GitHub {
    let identity = Identity::App { id: "12345".into(), private_key };
    let credential = credential(&format!("http://{address}"));
    GitHub::new(&CredentialConfig { identity, ..credential }, TIMEOUT).unwrap()
}

/// GitHub as an App sees it. It never issues the same token twice.
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

const CORE: [(&str, &str); 4] = [
    ("x-ratelimit-limit", "5000"),
    ("x-ratelimit-remaining", "4321"),
    ("x-ratelimit-reset", "1700000000"),
    ("x-ratelimit-resource", "core"),
];
