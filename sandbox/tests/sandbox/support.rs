//! A sandbox, a client for it and a receiver of its webhooks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use edgerunner_sandbox::runner::Config;
use edgerunner_sandbox::{Sandbox, Settings};
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) const SECRET: &str = "a secret";
pub(crate) const TOKEN: &str = "a-token";

pub(crate) fn signature_256(body: &[u8]) -> String {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes())
        .expect("HMAC takes a key of any length");
    mac.update(body);
    format!("sha256={}", hex::encode(mac.finalize().into_bytes()))
}

/// A GitHub App's JSON web token, whose signature the sandbox does not check.
pub(crate) fn app_jwt(issuer: u64) -> String {
    let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs();
    let claims = json!({"iss": issuer, "iat": now - 10, "exp": now + 300});
    format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// Replaces every digit by `0`.
pub(crate) fn digits_as_zeros(text: &str) -> String {
    text.replace(|character: char| character.is_ascii_digit(), "0")
}

pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    client: Client<HttpConnector, Full<Bytes>>,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::start(settings()).await
    }

    pub(crate) async fn with_webhook(receiver: &Receiver) -> Self {
        let webhook_url = Some(receiver.url.clone());
        Self::start(Settings { webhook_url, ..settings() }).await
    }

    pub(crate) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        Self {
            sandbox: Sandbox::start(listener, settings).expect("the sandbox starts"),
            client: Client::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// An authenticated request.
    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let headers = [("authorization", &*format!("Bearer {TOKEN}")), ("user-agent", "test")];
        self.try_call(method, path, body, &headers).await.expect("an answer")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    pub(crate) async fn try_call(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let url = match path.starts_with("http://") {
            true => path.to_owned(),
            false => format!("{}{path}", self.sandbox.url()),
        };
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.request(request.body(Full::new(Bytes::from(body))).expect("a valid request")).await
    }

    /// A request to any URL, with nothing added.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        body: String,
        headers: &[(&str, &str)],
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::from(body))).expect("a valid request");
        self.request(request).await.expect("an answer")
    }

    async fn request(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, hyper_util::client::legacy::Error> {
        let (head, body) = self.client.request(request).await?.into_parts();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.expect("the body can be read").to_bytes(),
        })
    }
}

/// Registers a runner of `acme/app`, and returns its id and its configuration.
pub(crate) async fn jit(world: &World, name: &str, labels: &[&str]) -> (u64, Config) {
    let path = "/repos/acme/app/actions/runners/generate-jitconfig";
    let body = json!({"name": name, "runner_group_id": 1, "labels": labels});
    let answer = world.call(Method::POST, path, Some(body)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text());
    let body = answer.json();
    let encoded = body["encoded_jit_config"].as_str().expect("text").to_owned();
    let config = Config::from_env(|name| {
        (name == "ACTIONS_RUNNER_INPUT_JITCONFIG").then(|| encoded.clone())
    });
    (body["runner"]["id"].as_u64().expect("a number"), config.expect("the configuration is valid"))
}

pub(crate) fn settings() -> Settings {
    Settings {
        webhook_secret: SECRET.to_owned(),
        tokens: vec![TOKEN.to_owned()],
        runner_lost_after: Duration::from_millis(300),
        ..Settings::default()
    }
}

#[derive(Clone)]
pub(crate) struct Received {
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> String {
        let value = self.headers.get(name).expect("the header is there");
        value.to_str().expect("text").to_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    pub(crate) fn action(&self) -> String {
        self.json()["action"].as_str().unwrap_or_default().to_owned()
    }
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    received: watch::Sender<Vec<Received>>,
    answer: Mutex<StatusCode>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            received: watch::Sender::new(Vec::new()),
            answer: Mutex::new(StatusCode::ACCEPTED),
        });
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url: format!("http://{address}/webhooks/github"), shared }
    }

    pub(crate) fn answer_with(&self, status: StatusCode) {
        *self.shared.answer.lock().expect("no panic") = status;
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.borrow().clone()
    }

    /// Waits for `count` webhooks; fails after ten seconds.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut received = self.shared.received.subscribe();
        let enough = received.wait_for(|received| received.len() >= count);
        tokio::time::timeout(Duration::from_secs(10), enough)
            .await
            .expect("the webhooks arrive in time")
            .expect("the receiver is running")
            .clone()
    }
}

async fn receive(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    shared.received.send_modify(|received| received.push(Received { headers, body }));
    *shared.answer.lock().expect("no panic")
}
