//! Over a real socket, with a planner in the driver's place.

use metrics_exporter_prometheus::PrometheusBuilder;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::*;
use crate::{
    client, clock,
    config::Config,
    plan::{self, Event},
};

const TOKEN: &str = "s3cret";

struct Served {
    address: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn start(token: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(&directory.path().join("edgerunner.db")).unwrap();
        let mut settings = Config::load(None, &|_| None).unwrap().planner_settings();
        settings.pools.push(Pool { name: "gpu".into(), ..settings.pools[0].clone() });
        let pools = settings.pools.clone().into();
        let (inputs, mut receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut state = plan::State::new(settings, 1);
            while let Some(input) = receiver.recv().await {
                match input {
                    Input::Look(reply) => {
                        drop(reply.send(Snapshot::of(&state, clock::now())));
                    }
                    Input::Drain { pool, draining, reply } => {
                        plan::plan(&mut state, Event::Drain { pool, draining }, 1);
                        drop(reply.send(Ok(())));
                    }
                    Input::Event(event) => panic!("{event:?}"),
                }
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let api = Api::new(
            store,
            inputs,
            pools,
            Authorization::new(token.map(Into::into)),
            address,
            Arc::default(),
            PrometheusBuilder::new().build_recorder().handle(),
        );
        tokio::spawn(axum::serve(listener, api.router()).into_future());
        Self { address, _directory: directory }
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Result<Value, String> {
        let url = format!("http://{}{path}", self.address);
        let request = client::post_request(&url, &SecretString::from(token), &body).unwrap();
        client::call(&url, request).await.map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn one_pool_or_all_drain_and_resume() {
    let served = Served::start(Some(TOKEN)).await;
    let post = async |path, pool: Option<&str>| {
        served.post(path, TOKEN, json!({ "pool": pool })).await.unwrap()
    };
    let (drain, resume) = ("/api/v1/drain", "/api/v1/resume");
    let draining = |all: bool, pools: &[&str]| json!({ "draining": all, "pools": pools });
    assert_eq!(post(drain, Some("gpu")).await, draining(false, &["gpu"]));
    assert_eq!(post(drain, None).await, draining(true, &["gpu"]));
    assert_eq!(post(resume, Some("gpu")).await, draining(true, &[]));
    assert_eq!(post(drain, Some("default")).await, draining(true, &["default"]));
    assert_eq!(post(resume, None).await, draining(false, &[]));
}

#[tokio::test]
async fn nothing_changes_without_the_token_or_for_what_is_not_understood() {
    let refused = async |served: &Served, token: &str, body: Value, status: &str, why: &str| {
        let error = served.post("/api/v1/drain", token, body).await.unwrap_err();
        assert!(error.contains(status) && error.contains(why), "{error}");
    };
    let all = || json!({ "pool": null });
    let served = Served::start(Some(TOKEN)).await;
    refused(&served, "another", all(), "401", "server.api_token").await;
    // Before a look at the body.
    refused(&served, "another", json!("?"), "401", "server.api_token").await;
    refused(&served, TOKEN, json!({ "pool": "gpo" }), "404", "default, gpu").await;
    refused(&served, TOKEN, json!({ "pol": "gpu" }), "422", "pol").await;
    let without = Served::start(None).await;
    refused(&without, TOKEN, all(), "403", "set server.api_token").await;
}
