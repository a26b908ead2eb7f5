//! A sidecar with thousands of runners on a Docker Swarm whose manager is pretended: it answers
//! polls with tasks as Engine 26.1.5 lists them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use edgerunner_testkit::{Programs, Sidecar, ports};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::swarm::POLL_SECONDS;

/// How long a sidecar is watched.
const WATCHED: Duration = Duration::from_secs(20);
const ADOPTED_WITHIN: Duration = Duration::from_secs(60);
const NODES: usize = 3;

/// What a sidecar takes.
pub(crate) struct Figures {
    pub(crate) memory_mib: u64,
    /// Of one core.
    pub(crate) cpu: f64,
    /// Seconds, of one poll.
    pub(crate) poll: f64,
}

pub(crate) async fn measure(programs: &Programs, runners: usize) -> Result<Figures> {
    let manager = start_manager(runners).await?;
    let directory = TempDir::new()?;
    let variables = [
        ("SWARM_MANAGERS", format!("tcp://{manager}")),
        ("SWARM_LAUNCHER_IMAGE", "edgerunner:local".to_owned()),
        ("RUNNER_PROVIDER", "swarm".to_owned()),
        ("RUNNER_MAX", "10000".to_owned()),
        // They are neither looked up nor given up while they are watched.
        ("RUNNER_STARTING_TIMEOUT_SECONDS", "86400".to_owned()),
        ("SCHEDULER_INSTANCE", INSTANCE.to_owned()),
        ("GITHUB_TOKEN", "sandbox-token".to_owned()),
        ("GITHUB_API_URL", "http://127.0.0.1:9".to_owned()),
        ("MISSED_WEBHOOKS_ENABLED", "false".to_owned()),
        // No Engine is there: runners on the Swarm need none.
        ("DOCKER_HOST", "tcp://127.0.0.1:9".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let addresses = (ports::free()?, ports::free()?);
    // Processor time is counted by process group.
    let programs = Programs { own_groups: true, ..programs.clone() };
    let mut sidecar =
        Sidecar::new(&programs, directory.path(), addresses, variables).with_sandbox_runners();
    sidecar.start().await?;
    let deadline = Instant::now() + ADOPTED_WITHIN;
    while sidecar.status().await?["runners_live"] != runners {
        ensure!(Instant::now() < deadline, "the sidecar has not adopted all runners in time");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    // The response above needed memory as well, which a sidecar that is not asked does not.
    let process = sidecar.process()?;
    let (began, cpu, polls) = (Instant::now(), process.cpu()?, polls(&sidecar).await?);
    tokio::time::sleep(WATCHED).await;
    let spent = process.cpu()?.saturating_sub(cpu).as_secs_f64() / began.elapsed().as_secs_f64();
    let memory_mib = process.memory_kib()? / 1024;
    let (seconds, count) = self::polls(&sidecar).await?;
    sidecar.kill().await?;
    ensure!(count > polls.1, "the sidecar has not polled");
    Ok(Figures { memory_mib, cpu: spent, poll: (seconds - polls.0) / (count - polls.1) })
}

const INSTANCE: &str = "bench";

async fn start_manager(runners: usize) -> Result<SocketAddr> {
    let tasks: Vec<Value> = (0..runners).map(task).collect();
    let tasks = Bytes::from(serde_json::to_vec(&tasks)?);
    let nodes: Vec<Value> = (0..NODES).map(node).collect();
    let router = Router::new()
        .route("/tasks", get(move || std::future::ready(tasks.clone())))
        .route("/nodes", get(move || std::future::ready(Json(nodes.clone()))))
        .fallback(|| std::future::ready(Json(json!([]))));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(axum::serve(listener, router).into_future());
    Ok(address)
}

/// As Engine 26.1.5 lists the task of a launcher.
fn task(number: usize) -> Value {
    let runner = format!("{INSTANCE}-default-{number:012x}");
    json!({
        "ID": format!("t{number:024x}"),
        "Version": { "Index": 1000 + number },
        "CreatedAt": "2026-11-28T10:00:00.123456789Z",
        "UpdatedAt": "2026-11-28T10:00:01.123456789Z",
        "Labels": {},
        "Spec": {
            "ContainerSpec": {
                "Image": "edgerunner:local",
                "Labels": {
                    "dev.edgerunner.host": "github.com",
                    "dev.edgerunner.launched": "1790000000000",
                    "dev.edgerunner.launcher": format!("{INSTANCE}.swarm"),
                    "dev.edgerunner.pool": "default",
                    "dev.edgerunner.runner": runner,
                    "dev.edgerunner.target": "repo:acme/app",
                },
                "Args": ["launch", "--order", "/run/secrets/order"],
                "Env": ["DOCKER_HOST=unix:///var/run/docker.sock"],
                "User": "0:0",
                "ReadOnly": true,
                "Mounts": [{ "Type": "bind", "Source": "/var/run/docker.sock",
                             "Target": "/var/run/docker.sock" }],
                "StopGracePeriod": 25_000_000_000_u64,
                "Secrets": [{ "File": { "Name": "/run/secrets/order", "UID": "0", "GID": "0",
                                        "Mode": 256 },
                              "SecretID": format!("s{number:024x}"), "SecretName": runner }],
                "Isolation": "default",
                "CapabilityDrop": ["ALL"],
            },
            "Resources": { "Limits": { "MemoryBytes": 67_108_864, "Pids": 64 },
                           "Reservations": { "NanoCPUs": 1_000_000_000 } },
            "RestartPolicy": { "Condition": "none", "MaxAttempts": 0 },
            "Placement": {},
            "Networks": [{ "Target": "host" }],
            "LogDriver": { "Name": "json-file", "Options": { "max-file": "1", "max-size": "1m" } },
            "ForceUpdate": 0,
        },
        "ServiceID": format!("v{number:024x}"),
        "Slot": 1,
        "NodeID": format!("node-{}", number % NODES),
        "Status": {
            "Timestamp": "2026-11-28T10:00:01.123456789Z", "State": "running", "Message": "started",
            "ContainerStatus": { "ContainerID": format!("{number:064x}"), "PID": 4242,
                                 "ExitCode": 0 },
            "PortStatus": {},
        },
        "DesiredState": "complete",
        "JobIteration": { "Index": 0 },
    })
}

fn node(number: usize) -> Value {
    json!({
        "ID": format!("node-{number}"),
        "Spec": { "Availability": "active", "Role": "manager", "Labels": {} },
        "Description": { "Hostname": format!("build-{number}"),
            "Resources": { "NanoCPUs": 64_000_000_000_u64, "MemoryBytes": 1_u64 << 38 },
            "Engine": { "EngineVersion": "26.1.5" } },
        "Status": { "State": "ready", "Addr": "10.0.0.1" },
        "ManagerStatus": { "Leader": number == 0, "Reachability": "reachable" },
    })
}

/// The seconds of all polls, and their number.
async fn polls(sidecar: &Sidecar) -> Result<(f64, f64)> {
    let metrics = sidecar.metrics().await?;
    let value = |suffix: &str| -> Result<f64> {
        let name = format!("{POLL_SECONDS}_{suffix}");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        let value = line.and_then(|rest| rest.split_whitespace().last());
        value.with_context(|| format!("no metric {name}"))?.parse().context("not a number")
    };
    Ok((value("sum")?, value("count")?))
}
