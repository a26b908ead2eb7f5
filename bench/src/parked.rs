//! Cold launches, parked and idle runners: the time from the response to a webhook to the runner's
//! process, with an answer of GitHub that takes as long as the real one's; and a burst with parked
//! runners. Compared with creating and starting a container of the same image.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, LogsOptionsBuilder, StartContainerOptions,
};
use edgerunner_testkit::programs::RUNNER_IMAGE;
use edgerunner_testkit::{Deployment, eventually_within};
use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::bare;
use crate::burst;
use crate::engines::{Engines, milliseconds, next_event};
use crate::launch::answered;
use crate::spread::Spread;
use crate::table::table;

/// What GitHub takes to register a runner.
const JIT_MS: u64 = 700;
const SAMPLES_PER_ROUND: u32 = 4;
const LIMIT: Duration = Duration::from_secs(120);
/// Written by the shell of a parked runner right before it becomes the command.
const WOKEN: &str = "edgerunner: woken";
/// For jobs to be observed before they end.
const JOB_SECONDS: f64 = 1.0;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Cold,
    Parked,
    Idle,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Cold, Self::Parked, Self::Idle];

    fn title(self) -> &'static str {
        match self {
            Self::Cold => "launched for the job",
            Self::Parked => "parked",
            Self::Idle => "min_idle",
        }
    }

    fn variables(self, count: usize) -> [(&'static str, String); 4] {
        let of = |mode| if self == mode { count } else { 0 };
        // The idle runner of another mode goes at once.
        let idle_seconds = if self == Self::Idle { 3_600 } else { 1 };
        [
            ("RUNNER_REPOSITORIES", "acme/app".to_owned()),
            ("RUNNER_PARKED", of(Self::Parked).to_string()),
            ("RUNNER_MIN_IDLE", of(Self::Idle).to_string()),
            ("RUNNER_IDLE_TIMEOUT_SECONDS", idle_seconds.to_string()),
        ]
    }
}

/// Leaves the sidecar without parked and idle runners.
pub(crate) async fn measure(deployment: &mut Deployment, rounds: u32) -> Result<String> {
    let slow = json!({ "requests": [
        { "path": "generate-jitconfig", "fault": { "latency": { "ms": JIT_MS } } },
    ] });
    deployment.sandbox().set_faults(&slow).await?;
    let mut table = table([
        "the time from 202, with 700 ms for GitHub's registration",
        "to the runner's process",
        "to the start of the job",
    ]);
    for mode in Mode::ALL {
        configure(deployment, mode, 1).await?;
        let (mut process, mut job) = (Vec::new(), Vec::new());
        // The first one is a warm-up.
        for sample in 0..=SAMPLES_PER_ROUND * rounds {
            let measured = timeout(LIMIT, Box::pin(one_job(deployment, mode)));
            let (to_process, to_job) = measured.await.context("a job timed out")??;
            if sample > 0 {
                process.push(to_process);
                job.push(to_job);
            }
        }
        let process = match mode {
            Mode::Idle => "it runs already".to_owned(),
            Mode::Cold | Mode::Parked => shown(&process),
        };
        table.add_row([mode.title().to_owned(), process, shown(&job)]);
    }
    let mut bare = Vec::new();
    for _ in 0..SAMPLES_PER_ROUND * rounds {
        bare.push(create_and_start(deployment.containers.docker()).await?);
    }
    let name = "Docker alone: create and start, on the bridge network";
    table.add_row([name.to_owned(), shown(&bare), String::new()]);

    let mut bursts = table_of_bursts()?;
    for mode in [Mode::Cold, Mode::Parked] {
        configure(deployment, mode, burst::MAX).await?;
        let took = Box::pin(to_start(deployment, burst::MAX)).await?;
        bursts.add_row([mode.title().to_owned(), format!("{took:.0} ms")]);
    }
    configure(deployment, Mode::Cold, 0).await?;
    deployment.sandbox().set_faults(&json!({})).await?;
    Ok(format!("{table}\n\n{bursts}"))
}

fn shown(values: &[f64]) -> String {
    let Spread { median, lowest, highest } = Spread::of(values);
    format!("{median:.0} ms ({lowest:.0} to {highest:.0})")
}

/// Starts the sidecar for a mode, and waits until the runners of others are gone.
async fn configure(deployment: &mut Deployment, mode: Mode, count: usize) -> Result<()> {
    let variables = mode.variables(count);
    let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    deployment.reconfigure_sidecar(&variables).await?;
    ready(deployment, mode).await
}

/// Waits until nothing but the runners of the mode is there.
async fn ready(deployment: &Deployment, mode: Mode) -> Result<()> {
    eventually_within(LIMIT, "all runners are ready", async || {
        let status = deployment.sidecar()?.status().await?;
        let pool = &status["pools"][0];
        let count = |name: &str| pool[name].as_u64().unwrap_or_default();
        let others: u64 =
            ["provisioning", "starting", "busy", "leaving", "parking"].map(count).iter().sum();
        let there = match mode {
            Mode::Cold => count("idle") + count("parked") == 0,
            Mode::Parked => count("parked") == count("parked_wanted") && count("idle") == 0,
            Mode::Idle => count("idle") == count("min_idle") && count("parked") == 0,
        };
        ensure!(there && others == 0, "{pool}");
        Ok(Some(()))
    })
    .await
}

/// Milliseconds from the 202 to the start of the runner's process, and to that of the job.
async fn one_job(deployment: &Deployment, mode: Mode) -> Result<(f64, f64)> {
    let (sandbox, containers) = (deployment.sandbox(), &deployment.containers);
    let engines = Engines::new(vec![containers.docker().clone()]);
    let mut events = engines.events(containers.label())?;
    let id = *sandbox.queue(&request(1)).await?.first().context("no job was queued")?;
    let process = match mode {
        Mode::Cold => next_event(&mut events, "start").await?.0,
        Mode::Parked | Mode::Idle => Timestamp::now(),
    };
    let (name, started) = eventually_within(LIMIT, "the job runs", async || {
        let jobs = sandbox.jobs().await?;
        let job = jobs.into_iter().find(|job| job.id == id).context("no such job")?;
        Ok(job.runner.map(|runner| (runner.runner_name, job.started_at)))
    })
    .await?;
    let process = match mode {
        Mode::Parked => woken_at(containers.docker(), &name).await?,
        Mode::Cold | Mode::Idle => process,
    };
    // An idle runner may take the job sooner.
    let answered = eventually_within(LIMIT, "the webhook is answered", async || {
        Ok(answered(&sandbox, id).await.ok())
    })
    .await?;
    ready(deployment, mode).await?;
    Ok((milliseconds(answered, process), milliseconds(answered, started.parse()?)))
}

/// When the shell of a parked runner became the command, by Docker's clock.
async fn woken_at(docker: &Docker, name: &str) -> Result<Timestamp> {
    let options = LogsOptionsBuilder::default().stdout(true).timestamps(true).build();
    let mut lines = docker.logs(name, Some(options));
    while let Some(line) = lines.next().await {
        let line = line?.to_string();
        if let Some((at, text)) = line.split_once(' ')
            && text.trim_end() == WOKEN
        {
            return Ok(at.parse()?);
        }
    }
    anyhow::bail!("{name} was not parked")
}

/// Milliseconds from the request to the start of a container.
async fn create_and_start(docker: &Docker) -> Result<f64> {
    let engines = Engines::new(vec![docker.clone()]);
    let mut events = engines.events(bare::LABEL)?;
    let (label, value) = bare::LABEL.split_once('=').unwrap_or_default();
    let body = ContainerCreateBody {
        image: Some(RUNNER_IMAGE.to_owned()),
        labels: Some([(label.to_owned(), value.to_owned())].into()),
        host_config: Some(HostConfig {
            network_mode: Some("bridge".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let requested = Timestamp::now();
    let id = docker.create_container(None::<CreateContainerOptions>, body).await?.id;
    let started = docker.start_container(&id, None::<StartContainerOptions>).await;
    let event = match started {
        Ok(()) => next_event(&mut events, "start").await,
        Err(error) => Err(error.into()),
    };
    bare::remove(docker, &id).await?;
    Ok(milliseconds(requested, event?.0))
}

fn table_of_bursts() -> Result<comfy_table::Table> {
    let (jobs, max) = (burst::jobs()?, burst::MAX);
    Ok(table([&format!("{jobs} jobs at once"), &format!("until {max} of them run")]))
}

/// Milliseconds until so many jobs of a burst run.
async fn to_start(deployment: &Deployment, count: usize) -> Result<f64> {
    let sandbox = deployment.sandbox();
    let begun = Timestamp::now();
    let queued = sandbox.queue(&request(burst::jobs()?)).await?;
    let nth = eventually_within(LIMIT * 5, "all jobs are over", async || {
        let mut jobs = sandbox.jobs().await?;
        jobs.retain(|job| queued.contains(&job.id));
        ensure!(jobs.iter().all(|job| job.status == "completed"), "some are not over");
        let starts = jobs.iter().map(|job| job.started_at.parse::<Timestamp>());
        let mut starts = starts.collect::<Result<Vec<_>, _>>()?;
        starts.sort_unstable();
        Ok(starts.get(count - 1).copied())
    })
    .await?;
    Ok(milliseconds(begun, nth))
}

fn request(count: u32) -> Value {
    json!({
        "repository": "acme/app", "labels": ["self-hosted"], "seconds": JOB_SECONDS, "count": count,
    })
}
