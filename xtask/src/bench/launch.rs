//! From the answer to a webhook to a container that runs, beside what Docker
//! and GitHub alone take for such a container.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result};
use bollard::models::{ContainerCreateBody, EventMessage, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptions, EventsOptionsBuilder, RemoveContainerOptionsBuilder,
    StartContainerOptions,
};
use chrono::{DateTime, Utc};
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use futures_util::{Stream, StreamExt};
use serde_json::json;

use crate::image;
use crate::ports::local;
use crate::programs::Secrets;
use crate::progress::Step;
use crate::sandbox::Sandbox;
use crate::stack::Stack;

use super::spread::Spread;

/// Launches for each round that was asked for.
pub(super) const PER_ROUND: u32 = 4;

const TIMEOUT: Duration = Duration::from_secs(60);
const BARE_LABEL: (&str, &str) = ("dev.edgerunner.bench", "bare");

pub(super) async fn measure(stack: &Stack, secrets: &Secrets, launches: u32) -> Result<Table> {
    let mut step = Step::start("launches");
    let mut ours = Vec::new();
    let mut bare = Vec::new();
    // The first of each pays for what is cold, and is left out.
    for launch in 0..=launches {
        step.detail(&format!("{launch} of {launches}"));
        let through = tokio::time::timeout(TIMEOUT, Box::pin(through_edgerunner(stack)))
            .await
            .context("a launch did not end in time")??;
        let directly =
            tokio::time::timeout(TIMEOUT, Box::pin(directly(stack, secrets.token(), launch)))
                .await
                .context("Docker did not start a container in time")??;
        if launch > 0 {
            ours.push(through);
            bare.push(directly);
        }
    }
    step.done("");

    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header(["launches", "median", "(lowest to highest)"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
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
        "  edgerunner to these alone".to_owned(),
        format!("{:.2} ×", ours.median / bare.median),
        format!("{:+.0} ms", ours.median - bare.median),
    ]);
    Ok(table)
}

/// Milliseconds from the 202 to the container's start.
async fn through_edgerunner(stack: &Stack) -> Result<f64> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    let mut starts = std::pin::pin!(starts(stack, &stack.label()));
    let job = sandbox
        .queue(&json!({ "repository": "acme/app", "labels": ["self-hosted"], "seconds": 0.1 }))
        .await?;
    let started = next(&mut starts).await?;
    // The next launch has Docker for itself only once this runner is gone.
    while !stack.containers().await?.is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let answered = sandbox
        .deliveries()
        .await?
        .into_iter()
        .find(|delivery| {
            delivery.job_id == Some(job) && delivery.action.as_deref() == Some("queued")
        })
        .context("the sandbox knows of no delivery")?
        .answered_at();
    Ok(milliseconds(answered, started))
}

/// Milliseconds from the request for credentials to the container's start.
async fn directly(stack: &Stack, token: &str, number: u32) -> Result<f64> {
    let sandbox = Sandbox::at(local(stack.ports().sandbox));
    let docker = stack.engine().client();
    let (label, value) = BARE_LABEL;
    let mut starts = std::pin::pin!(starts(stack, &format!("{label}={value}")));
    // No job asks for this label.
    let name = format!("launched-{number}");
    let runner = json!({ "name": name, "runner_group_id": 1, "labels": ["launched"] });
    let asked = Utc::now();
    let credentials = sandbox.credentials(token, &runner).await?;
    let body = ContainerCreateBody {
        env: Some(vec![format!("{}={credentials}", image::CREDENTIALS)]),
        image: Some(image::RUNNER.to_owned()),
        labels: Some(HashMap::from([(label.to_owned(), value.to_owned())])),
        host_config: Some(HostConfig {
            network_mode: Some("host".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    };
    let created = docker.create_container(None::<CreateContainerOptions>, body).await?;
    let started = docker.start_container(&created.id, None::<StartContainerOptions>).await;
    let options = RemoveContainerOptionsBuilder::default().force(true).build();
    let started = match started {
        Ok(()) => next(&mut starts).await,
        Err(error) => Err(error.into()),
    };
    docker.remove_container(&created.id, Some(options)).await?;
    Ok(milliseconds(asked, started?))
}

/// When containers with `label` start, by the clock of this machine.
fn starts<'a>(
    stack: &'a Stack,
    label: &str,
) -> impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + use<'a> {
    let filters = HashMap::from([
        ("type", vec!["container".to_owned()]),
        ("event", vec!["start".to_owned()]),
        ("label", vec![label.to_owned()]),
    ]);
    // From now on, also for what happens before the request is through.
    let now = Utc::now();
    let since = format!("{}.{:09}", now.timestamp(), now.timestamp_subsec_nanos());
    let options = EventsOptionsBuilder::default().since(&since).filters(&filters).build();
    stack.engine().client().events(Some(options))
}

async fn next(
    starts: &mut (impl Stream<Item = Result<EventMessage, bollard::errors::Error>> + Unpin),
) -> Result<DateTime<Utc>> {
    let event = starts.next().await.context("Docker ended its events")??;
    let nanoseconds = event.time_nano.context("an event of Docker bears no time")?;
    Ok(DateTime::from_timestamp_nanos(nanoseconds))
}

fn milliseconds(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).as_seconds_f64() * 1_000.0
}
