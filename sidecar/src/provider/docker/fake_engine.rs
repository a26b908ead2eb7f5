//! An Engine for unit tests, which responds as each test says and records the calls.

use axum::{
    Json, Router,
    body::Bytes,
    response::{IntoResponse as _, Response},
};
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::Docker;
use crate::{
    config::{Config, Container, EngineAddress},
    provider::{
        labels::Labels,
        order::{Images, Order},
    },
};

/// Calls as `GET /containers/json`; `GET /containers/json launchers` lists launchers.
pub(crate) struct Engine {
    pub docker: Docker,
    calls: watch::Sender<Vec<String>>,
}

impl Engine {
    pub(crate) async fn start(
        answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        let address = EngineAddress::Tcp { authority, tls: None };
        let calls = watch::Sender::new(Vec::new());
        let kept = calls.clone();
        let handler = async move |method: Method, uri: Uri| {
            let query = uri.query().unwrap_or_default();
            let list = if query.contains("launcher") { " launchers" } else { "" };
            let call = format!("{method} {}{list}", uri.path());
            let answer = answer(&call);
            kept.send_modify(|calls: &mut Vec<String>| calls.push(call));
            answer
        };
        tokio::spawn(axum::serve(listener, Router::new().fallback(handler)).into_future());
        Self { docker: Docker::connect(&address, "edge"), calls }
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.calls.borrow().clone()
    }

    /// Returns once there was such a call.
    pub(crate) async fn called(&self, call: &str) {
        let mut calls = self.calls.subscribe();
        calls.wait_for(|calls| calls.iter().any(|made| made == call)).await.unwrap();
    }
}

pub(crate) fn refused(status: u16, message: &str) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, Json(json!({ "message": message }))).into_response()
}

pub(crate) fn unexpected(call: &str) -> Response {
    refused(500, &format!("unexpected: {call}"))
}

pub(crate) fn done() -> Response {
    StatusCode::NO_CONTENT.into_response()
}

pub(crate) fn runner_labels(runner: &str) -> Labels {
    Labels {
        instance: "edge".into(),
        pool: "default".into(),
        runner: runner.into(),
        host: "github.com".into(),
        target: "org:acme".into(),
        launched_unix_ms: 17,
        devices: Vec::new(),
        parameters: String::new(),
        parked: None,
    }
}

/// As `docker inspect` shows a runner.
pub(crate) fn inspected(labels: &Labels, status: &str, network: &str) -> Value {
    json!({
        "Id": "0f",
        "Config": { "Labels": labels.to_map(), "Env": ["TOKEN=sesame-1", "HOME=/home/runner"] },
        "State": { "Status": status, "ExitCode": 3 },
        "HostConfig": { "NetworkMode": network },
    })
}

/// As `docker ps` lists a runner.
pub(crate) fn summary(runner: &str, state: &str) -> Value {
    let labels = runner_labels(runner).to_map();
    json!({ "Id": format!("id-{runner}"), "State": state, "Labels": labels })
}

pub(crate) fn dind_summary(runner: &str) -> Value {
    let labels = super::dind_labels(&runner_labels(runner));
    json!({ "Id": format!("id-{runner}-dind"), "State": "running", "Labels": labels })
}

pub(crate) fn order(container: Container) -> Order {
    let mut pool = Config::load(None, &|_| None).unwrap().pools.remove(0);
    pool.container = container;
    let images = Images::new(&pool.container, &[]);
    Order::new(runner_labels("edge-1"), images, &pool, Vec::new(), u64::MAX)
}

/// One chunk of a log.
pub(crate) fn log_frame(text: &str) -> Bytes {
    let mut frame = vec![1, 0, 0, 0, 0, 0, 0, text.len() as u8];
    frame.extend_from_slice(text.as_bytes());
    Bytes::from(frame)
}
