//! Many jobs at once on a limited number of runners, compared with the same containers
//! started through the Docker API.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::query_parameters::WaitContainerOptions;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::programs::variable;
use edgerunner_testkit::sandbox::SandboxClient;
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bare;
use crate::engines::Engines;
use crate::table::table;

/// Runners at the same time on one Engine.
pub(crate) const MAX: usize = 40;

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Where the jobs run.
pub(crate) struct Burst {
    pub(crate) place: &'static str,
    /// How long each job works.
    pub(crate) seconds: f64,
    pub(crate) ours: &'static str,
    pub(crate) bare: &'static str,
    /// Runners at the same time, and containers at the same time on the other side.
    pub(crate) max: usize,
    /// For all jobs of one side.
    pub(crate) limit: Duration,
}

pub(crate) const ON_ONE_ENGINE: Burst = Burst {
    place: "",
    seconds: 0.0,
    ours: "edgerunner: webhooks through Envoy, credentials, containers",
    bare: "Docker API alone: the same containers, with credentials",
    max: MAX,
    limit: Duration::from_secs(600),
};

/// How many jobs a burst has.
pub(crate) fn jobs() -> Result<u32> {
    Ok(variable("EDGERUNNER_BENCH_BURST")?.parse()?)
}

pub(crate) async fn measure(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    burst: &Burst,
) -> Result<String> {
    let (jobs, Burst { place, seconds, max, limit, .. }) = (jobs()?, burst);
    let ours = Box::pin(through_edgerunner(deployment, jobs, *seconds));
    let ours = timeout(*limit, ours).await??;
    let directly = directly(deployment, engines, token, jobs, burst);
    let bare = timeout(*limit, Box::pin(directly)).await??;

    let mut table = table([
        &format!("{jobs} jobs of {seconds} s at once{place}, at most {max} containers"),
        "until all are completed and removed",
        "per second",
    ]);
    for (name, took) in [(burst.ours, ours), (burst.bare, bare)] {
        let seconds = took.as_secs_f64();
        let rate = f64::from(jobs) / seconds;
        table.add_row([name.to_owned(), format!("{seconds:.1} s"), format!("{rate:.1}")]);
    }
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    table.add_row(["  edgerunner compared with Docker".to_owned(), format!("{ratio:.2} ×")]);
    Ok(table.to_string())
}

async fn through_edgerunner(deployment: &Deployment, jobs: u32, seconds: f64) -> Result<Duration> {
    let sandbox = deployment.sandbox();
    let started = Instant::now();
    let queued = sandbox.queue(&request("self-hosted", jobs, seconds)).await?;
    until_completed(&sandbox, &queued).await?;
    while !deployment.containers.list().await?.is_empty() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(started.elapsed())
}

async fn directly(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    jobs: u32,
    burst: &Burst,
) -> Result<Duration> {
    let sandbox = deployment.sandbox();
    // The sidecar must not take part.
    sandbox.set_faults(&json!({ "deliveries": [{ "fault": "vanished" }] })).await?;
    let started = Instant::now();
    let queued = sandbox.queue(&request(bare::RUNNER_LABEL, jobs, burst.seconds)).await?;
    let next = AtomicU32::new(0);
    try_join_all((0..burst.max).map(async |_| {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= jobs {
                return anyhow::Ok(());
            }
            Box::pin(container(deployment, engines.next(), token, number)).await?;
        }
    }))
    .await?;
    until_completed(&sandbox, &queued).await?;
    let took = started.elapsed();
    sandbox.set_faults(&json!({})).await?;
    Ok(took)
}

/// From its creation to its removal.
async fn container(
    deployment: &Deployment,
    docker: &Docker,
    token: &str,
    number: u32,
) -> Result<()> {
    let id = bare::start(deployment, docker, token, &format!("bare-{number}")).await?;
    let mut waiting = std::pin::pin!(docker.wait_container(&id, None::<WaitContainerOptions>));
    waiting.next().await.context("Docker does not report the end")??;
    bare::remove(docker, &id).await
}

async fn until_completed(sandbox: &SandboxClient, queued: &[u64]) -> Result<()> {
    loop {
        let mut jobs = sandbox.jobs().await?;
        jobs.retain(|job| queued.contains(&job.id));
        if jobs.iter().all(|job| job.status == "completed") {
            let failed = jobs.iter().filter(|it| it.conclusion.as_deref() != Some("success"));
            let failed = failed.count();
            ensure!(failed == 0, "{failed} of {} jobs failed", jobs.len());
            return Ok(());
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn request(label: &str, count: u32, seconds: f64) -> Value {
    json!({ "repository": "acme/app", "labels": [label], "seconds": seconds, "count": count })
}
