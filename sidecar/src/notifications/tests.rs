//! A notifier with a receiver that responds as each test says.

use std::sync::{Arc, Mutex};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

use super::*;
use crate::config::NotificationFormat;

struct Receiver {
    url: String,
    bodies: watch::Receiver<Vec<Value>>,
    /// The responses to the next requests; 200 after that.
    responses: Arc<Mutex<Vec<StatusCode>>>,
}

type Kept = (watch::Sender<Vec<Value>>, Arc<Mutex<Vec<StatusCode>>>);

impl Receiver {
    async fn start(responses: &[StatusCode]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/messages", listener.local_addr().unwrap());
        let (sender, bodies) = watch::channel(Vec::new());
        let responses = Arc::new(Mutex::new(responses.to_vec()));
        let receive = async |State((bodies, responses)): State<Kept>, body: Bytes| {
            let body = serde_json::from_slice(&body).unwrap();
            bodies.send_modify(|bodies| bodies.push(body));
            let mut responses = responses.lock().unwrap();
            if responses.is_empty() { StatusCode::OK } else { responses.remove(0) }
        };
        let state: Kept = (sender, Arc::clone(&responses));
        let router = Router::new().route("/messages", post(receive)).with_state(state);
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, bodies, responses }
    }

    fn notifier(&self) -> Notifier {
        let url = self.url.parse().unwrap();
        let config = NotificationsConfig { url, secret: None, format: NotificationFormat::Json };
        let (notifier, mut sender) = open(config, "edge").unwrap();
        sender.retries = sender.retries.with_min_delay(Duration::from_millis(1)).with_max_times(2);
        tokio::spawn(sender.run());
        notifier
    }

    /// The subjects of the requests, once there are this many.
    async fn subjects(&mut self, count: usize) -> Vec<String> {
        let bodies = self.bodies.wait_for(|bodies| bodies.len() >= count).await.unwrap();
        bodies.iter().map(|body| body["subject"].as_str().unwrap().to_owned()).collect()
    }
}

fn died(pool: &str) -> Notice {
    let (subject, message) = (pool.to_owned(), "a runner died".to_owned());
    Notice { kind: Kind::RunnerDied, subject, message, at: 1 }
}

#[tokio::test]
async fn a_message_is_sent_again_only_if_that_may_help() {
    let unavailable = StatusCode::SERVICE_UNAVAILABLE;
    let mut receiver = Receiver::start(&[unavailable, unavailable]).await;
    let notifier = receiver.notifier();
    notifier.notify(died("a"));
    assert_eq!(receiver.subjects(3).await, ["a", "a", "a"]);
    receiver.responses.lock().unwrap().push(StatusCode::NOT_FOUND);
    notifier.notify(died("b"));
    notifier.notify(died("c"));
    assert_eq!(receiver.subjects(5).await[3..], ["b", "c"]);
    let bodies = receiver.bodies.borrow();
    assert_eq!(bodies[0]["id"], bodies[2]["id"], "a repeated message has the same id");
    assert_ne!(bodies[2]["id"], bodies[3]["id"]);
}

#[tokio::test]
async fn the_same_cause_is_sent_once() {
    let mut receiver = Receiver::start(&[]).await;
    let notifier = receiver.notifier();
    for pool in ["a", "a", "b", "a", "c"] {
        notifier.notify(died(pool));
    }
    assert_eq!(receiver.subjects(3).await, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_holds_up_nobody() {
    // Connections are accepted by the system, and nobody reads them.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let config = NotificationsConfig { url, secret: None, format: NotificationFormat::Json };
    let (notifier, sender) = open(config, "edge").unwrap();
    tokio::spawn(sender.run());
    let begun = Instant::now();
    for pool in 0..3 * WAITING_MAX {
        notifier.notify(died(&pool.to_string()));
    }
    assert!(begun.elapsed() < Duration::from_secs(1));
}
