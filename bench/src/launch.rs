//! The time from the response to a webhook to a running container, compared with
//! registering a runner and starting its container through the Docker API.

use std::time::Duration;

use anyhow::{Context, Result};
use bollard::errors::Error;
use bollard::models::EventMessage;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::containers::events;
use edgerunner_testkit::deployment::Secrets;
use futures_util::{Stream, StreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::time::timeout;

use crate::bare;
use crate::spread::Spread;
use crate::table::table;

const LAUNCHES_PER_ROUND: u32 = 4;
const TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) async fn measure(
    deployment: &Deployment,
    secrets: &Secrets,
    rounds: u32,
) -> Result<String> {
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    // The first of each is a warm-up.
    for launch in 0..=LAUNCHES_PER_ROUND * rounds {
        let through = timeout(TIMEOUT, Box::pin(through_edgerunner(deployment))).await;
        let through = through.context("a launch timed out")??;
        let directly = timeout(TIMEOUT, Box::pin(directly(deployment, &secrets.token, launch)));
        let directly = directly.await.context("Docker did not start a container in time")??;
        if launch > 0 {
            ours.push(through);
            bare.push(directly);
        }
    }

    let mut table = table(["launches", "median", "(lowest to highest)"]);
    let (ours, bare) = (Spread::of(&ours), Spread::of(&bare));
    let row = |name: &str, spread: &Spread| {
        [
            name.to_owned(),
            format!("{:.0} ms", spread.median),
            format!("{:.0} to {:.0}", spread.lowest, spread.highest),
        ]
    };
    table.add_row(row("edgerunner: from 202 to running, credentials included", &ours));
    table.add_row(row("GitHub and Docker alone: credentials, create, start", &bare));
    table.add_row([
        "  edgerunner compared with them".to_owned(),
        format!("{:.2} ×", ours.median / bare.median),
        format!("{:+.0} ms", ours.median - bare.median),
    ]);
    Ok(table.to_string())
}

/// Milliseconds from the 202 to the container's start.
async fn through_edgerunner(deployment: &Deployment) -> Result<f64> {
    let sandbox = deployment.sandbox();
    let containers = &deployment.containers;
    let mut events = events(containers.docker(), containers.label())?;
    let job = json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 0.1 });
    let job = sandbox.queue(&job).await?.first().copied().context("no job was queued")?;
    let started = next_start(&mut events).await?;
    // The next launch must have Docker for itself.
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
async fn directly(deployment: &Deployment, token: &str, number: u32) -> Result<f64> {
    let mut events = events(deployment.containers.docker(), bare::LABEL)?;
    let requested = Timestamp::now();
    let id = bare::start(
        deployment,
        deployment.containers.docker(),
        token,
        &format!("launched-{number}"),
    )
    .await?;
    let started = next_start(&mut events).await;
    bare::remove(deployment.containers.docker(), &id).await?;
    Ok(milliseconds(requested, started?))
}

/// When the next container starts.
async fn next_start(
    events: &mut (impl Stream<Item = Result<EventMessage, Error>> + Unpin),
) -> Result<Timestamp> {
    let event = loop {
        let event = events.next().await.context("Docker closed the stream of events")??;
        if event.action.as_deref() == Some("start") {
            break event;
        }
    };
    let nanoseconds = event.time_nano.context("an event of Docker without a time")?;
    Ok(Timestamp::from_nanosecond(nanoseconds.into())?)
}

fn milliseconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64() * 1_000.0
}
