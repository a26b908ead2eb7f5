//! An API server of Kubernetes in memory: pods, secrets and ConfigMaps with lists and watches, and
//! with faults on demand. Nothing runs the pods: a test writes their status.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    serve::Listener,
};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::{Identity, tls};

/// The only one.
pub const NAMESPACE: &str = "runners";

type BoxError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Default)]
pub struct ApiServer {
    state: Arc<Mutex<State>>,
    /// All so far, as `POST pods` or `DELETE pods/edge-1`.
    requests: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct State {
    version: u64,
    /// By resource and name.
    objects: BTreeMap<(String, String), Value>,
    /// Changes of pods, with their versions.
    history: Vec<(u64, Bytes)>,
    /// No watch may begin before it.
    oldest: u64,
    watchers: Vec<mpsc::UnboundedSender<Bytes>>,
    faults: VecDeque<(String, Fault)>,
    log: String,
    denied: HashSet<String>,
    /// The version after each change.
    changes: watch::Sender<u64>,
}

pub enum Fault {
    Status(u16, &'static str),
    /// With the seconds to wait.
    Busy(u16, u32),
    /// The response never comes.
    Silence,
    /// The connection breaks.
    Break,
    /// It breaks once the request is carried out.
    Lose,
    /// Something else answers.
    Nonsense(&'static str),
}

fn failure(code: u16, reason: &str, message: &str, seconds: u32) -> Response<Body> {
    let body = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "reason": reason, "message": message, "details": { "retryAfterSeconds": seconds } });
    Response::builder().status(code).body(Body::from(body.to_string())).unwrap()
}

fn success(body: &Value) -> Response<Body> {
    Response::new(Body::from(body.to_string()))
}

fn merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (name, field) in patch {
                merge(into.entry(name.clone()).or_insert(Value::Null), field);
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

impl ApiServer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves it over TLS until the test ends, to whoever has this token.
    pub async fn serve(&self, identity: &Identity, token: &str) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let listener = TlsListener { tcp, acceptor: tls::acceptor(identity).unwrap() };
        let (api, expected) = (self.clone(), format!("Bearer {token}"));
        let router = Router::new().fallback(move |request: Request<Body>| async move {
            if request.headers().get(AUTHORIZATION).is_none_or(|it| *it != *expected) {
                return failure(401, "Unauthorized", "Unauthorized", 0);
            }
            let answer = api.respond(request).await;
            answer.unwrap_or_else(|error| failure(500, "", &error.to_string(), 0))
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        address
    }

    // What tests do

    /// The next request that begins like this meets the fault.
    pub fn fault(&self, request: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push_back((request.to_owned(), fault));
    }

    /// No review permits this, such as `patch pods`.
    pub fn deny(&self, what: &str) {
        self.state.lock().unwrap().denied.insert(what.to_owned());
    }

    pub fn set_log(&self, log: &str) {
        self.state.lock().unwrap().log = log.to_owned();
    }

    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    pub async fn requested(&self, request: &str) {
        let mut requests = self.requests.subscribe();
        requests.wait_for(|made| made.iter().any(|it| it == request)).await.unwrap();
    }

    /// Changes from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.state.lock().unwrap().changes.subscribe()
    }

    pub fn get(&self, resource: &str, name: &str) -> Option<Value> {
        let key = (resource.to_owned(), name.to_owned());
        self.state.lock().unwrap().objects.get(&key).cloned()
    }

    pub fn names(&self, resource: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let here = state.objects.keys().filter(|(of, _)| of == resource);
        here.map(|(_, name)| name.clone()).collect()
    }

    /// Puts an object there, as somebody else may do.
    pub fn put(&self, resource: &str, object: Value) {
        self.state.lock().unwrap().store(resource, object, "ADDED");
    }

    /// Merges this into a pod, as the scheduler and the kubelet do. `false`: there is none.
    pub fn update(&self, pod: &str, change: &Value) -> bool {
        let state = &mut self.state.lock().unwrap();
        let found = state.objects.get(&("pods".to_owned(), pod.to_owned())).cloned();
        let Some(mut object) = found else { return false };
        merge(&mut object, change);
        state.store("pods", object, "MODIFIED");
        true
    }

    pub fn remove(&self, pod: &str) {
        self.state.lock().unwrap().remove("pods", pod);
    }

    /// All watches end.
    pub fn break_watches(&self) {
        self.state.lock().unwrap().watchers.clear();
    }

    /// The same, and they can only begin again with a list.
    pub fn compact(&self) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        state.oldest = state.version;
        state.history.clear();
        state.watchers.clear();
    }

    // What an API server does

    /// Fails if the connection is to break.
    pub async fn respond(&self, request: Request<Body>) -> Result<Response<Body>, BoxError> {
        let (parts, body) = request.into_parts();
        let body = &to_bytes(body, usize::MAX).await?;
        let (path, query) = (parts.uri.path(), parts.uri.query().unwrap_or_default());
        let parameters: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let path = path.trim_start_matches(&format!("/api/v1/namespaces/{NAMESPACE}/"));
        let watches = parameters.get("watch").is_some_and(|value| value == "true");
        let verb = if watches { "WATCH" } else { parts.method.as_str() };
        let request = format!("{verb} {path}");
        let fault = {
            let faults = &mut self.state.lock().unwrap().faults;
            let at = faults.iter().position(|(of, _)| request.starts_with(of));
            at.and_then(|at| faults.remove(at)).map(|(_, fault)| fault)
        };
        self.requests.send_modify(|requests| requests.push(request));
        match fault {
            Some(Fault::Status(code, message)) => return Ok(failure(code, "", message, 0)),
            Some(Fault::Busy(code, seconds)) => return Ok(failure(code, "", "busy", seconds)),
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Break) => return Err("connection reset".into()),
            Some(Fault::Nonsense(text)) => return Ok(Response::new(Body::from(text))),
            Some(Fault::Lose) => {
                self.state.lock().unwrap().carry_out(verb, path, &parameters, body);
                return Err("connection reset".into());
            }
            None => {}
        }
        Ok(self.state.lock().unwrap().carry_out(verb, path, &parameters, body))
    }
}

impl State {
    fn carry_out(
        &mut self,
        verb: &str,
        path: &str,
        parameters: &BTreeMap<String, String>,
        body: &[u8],
    ) -> Response<Body> {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let (resource, name) = path.split_once('/').unwrap_or((path, ""));
        match (verb, resource, name) {
            ("GET", "/version" | "", _) => success(&json!({ "major": "1", "minor": "37",
                "gitVersion": "v1.37.0", "gitCommit": "", "gitTreeState": "", "buildDate": "",
                "goVersion": "", "compiler": "", "platform": "" })),
            ("POST", _, _) if path.ends_with("selfsubjectaccessreviews") => {
                let asked = &sent["spec"]["resourceAttributes"];
                let part = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
                let mut what = format!("{} {}", part("verb"), part("resource"));
                if !part("subresource").is_empty() {
                    what = format!("{what}/{}", part("subresource"));
                }
                let mut answer = sent;
                answer["status"] = json!({ "allowed": !self.denied.contains(&what) });
                success(&answer)
            }
            ("POST", _, "") => self.create(resource, sent),
            ("WATCH", "pods", "") => self.watch(parameters),
            ("GET", _, "") => self.list(resource, parameters),
            ("GET", "pods", name) if name.ends_with("/log") => {
                Response::new(Body::from(self.log.clone()))
            }
            ("GET", _, _) => match self.objects.get(&(resource.to_owned(), name.to_owned())) {
                Some(found) => success(found),
                None => absent(resource, name),
            },
            ("PATCH", _, _) => {
                let key = (resource.to_owned(), name.to_owned());
                let Some(mut object) = self.objects.get(&key).cloned() else {
                    return absent(resource, name);
                };
                merge(&mut object, &sent);
                success(&self.store(resource, object, "MODIFIED"))
            }
            ("DELETE", _, _) => self.delete(resource, name, &sent),
            _ => failure(405, "", &format!("{verb} {path}"), 0),
        }
    }

    fn create(&mut self, resource: &str, mut object: Value) -> Response<Body> {
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if self.objects.contains_key(&(resource.to_owned(), name.clone())) {
            let message = format!("{resource} \"{name}\" already exists");
            return failure(409, "AlreadyExists", &message, 0);
        }
        object["metadata"]["uid"] = json!(format!("uid-{}", self.version + 1));
        object["metadata"]["namespace"] = json!(NAMESPACE);
        if resource == "pods" {
            object["status"] = json!({ "phase": "Pending" });
        }
        success(&self.store(resource, object, "ADDED"))
    }

    fn delete(&mut self, resource: &str, name: &str, options: &Value) -> Response<Body> {
        let key = (resource.to_owned(), name.to_owned());
        let Some(mut object) = self.objects.get(&key).cloned() else {
            return absent(resource, name);
        };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return failure(409, "Conflict", "the UID in the precondition is another", 0);
        }
        let is_over = matches!(object["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let waits = resource == "pods"
            && options["gracePeriodSeconds"] != 0
            && !object["spec"]["nodeName"].is_null()
            && !is_over;
        if waits {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            return success(&self.store(resource, object, "MODIFIED"));
        }
        self.remove(resource, name);
        success(&object)
    }

    fn list(&self, resource: &str, parameters: &BTreeMap<String, String>) -> Response<Body> {
        let from: usize = parameters.get("continue").map_or(0, |text| text.parse().unwrap());
        let limit = parameters.get("limit").map_or(usize::MAX, |text| text.parse().unwrap());
        let all: Vec<&Value> =
            self.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, it)| it).collect();
        let page: Vec<&Value> = all.iter().skip(from).take(limit).copied().collect();
        let next = from + page.len();
        let next = if next < all.len() { next.to_string() } else { String::new() };
        success(&json!({ "kind": "List", "apiVersion": "v1", "items": page,
            "metadata": { "resourceVersion": self.version.to_string(), "continue": next } }))
    }

    fn watch(&mut self, parameters: &BTreeMap<String, String>) -> Response<Body> {
        let from: u64 = parameters.get("resourceVersion").map_or(0, |text| text.parse().unwrap());
        if from < self.oldest {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure",
                "code": 410, "reason": "Expired", "message": "too old resource version" });
            let line = format!("{}\n", json!({ "type": "ERROR", "object": status }));
            return Response::new(Body::from(line));
        }
        let past: Vec<Bytes> = self
            .history
            .iter()
            .filter(|(version, _)| *version > from)
            .map(|(_, line)| line.clone())
            .collect();
        let (sender, receiver) = mpsc::unbounded_channel();
        self.watchers.push(sender);
        let lines = stream::iter(past).chain(UnboundedReceiverStream::new(receiver));
        Response::new(Body::from_stream(lines.map(Ok::<_, Infallible>)))
    }

    fn store(&mut self, resource: &str, mut object: Value, change: &str) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if resource == "pods" {
            self.announce(change, &object);
        }
        self.objects.insert((resource.to_owned(), name), object.clone());
        self.changes.send_replace(self.version);
        object
    }

    fn remove(&mut self, resource: &str, name: &str) {
        let Some(mut object) = self.objects.remove(&(resource.to_owned(), name.to_owned())) else {
            return;
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if resource == "pods" {
            self.announce("DELETED", &object);
        }
        self.changes.send_replace(self.version);
    }

    fn announce(&mut self, change: &str, pod: &Value) {
        let mut pod = pod.clone();
        merge(&mut pod, &json!({ "kind": "Pod", "apiVersion": "v1" }));
        let line = Bytes::from(format!("{}\n", json!({ "type": change, "object": pod })));
        self.history.push((self.version, line.clone()));
        self.watchers.retain(|watcher| watcher.send(line.clone()).is_ok());
    }
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // A client may not trust the certificate.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

fn absent(resource: &str, name: &str) -> Response<Body> {
    failure(404, "NotFound", &format!("{resource} \"{name}\" not found"), 0)
}
