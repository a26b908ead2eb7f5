//! Many jobs at once on a bounded number of runners, beside the same containers
//! started through the Docker API alone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::image;
use crate::ports::local;
use crate::programs::Secrets;
use crate::progress::{Step, seconds};
use crate::sandbox::Sandbox;
use crate::stack::Stack;

/// Runners at once, and containers at once on the other side.
pub(super) const MAX: usize = 40;

const LOOK_INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(600);
const LABEL: (&str, &str) = ("dev.edgerunner.bench", "burst");
/// No pool has it, so these jobs wait for the bare containers.
const BARE: &str = "bare";

pub(super) async fn measure(stack: &Stack, secrets: &Secrets, jobs: u32) -> Result<Table> {
    let mut step = Step::start(format!("{jobs} jobs at once"));
    step.detail("edgerunner");
    let ours = timeout(TIMEOUT, Box::pin(through_edgerunner(stack, jobs))).await??;
    step.detail("the Docker API alone");
    let bare = timeout(TIMEOUT, Box::pin(directly(stack, secrets, jobs))).await??;
    step.done("");

    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        &format!("{jobs} jobs at once, at most {MAX} containers"),
        "until all are over and gone",
        "per second",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for (name, took) in [
        ("edgerunner: webhooks through Envoy, credentials, containers", ours),
        ("Docker API alone: the same containers, with credentials", bare),
    ] {
        let rate = f64::from(jobs) / took.as_secs_f64();
        table.add_row([name.to_owned(), seconds(took), format!("{rate:.1}")]);
    }
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    table.add_row(["  edgerunner to Docker alone".to_owned(), format!("{ratio:.2} ×")]);
    Ok(table)
}

async fn through_edgerunner(stack: &Stack, jobs: u32) -> Result<Duration> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    let begun = Instant::now();
    let queued = sandbox.queue_all(&request("self-hosted", jobs)).await?;
    until_over(&sandbox, &queued).await?;
    while !stack.containers().await?.is_empty() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
    Ok(begun.elapsed())
}

async fn directly(stack: &Stack, secrets: &Secrets, jobs: u32) -> Result<Duration> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    // The sidecar is to have no part in it.
    sandbox.set_faults(&json!({ "deliveries": [{ "fault": "vanished" }] })).await?;
    let begun = Instant::now();
    let queued = sandbox.queue_all(&request(BARE, jobs)).await?;
    let next = Arc::new(AtomicU32::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..MAX {
        let (docker, token) = (stack.engine().client().clone(), secrets.token().to_owned());
        let next = Arc::clone(&next);
        workers.spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= jobs {
                    return Ok(());
                }
                let credentials = sandbox.credentials(&token, &registration(number)).await?;
                Box::pin(container(&docker, credentials)).await?;
            }
        });
    }
    while let Some(worker) = workers.join_next().await {
        let worked: Result<()> = worker?;
        worked?;
    }
    until_over(&sandbox, &queued).await?;
    let took = begun.elapsed();
    sandbox.set_faults(&json!({})).await?;
    Ok(took)
}

/// From its creation to its removal.
async fn container(docker: &Docker, credentials: String) -> Result<()> {
    let (name, value) = LABEL;
    let body = ContainerCreateBody {
        image: Some(image::RUNNER.to_owned()),
        env: Some(vec![format!("{}={credentials}", image::CREDENTIALS)]),
        labels: Some(HashMap::from([(name.to_owned(), value.to_owned())])),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let id = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
    docker.start_container(&id, None::<StartContainerOptions>).await?;
    let mut waiting = std::pin::pin!(docker.wait_container(&id, None::<WaitContainerOptions>));
    waiting.next().await.context("Docker does not tell of the end")??;
    let options = RemoveContainerOptionsBuilder::default().v(true).build();
    Ok(docker.remove_container(&id, Some(options)).await?)
}

async fn until_over(sandbox: &Sandbox, queued: &[u64]) -> Result<()> {
    loop {
        let mut jobs = sandbox.jobs().await?;
        jobs.retain(|job| queued.contains(&job.id));
        if jobs.iter().all(|job| job.status == "completed") {
            let failed = jobs.iter().filter(|it| it.conclusion.as_deref() != Some("success"));
            let failed = failed.count();
            ensure!(failed == 0, "{failed} of {} jobs failed", jobs.len());
            return Ok(());
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn request(label: &str, count: u32) -> Value {
    json!({ "repository": "acme/app", "labels": [label], "seconds": 0.0, "count": count })
}

fn registration(number: u32) -> Value {
    json!({ "name": format!("bare-{number}"), "runner_group_id": 1, "labels": [BARE] })
}
