//! Runners on a Docker Swarm of three Engines on this machine, compared with the same containers
//! started by hand, round robin on the same Engines; and a sidecar with thousands of them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::WaitContainerOptions;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::containers::events;
use edgerunner_testkit::deployment::{Secrets, Settings};
use edgerunner_testkit::ports::Ports;
use edgerunner_testkit::programs::{LAUNCHER_IMAGE, RUNNER_IMAGE, variable};
use edgerunner_testkit::{Cluster, Containers, Programs};
use futures_util::future::try_join_all;
use futures_util::stream::{SelectAll, select_all};
use futures_util::{Stream, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::burst::until_completed;
use crate::pretended;
use crate::spread::Spread;
use crate::table::table;
use crate::{bare, directory};

/// The sidecar's metric of polls.
pub(crate) const POLL_SECONDS: &str = "edgerunner_swarm_poll_seconds";

const MANAGERS: usize = 1;
const WORKERS: usize = 2;
const INSTANCE: &str = "bench-swarm";
/// Runners at the same time, and containers at the same time on the other side.
const MAX: usize = 120;
const LAUNCHES_PER_ROUND: u32 = 4;
const POLL_INTERVAL: Duration = Duration::from_millis(100);
const TIMEOUT: Duration = Duration::from_secs(900);
const LAUNCH_TIMEOUT: Duration = Duration::from_secs(60);
/// Pretended runners: those whose price is measured, and those that are polled.
const RUNNERS: [usize; 2] = [2_000, 10_000];

pub(crate) async fn measure(programs: &Programs, rounds: u32) -> Result<Vec<String>> {
    let mut tables = vec![sizes(programs).await?];
    let engine = variable("EDGERUNNER_SWARM_PROGRAMS")?;
    let images = [RUNNER_IMAGE, LAUNCHER_IMAGE];
    let cluster = Cluster::start(engine.as_ref(), MANAGERS, WORKERS, &images).await?;
    let swarm = cluster.swarm();
    let settings = Settings {
        ports: Ports::free()?,
        directory: directory().join("swarm"),
        instance: INSTANCE.to_owned(),
        tls: false,
        envoy_workers: crate::machine::cores(),
        github: swarm.gateway,
    };
    let mut deployment = Deployment::new(programs, settings)?;
    deployment.containers = Containers::watch_swarm(&swarm.engines, INSTANCE)?;
    let variables = [
        ("SWARM_MANAGERS", swarm.managers().join(",")),
        ("SWARM_LAUNCHER_IMAGE", LAUNCHER_IMAGE.to_owned()),
        ("RUNNER_PROVIDER", "swarm".to_owned()),
        ("RUNNER_MAX", MAX.to_string()),
        ("GITHUB_ALLOW_HTTP", "true".to_owned()),
        // The moment at which the planner learns of an end is in the log.
        ("LOG_FORMAT", "json".to_owned()),
        ("LOG_LEVEL", "info,edgerunner=debug".to_owned()),
    ];
    let secrets = Secrets::random();
    let measured = async {
        deployment.start_with_sandbox(&secrets, &variables).await?;
        let engines: Vec<Docker> = swarm
            .engines
            .iter()
            .map(|host| Docker::connect_with_host(host))
            .collect::<Result<_, _>>()?;
        let engines = Engines { all: engines, next: AtomicUsize::new(0) };
        tables.push(launches(&deployment, &engines, &secrets.token, rounds).await?);
        tables.push(burst(&deployment, &engines, &secrets.token).await?);
        anyhow::Ok(())
    };
    let measured = measured.await;
    deployment.stop().await;
    measured.map(|()| tables)
}

/// The Engines of the Swarm, used directly in turns.
struct Engines {
    all: Vec<Docker>,
    next: AtomicUsize,
}

impl Engines {
    fn next(&self) -> &Docker {
        &self.all[self.next.fetch_add(1, Ordering::Relaxed) % self.all.len()]
    }

    fn events(&self, label: &str) -> Result<Events> {
        let all = self.all.iter().map(|docker| Ok(events(docker, label)?.boxed()));
        Ok(select_all(all.collect::<Result<Vec<_>>>()?))
    }
}

type Events = SelectAll<futures_util::stream::BoxStream<'static, Result<EventMessage, Error>>>;

async fn sizes(programs: &Programs) -> Result<String> {
    let mut table = table([
        "runners on a Swarm whose manager is pretended",
        "memory of the sidecar",
        "of one core",
        "one poll",
    ]);
    for runners in RUNNERS {
        let figures = pretended::measure(programs, runners).await?;
        table.add_row([
            format!("{runners}"),
            format!("{} MiB", figures.memory_mib),
            format!("{:.1} %", figures.cpu * 100.0),
            format!("{:.0} ms", figures.poll * 1_000.0),
        ]);
    }
    Ok(table.to_string())
}

async fn launches(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    rounds: u32,
) -> Result<String> {
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    // The first of each is a warm-up.
    for launch in 0..=LAUNCHES_PER_ROUND * rounds {
        let through = timeout(LAUNCH_TIMEOUT, Box::pin(through_edgerunner(deployment, engines)));
        let through = through.await.context("a launch timed out")??;
        let directly =
            timeout(LAUNCH_TIMEOUT, Box::pin(directly(deployment, engines, token, launch)));
        let directly = directly.await.context("Docker did not start a container in time")??;
        if launch > 0 {
            ours.push(through);
            bare.push(directly);
        }
    }
    let mut table = table(["launches on three Engines", "median", "(lowest to highest)"]);
    let (ours, bare) = (Spread::of(&ours), Spread::of(&bare));
    let row = |name: &str, spread: &Spread| {
        [
            name.to_owned(),
            format!("{:.0} ms", spread.median),
            format!("{:.0} to {:.0}", spread.lowest, spread.highest),
        ]
    };
    table.add_row(row("edgerunner: from 202 to running on the Swarm, credentials included", &ours));
    table.add_row(row("GitHub and Docker alone, round robin: credentials, create, start", &bare));
    table.add_row([
        "  edgerunner compared with them".to_owned(),
        format!("{:.2} ×", ours.median / bare.median),
        format!("{:+.0} ms", ours.median - bare.median),
    ]);
    Ok(table.to_string())
}

/// Milliseconds from the 202 to the start of the runner's container.
async fn through_edgerunner(deployment: &Deployment, engines: &Engines) -> Result<f64> {
    let sandbox = deployment.sandbox();
    let containers = &deployment.containers;
    let mut events = engines.events(containers.label())?;
    let job = json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 0.1 });
    let job = sandbox.queue(&job).await?.first().copied().context("no job was queued")?;
    let (started, _) = next(&mut events, "start").await?;
    while !containers.list().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let deliveries = sandbox.deliveries().await?;
    let mut deliveries = deliveries.iter();
    let delivery = deliveries
        .find(|it| it.job_id == Some(job) && it.action.as_deref() == Some("queued"))
        .context("the sandbox has no delivery of the job")?;
    let sent: Timestamp = delivery.delivered_at.parse()?;
    Ok(milliseconds(sent + SignedDuration::try_from_secs_f64(delivery.duration)?, started))
}

/// Milliseconds from the request for credentials to the container's start.
async fn directly(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    number: u32,
) -> Result<f64> {
    let mut events = engines.events(bare::LABEL)?;
    let docker = engines.next();
    let requested = Timestamp::now();
    let id = bare::start(deployment, docker, token, &format!("launched-{number}")).await?;
    let started = next(&mut events, "start").await;
    bare::remove(docker, &id).await?;
    Ok(milliseconds(requested, started?.0))
}

async fn burst(deployment: &Deployment, engines: &Engines, token: &str) -> Result<String> {
    let jobs: u32 = variable("EDGERUNNER_BENCH_BURST")?.parse()?;
    let (ours, ends) =
        timeout(TIMEOUT, Box::pin(burst_of_ours(deployment, engines, jobs))).await??;
    let bare =
        timeout(TIMEOUT, Box::pin(burst_of_bare(deployment, engines, token, jobs))).await??;
    let mut table = table([
        &format!("{jobs} jobs at once on three Engines, at most {MAX} containers"),
        "until all are completed and removed",
        "per second",
    ]);
    for (name, took) in [
        ("edgerunner: webhooks through Envoy, credentials, Swarm, launchers, containers", ours),
        ("Docker alone, round robin: the same containers, with credentials", bare),
    ] {
        let seconds = took.as_secs_f64();
        let rate = f64::from(jobs) / seconds;
        table.add_row([name.to_owned(), format!("{seconds:.1} s"), format!("{rate:.1}")]);
    }
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    table.add_row(["  edgerunner compared with Docker".to_owned(), format!("{ratio:.2} ×")]);
    let at = |share: f64| ends[((ends.len() - 1) as f64 * share) as usize];
    let known = format!(
        "from the end of a container until the planner knows: {:.0} ms (median), {:.0} ms (95 %)",
        at(0.5),
        at(0.95),
    );
    Ok(format!("{table}\n\n{known}"))
}

/// Also the milliseconds from each container's end until the planner knew, sorted.
async fn burst_of_ours(
    deployment: &Deployment,
    engines: &Engines,
    jobs: u32,
) -> Result<(Duration, Vec<f64>)> {
    let sandbox = deployment.sandbox();
    let mut events = engines.events(deployment.containers.label())?;
    let watching = tokio::spawn(async move {
        let mut ended = HashMap::new();
        while ended.len() < jobs as usize {
            let (at, runner) = next(&mut events, "die").await?;
            ended.insert(runner, at);
        }
        anyhow::Ok(ended)
    });
    let started = Instant::now();
    let queued = sandbox.queue(&request("self-hosted", jobs)).await?;
    until_completed(&sandbox, &queued).await?;
    while !deployment.containers.list().await?.is_empty() {
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let took = started.elapsed();
    let ended = timeout(LAUNCH_TIMEOUT, watching).await.context("Docker missed an end")???;
    let mut delays = Vec::new();
    for line in deployment.sidecar()?.log()?.lines() {
        let line: Value = serde_json::from_str(line)?;
        if line["event"] == "container_exited"
            && let Some(ended) = line["runner"].as_str().and_then(|runner| ended.get(runner))
        {
            let known: Timestamp = line["timestamp"].as_str().context("no time")?.parse()?;
            delays.push(milliseconds(*ended, known));
        }
    }
    ensure!(!delays.is_empty(), "the log has no ends of runners");
    delays.sort_by(f64::total_cmp);
    Ok((took, delays))
}

async fn burst_of_bare(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    jobs: u32,
) -> Result<Duration> {
    let sandbox = deployment.sandbox();
    // The sidecar must not take part.
    sandbox.set_faults(&json!({ "deliveries": [{ "fault": "vanished" }] })).await?;
    let started = Instant::now();
    let queued = sandbox.queue(&request(bare::RUNNER_LABEL, jobs)).await?;
    let next = AtomicU32::new(0);
    try_join_all((0..MAX).map(async |_| {
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

fn request(label: &str, count: u32) -> Value {
    json!({ "repository": "acme/app", "labels": [label], "seconds": 0.0, "count": count })
}

/// When the next such event was, and the runner's name.
async fn next(
    events: &mut (impl Stream<Item = Result<EventMessage, Error>> + Unpin),
    action: &str,
) -> Result<(Timestamp, String)> {
    loop {
        let event = events.next().await.context("Docker closed the stream of events")??;
        if event.action.as_deref() == Some(action) {
            let nanoseconds = event.time_nano.context("an event of Docker without a time")?;
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            let runner = attributes.get("name").cloned().unwrap_or_default();
            return Ok((Timestamp::from_nanosecond(nanoseconds.into())?, runner));
        }
    }
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1_000.0
}
