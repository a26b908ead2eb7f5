//! Runners on a Docker Swarm of three Engines on this machine, compared with the same containers
//! started by hand, round robin on the same Engines; and a sidecar with thousands of them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bollard::Docker;
use edgerunner_testkit::deployment::{Secrets, Settings};
use edgerunner_testkit::ports::Ports;
use edgerunner_testkit::programs::{LAUNCHER_IMAGE, RUNNER_IMAGE, variable};
use edgerunner_testkit::{Cluster, Containers, Deployment, Programs, eventually_within};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::timeout;

use crate::burst::{self, Burst};
use crate::directory;
use crate::engines::{Engines, Events, milliseconds, next_event};
use crate::launch::{self, Titles};
use crate::pretended;
use crate::table::table;

/// The sidecar's metric of polls.
pub(crate) const POLL_SECONDS: &str = "edgerunner_swarm_poll_seconds";

const MANAGERS: usize = 1;
const WORKERS: usize = 2;
const INSTANCE: &str = "bench-swarm";
/// Jobs that do nothing, and jobs of a minute: the first show what a runner costs, the second what
/// people wait for.
const BURSTS: [Burst; 2] = [burst(0.0), burst(60.0)];
const MAX: usize = 120;
const LAUNCHES: Titles = Titles {
    header: "launches on three Engines",
    ours: "edgerunner: from 202 to running on the Swarm, credentials included",
    bare: "GitHub and Docker alone, round robin: credentials, create, start",
};
/// For Docker to report the last end.
const END_TIMEOUT: Duration = Duration::from_secs(60);
/// Pretended runners: those whose price is measured, and those that are polled.
const RUNNERS: [usize; 2] = [2_000, 10_000];

const fn burst(seconds: f64) -> Burst {
    Burst {
        place: " on three Engines",
        seconds,
        ours: "edgerunner: webhooks through Envoy, credentials, Swarm, launchers, containers",
        bare: "Docker alone, round robin: the same containers, with credentials",
        max: MAX,
        limit: Duration::from_secs(1200),
    }
}

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
        let (engines, token) = (Engines::new(engines), &secrets.token);
        let launches = launch::measure(&deployment, &engines, token, rounds, &LAUNCHES);
        let count = launch::launches(rounds);
        tables.push(with_delays(&deployment, &engines, count, Box::pin(launches)).await?);
        for burst in &BURSTS {
            let work = Box::pin(burst::measure(&deployment, &engines, token, burst));
            tables.push(with_delays(&deployment, &engines, burst::jobs()?, work).await?);
        }
        anyhow::Ok(())
    };
    let measured = measured.await;
    deployment.stop().await;
    measured.map(|()| tables)
}

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

/// Milliseconds from each container's end until the planner knew, while `work` runs.
async fn delays_of_ends(
    deployment: &Deployment,
    mut events: Events,
    jobs: u32,
    work: impl Future<Output = Result<String>>,
) -> Result<(String, Vec<f64>)> {
    let watching = tokio::spawn(async move {
        let mut ended = HashMap::new();
        while ended.len() < jobs as usize {
            let (at, runner) = next_event(&mut events, "die").await?;
            ended.insert(runner, at);
        }
        anyhow::Ok(ended)
    });
    let done = work.await?;
    let ended = timeout(END_TIMEOUT, watching).await.context("Docker missed an end")???;
    // The last end may not be known yet.
    let mut delays = eventually_within(END_TIMEOUT, "the planner knows all ends", async || {
        let delays = delays(deployment, &ended)?;
        Ok((delays.len() == ended.len()).then_some(delays))
    })
    .await?;
    delays.sort_by(f64::total_cmp);
    Ok((done, delays))
}

/// Of those of these ends that the log has so far.
fn delays(deployment: &Deployment, ended: &HashMap<String, Timestamp>) -> Result<Vec<f64>> {
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
    Ok(delays)
}

/// The table of `work`, and how long the planner did not know of an end meanwhile.
async fn with_delays(
    deployment: &Deployment,
    engines: &Engines,
    jobs: u32,
    work: impl Future<Output = Result<String>>,
) -> Result<String> {
    let events = engines.events(deployment.containers.label())?;
    let (table, delays) = delays_of_ends(deployment, events, jobs, work).await?;
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
    let known = format!(
        "from the end of a container until the planner knows: {:.0} ms (median), {:.0} ms (95 %)",
        at(0.5),
        at(0.95),
    );
    Ok(format!("{table}\n\n{known}"))
}
