//! Runs the runners of pods in this process, as a kubelet runs containers.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use edgerunner_sandbox::runner::{self, Config};
use edgerunner_testkit::kubernetes::ApiServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

/// Ends with the test.
pub struct Kubelet {
    _watch: AbortOnDropHandle<()>,
}

impl Kubelet {
    pub fn start(api: &ApiServer) -> Self {
        let api = api.clone();
        let watch = async move {
            let mut changes = api.changes();
            // By pod.
            let mut stops: HashMap<String, CancellationToken> = HashMap::new();
            loop {
                changes.borrow_and_update();
                stops.retain(|name, stop| {
                    let pod = api.get("pods", name);
                    if pod.as_ref().is_none_or(|it| !it["metadata"]["deletionTimestamp"].is_null())
                    {
                        stop.cancel();
                    }
                    pod.is_some()
                });
                for name in api.names("pods") {
                    // It mounts the Secret first.
                    let Some(secret) = api.get("secrets", &name) else { continue };
                    if let std::collections::hash_map::Entry::Vacant(entry) = stops.entry(name) {
                        let stop = CancellationToken::new();
                        tokio::spawn(run(api.clone(), entry.key().clone(), secret, stop.clone()));
                        entry.insert(stop);
                    }
                }
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        Self { _watch: AbortOnDropHandle::new(tokio::spawn(watch)) }
    }
}

async fn run(api: ApiServer, pod: String, secret: Value, stop: CancellationToken) {
    let status = |phase: &str, state: Value| {
        json!({
            "spec": { "nodeName": "node-1" },
            "status": {
                "phase": phase,
                "conditions": [{ "type": "PodScheduled", "status": "True" },
                               { "type": "Ready", "status": "True" }],
                "containerStatuses": [{ "name": "runner", "image": "runner", "imageID": "",
                    "ready": true, "restartCount": 0, "state": state }],
            },
        })
    };
    api.update(&pod, &status("Running", json!({ "running": {} })));
    let ended = async {
        let environment = environment(&secret)?;
        let config = Config::from_env(|name| environment.get(name).cloned())?;
        anyhow::Ok(runner::run(config, stop).await?)
    };
    let code = match ended.await {
        Ok(_) => 0,
        Err(error) => {
            eprintln!("pod {pod}: {error:#}");
            2
        }
    };
    let is_deleted = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    if api.get("pods", &pod).as_ref().is_some_and(is_deleted) {
        api.remove(&pod);
    } else {
        let phase = if code == 0 { "Succeeded" } else { "Failed" };
        // In place of the state before.
        let state = json!({ "running": null, "terminated": { "exitCode": code } });
        api.update(&pod, &status(phase, state));
    }
}

fn environment(secret: &Value) -> Result<BTreeMap<String, String>> {
    let data = secret["data"].as_object().context("an empty Secret")?.iter();
    let variables = data.filter_map(|(key, value)| Some((key.strip_prefix("env.")?, value)));
    variables
        .map(|(name, value)| {
            let value = BASE64_STANDARD.decode(value.as_str().unwrap_or_default())?;
            Ok((name.to_owned(), String::from_utf8(value)?))
        })
        .collect()
}
