//! The load generator: kept connections, each sending its next delivery as
//! soon as the last one is answered.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use tokio::task::JoinSet;

use crate::http;
use crate::programs::WEBHOOK_PATH;

use super::delivery::Delivery;

/// No round goes on for longer, however slow the receiver.
const ROUND_TIMEOUT: Duration = Duration::from_secs(20);

pub(super) struct Round {
    pub(super) per_second: f64,
    pub(super) latencies_us: Histogram<u64>,
}

pub(super) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("a histogram of microseconds")
}

/// Sends all of `deliveries` over `connections`. Any answer that does not
/// accept makes the whole round worthless, and is an error.
pub(super) async fn round(
    address: SocketAddr,
    deliveries: Vec<Delivery>,
    connections: usize,
) -> Result<Round> {
    let deliveries = Arc::new(deliveries);
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = Vec::new();
    for _ in 0..connections {
        senders.push(http::connect(address).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut sender in senders {
        let deliveries = Arc::clone(&deliveries);
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            let mut latencies = histogram()?;
            while started.elapsed() < ROUND_TIMEOUT {
                let Some(delivery) = deliveries.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let request = request(address, delivery)?;
                let sent = Instant::now();
                sender.ready().await.context("the receiver closed the connection")?;
                let response = sender.send_request(request).await.context("no answer")?;
                let status = response.status();
                let body = response.into_body().collect().await?.to_bytes();
                latencies.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
                if status != StatusCode::ACCEPTED || !contains(&body, b"accepted") {
                    bail!("{address} answered {status}: {}", String::from_utf8_lossy(&body));
                }
            }
            Ok(latencies)
        });
    }
    let mut latencies_us = histogram()?;
    while let Some(task) = tasks.join_next().await {
        latencies_us.add(task??)?;
    }
    let elapsed = started.elapsed();
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let per_second = latencies_us.len() as f64 / elapsed.as_secs_f64();
    Ok(Round { per_second, latencies_us })
}

fn request(address: SocketAddr, delivery: &Delivery) -> Result<Request<Full<bytes::Bytes>>> {
    Request::post(WEBHOOK_PATH)
        .header("host", address.to_string())
        .header("user-agent", "GitHub-Hookshot/0000000")
        .header("accept", "*/*")
        .header("content-type", "application/json")
        .header("x-github-event", "workflow_job")
        .header("x-github-delivery", &delivery.guid)
        .header("x-github-hook-id", "480105223")
        .header("x-github-hook-installation-target-id", "671234567")
        .header("x-github-hook-installation-target-type", "repository")
        .header("x-hub-signature-256", &delivery.signature)
        .body(Full::new(delivery.body.clone()))
        .context("a request")
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}
