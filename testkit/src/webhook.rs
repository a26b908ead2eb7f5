//! Deliveries as GitHub sends them, and ways to break them.

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

/// The secret that signs deliveries unless a test says otherwise. The word occurs nowhere
/// else, so that a leak can be searched for.
pub const SECRET: &str = "webhook-secret-sesame";
/// The path in `envoy/envoy.yaml`.
pub const PATH: &str = "/webhooks/github";

#[derive(Clone)]
pub struct Webhook {
    pub path: String,
    /// Names and values, in the order in which they are sent.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

impl Webhook {
    /// Signed, with a new GUID.
    pub fn new(event: &str, body: impl Into<Bytes>) -> Self {
        let webhook = Self { path: PATH.to_owned(), headers: Vec::new(), body: body.into() };
        webhook
            .header("content-type", "application/json")
            .header("user-agent", "GitHub-Hookshot/edb0a01")
            .header("x-github-delivery", uuid::Uuid::new_v4().to_string())
            .header("x-github-event", event)
            .header("x-github-hook-id", "1")
            .signed_with(SECRET)
    }

    pub fn workflow_job(payload: &Value) -> Self {
        Self::new("workflow_job", payload.to_string())
    }

    /// A queued job that no pool matches: it is stored, and no runner is launched.
    pub fn job(id: u64) -> Self {
        Self::workflow_job(&payload("queued", id))
    }

    pub fn guid(&self) -> String {
        let value = self.headers.iter().find(|(name, _)| name == "x-github-delivery");
        value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
    }

    /// Replaces all headers of this name.
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.without(name).and_header(name, value)
    }

    pub fn and_header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self
    }

    pub fn path(self, path: &str) -> Self {
        Self { path: path.to_owned(), ..self }
    }

    pub fn signed_with(self, secret: &str) -> Self {
        let signature = format!("sha256={}", hmac_sha256(secret, &self.body));
        self.header("x-hub-signature-256", signature)
    }

    pub fn request(&self) -> http::Result<Request<Full<Bytes>>> {
        self.request_with(Full::new(self.body.clone()))
    }

    /// The same head with another body.
    pub fn request_with<B>(&self, body: B) -> http::Result<Request<B>> {
        let request = Request::post(format!("http://hooks.test{}", self.path));
        let request = request.header("host", "hooks.test");
        self.headers
            .iter()
            .fold(request, |request, (name, value)| request.header(name, value.as_slice()))
            .body(body)
    }

    /// The whole HTTP/1.1 request, with its length.
    pub fn http1(&self) -> Vec<u8> {
        let length = format!("content-length: {}\r\n\r\n", self.body.len());
        [&self.head(), length.as_bytes(), &self.body].concat()
    }

    /// The head of the HTTP/1.1 request, without the empty line that ends it.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("POST {} HTTP/1.1\r\nhost: hooks.test\r\n", self.path).into_bytes();
        for (name, value) in &self.headers {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head
    }
}

/// The fields of `workflow_job` that the filter needs, with labels of no pool.
pub fn payload(action: &str, id: u64) -> Value {
    json!({
        "action": action,
        "workflow_job": {
            "id": id, "run_id": 1, "run_attempt": 1, "name": "build",
            "labels": ["self-hosted", "nobody-has-this"],
        },
        "repository": { "full_name": "acme/app", "private": true },
        "organization": { "login": "acme" },
    })
}

pub fn hmac_sha256(secret: &str, body: &[u8]) -> String {
    let mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes());
    let mac = mac.expect("HMAC takes a key of any length").chain_update(body);
    hex::encode(mac.finalize().into_bytes())
}
