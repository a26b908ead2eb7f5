//! The time from the response to a webhook to a running container, compared with
//! registering a runner and starting its container through the Docker API.

use std::time::Duration;

use anyhow::{Context, Result};
use edgerunner_testkit::Deployment;
use edgerunner_testkit::sandbox::SandboxClient;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::timeout;

use crate::bare;
use crate::engines::{Engines, milliseconds, next_event};
use crate::spread::Spread;
use crate::table::table;

const LAUNCHES_PER_ROUND: u32 = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

/// The words of a table.
pub(crate) struct Titles {
    pub(crate) header: &'static str,
    pub(crate) ours: &'static str,
    pub(crate) bare: &'static str,
}

pub(crate) const ON_ONE_ENGINE: Titles = Titles {
    header: "launches",
    ours: "edgerunner: from 202 to running, credentials included",
    bare: "GitHub and Docker alone: credentials, create, start",
};

/// How many runners are launched on each side, the warm-up included.
pub(crate) fn launches(rounds: u32) -> u32 {
    LAUNCHES_PER_ROUND * rounds + 1
}

pub(crate) async fn measure(
    deployment: &Deployment,
    engines: &Engines,
    token: &str,
    rounds: u32,
    titles: &Titles,
) -> Result<String> {
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    // The first of each is a warm-up.
    for launch in 0..launches(rounds) {
        let through = timeout(TIMEOUT, Box::pin(through_edgerunner(deployment, engines))).await;
        let through = through.context("a launch timed out")??;
        let directly = timeout(TIMEOUT, Box::pin(directly(deployment, engines, token, launch)));
        let directly = directly.await.context("Docker did not start a container in time")??;
        if launch > 0 {
            ours.push(through);
            bare.push(directly);
        }
    }

    Ok(comparison(titles, &ours, &bare))
}

/// Both sides, in milliseconds, and how the first compares with the second.
pub(crate) fn comparison(titles: &Titles, ours: &[f64], bare: &[f64]) -> String {
    let mut table = table([titles.header, "median", "(lowest to highest)"]);
    let (ours, bare) = (Spread::of(ours), Spread::of(bare));
    for (name, spread) in [(titles.ours, &ours), (titles.bare, &bare)] {
        table.add_row([
            name.to_owned(),
            format!("{:.0} ms", spread.median),
            format!("{:.0} to {:.0}", spread.lowest, spread.highest),
        ]);
    }
    table.add_row([
        "  edgerunner compared with them".to_owned(),
        format!("{:.2} ×", ours.median / bare.median),
        format!("{:+.0} ms", ours.median - bare.median),
    ]);
    table.to_string()
}

/// Milliseconds from the 202 to the start of the runner's container.
async fn through_edgerunner(deployment: &Deployment, engines: &Engines) -> Result<f64> {
    let sandbox = deployment.sandbox();
    let containers = &deployment.containers;
    let mut events = engines.events(containers.label())?;
    let job = json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 0.1 });
    let job = sandbox.queue(&job).await?.first().copied().context("no job was queued")?;
    let (started, _) = next_event(&mut events, "start").await?;
    // The next launch must have Docker for itself.
    while !containers.list().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(milliseconds(answered(&sandbox, job).await?, started))
}

/// When the webhook of a queued job was answered.
pub(crate) async fn answered(sandbox: &SandboxClient, job: u64) -> Result<Timestamp> {
    let deliveries = sandbox.deliveries().await?;
    let mut deliveries = deliveries.iter();
    let delivery = deliveries
        .find(|it| it.job_id == Some(job) && it.action.as_deref() == Some("queued"))
        .context("the sandbox has no delivery of the job")?;
    let sent: Timestamp = delivery.delivered_at.parse()?;
    Ok(sent + SignedDuration::try_from_secs_f64(delivery.duration)?)
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
    let started = next_event(&mut events, "start").await;
    bare::remove(docker, &id).await?;
    Ok(milliseconds(requested, started?.0))
}
