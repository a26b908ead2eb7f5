//! The page with a Docker Swarm of four nodes, as one of its managers lists them.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Options, Stack};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::browser::{Browser, NARROW, WIDE};
use crate::measure::accessible;

const API_TOKEN: &str = "api-token-sesame";
/// Runners on the first node.
const RUNNERS: usize = 3;

pub(crate) async fn run() {
    let nodes = Arc::new(Mutex::new(nodes()));
    let managers = manage(Arc::clone(&nodes)).await.expect("a manager");
    let options = Options::default()
        .file(&format!("[swarm]\nmanagers = [\"{managers}\"]\nlauncher_image = \"edgerunner\"\n"))
        .sidecar("SERVER_API_TOKEN", API_TOKEN);
    Stack::run(options, async |stack| {
        Browser::run(async |browser| {
            browser.emulate(WIDE, "light").await?;
            browser.open(&stack.sidecar.page()).await?;
            let shows = async |id: &str, text: &str| {
                let shown = format!("document.getElementById('{id}').textContent");
                browser.until(&format!("{shown}.includes('{text}')")).await
            };
            for text in ["build-1 leader", "2.5 of 8", "build-3 worker: heartbeat failure"] {
                shows("nodes", text).await?;
            }
            shows("attention", "1 node down").await?;
            shows("attention", "1 node with an old Docker Engine").await?;
            shows("runners", "build-1").await?;
            shows("runners", "Unreachable").await?;
            shows("runners", "no answer from its node for").await?;
            let header = "document.querySelector('#runners th.node').offsetWidth > 0";
            browser.until(header).await?;

            let printed = stack.sidecar.print(&["nodes", "drain", "build-1"]).await?;
            let finish = format!("its {RUNNERS} runners finish, nothing new is launched there");
            ensure!(printed.contains(&finish), "{printed}");
            shows("attention", "1 node drained").await?;
            for (name, size, scheme) in [
                ("nodes", WIDE, "light"),
                ("nodes-dark", WIDE, "dark"),
                ("nodes-narrow", NARROW, "light"),
            ] {
                browser.emulate(size, scheme).await?;
                accessible(browser, name).await?;
                browser.screenshot(name).await?;
            }
            browser.emulate(WIDE, "light").await?;
            let printed = stack.sidecar.print(&["nodes", "resume", "build-1"]).await?;
            ensure!(printed.contains("runners are launched there again"), "{printed}");
            let printed = stack.sidecar.print(&["runners"]).await?;
            ensure!(printed.contains("NODE") && printed.contains("build-1"), "{printed}");
            let printed = stack.sidecar.print(&["status"]).await?;
            ensure!(printed.contains("Nodes: 4, 1 down, 1 with an Engine"), "{printed}");
            let printed = stack.sidecar.print(&["nodes"]).await?;
            ensure!(printed.contains("build-3 is down") && !printed.contains("drain"), "{printed}");

            // Without a Swarm there is no panel.
            nodes.lock().expect("no panic").clear();
            browser.until("document.querySelector('.panel.nodes').hidden").await?;
            browser.until(&format!("!({header})")).await?;
            browser.no_errors("").await
        })
        .await
    })
    .await;
}

pub(crate) fn nodes() -> Vec<Value> {
    let node = |name: &str, engine: &str, state: &str, message: &str| {
        json!({
            "ID": format!("id-of-{name}"), "Version": { "Index": 7 },
            "Spec": { "Role": "worker", "Availability": "active", "Labels": { "disk": "ssd" } },
            "Description": {
                "Hostname": name, "Engine": { "EngineVersion": engine },
                "Resources": { "NanoCPUs": 8_000_000_000_i64, "MemoryBytes": 16_i64 << 30 },
            },
            "Status": { "State": state, "Message": message, "Addr": "127.0.0.1" },
        })
    };
    let mut nodes = vec![
        node("build-1", "26.1.5", "ready", ""),
        node("build-2", "28.5.2", "ready", ""),
        node("build-3", "26.1.5", "down", "heartbeat failure"),
        node("build-4", "20.10.24", "ready", ""),
    ];
    nodes[0]["ManagerStatus"] = json!({ "Leader": true, "Reachability": "reachable" });
    nodes
}

/// The tasks of runners, while there are nodes.
fn tasks(nodes: &[Value], instance: &str) -> Value {
    let task = |index: usize| {
        json!({
            "ID": format!("task-{index}"), "ServiceID": format!("service-{index}"),
            // The last one on the node that is down.
            "NodeID": nodes[if index < RUNNERS { 0 } else { 2 }]["ID"], "CreatedAt": "2026-01-31T10:00:00Z",
            "Spec": {
                "ContainerSpec": { "Labels": {
                    "dev.edgerunner.launcher": format!("{instance}.swarm"),
                    "dev.edgerunner.runner": format!("{instance}-swarm-{index}"),
                    "dev.edgerunner.pool": "default",
                    "dev.edgerunner.target": "repo:acme/app",
                } },
                "Resources": { "Reservations": {
                    "NanoCPUs": if index == 0 { 500_000_000 } else { 1_000_000_000 },
                    "MemoryBytes": 2_i64 << 30,
                } },
            },
            "Status": { "State": "running" }, "DesiredState": "complete",
        })
    };
    let runners = if nodes.is_empty() { 0 } else { RUNNERS + 1 };
    (0..runners).map(task).collect()
}

/// A manager that lists `nodes` and changes their availability. Returns its address.
pub(crate) async fn manage(nodes: Arc<Mutex<Vec<Value>>>) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("tcp://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let nodes = Arc::clone(&nodes);
            tokio::spawn(async move {
                // On any error the client's connection ends.
                let _ = answer(client, &nodes).await;
            });
        }
    });
    Ok(address)
}

/// Answers one request and closes the connection.
async fn answer(mut client: TcpStream, nodes: &Mutex<Vec<Value>>) -> Result<()> {
    let mut request = Vec::new();
    let (head, body) = loop {
        ensure!(client.read_buf(&mut request).await? > 0, "the request is cut off");
        let text = std::str::from_utf8(&request)?;
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
        });
        if body.len() >= length.unwrap_or(0) {
            break (head, body);
        }
    };
    let path = head.split(' ').nth(1).context("no path")?;
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (status, response) = {
        let mut nodes = nodes.lock().expect("no panic");
        // Some calls name a version.
        let names = path.split('/').filter(|name| !name.is_empty() && !name.starts_with("v1."));
        match names.collect::<Vec<_>>()[..] {
            ["tasks"] => ("200 OK", tasks(&nodes, &instance(query)?)),
            ["nodes"] => ("200 OK", nodes.clone().into()),
            ["services" | "secrets"] => ("200 OK", json!([])),
            ["nodes", id] | ["nodes", id, "update"] => {
                let node = nodes.iter_mut().find(|node| node["ID"] == id).context("no node")?;
                if !body.is_empty() {
                    node["Spec"] = serde_json::from_str(body)?;
                }
                ("200 OK", node.clone())
            }
            _ => ("404 Not Found", json!({ "message": format!("no {path}") })),
        }
    };
    let response = response.to_string();
    let response = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{response}",
        response.len()
    );
    Ok(client.write_all(response.as_bytes()).await?)
}

/// That of the label in the filter.
fn instance(query: &str) -> Result<String> {
    let mut parameters = form_urlencoded::parse(query.as_bytes());
    let (_, filters) = parameters.find(|(name, _)| name == "filters").context("no filters")?;
    let filters: Value = serde_json::from_str(&filters)?;
    let label = filters["label"][0].as_str().context("no label")?;
    label.strip_prefix("dev.edgerunner.instance=").map(str::to_owned).context("another label")
}
