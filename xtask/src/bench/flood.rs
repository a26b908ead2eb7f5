//! How long genuine deliveries take while others are refused beside them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use comfy_table::presets::UTF8_BORDERS_ONLY;
use comfy_table::{CellAlignment, Table};
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

use crate::programs::WEBHOOK_PATH;
use crate::progress::Step;

use super::delivery::{Factory, Kind};
use super::load::{self, Expected};

/// Genuine deliveries: a connection's next one goes out so long after the last,
/// or when that is answered.
const CONNECTIONS: usize = 4;
const DELIVERIES: usize = 1_000;
const ROUNDS: usize = 3;
const INTERVAL: Duration = Duration::from_millis(10);
const WARM_UP: usize = 500;

struct Flood {
    name: &'static str,
    signed: bool,
    bytes: usize,
    connections: usize,
    /// In all.
    per_second: u32,
}

const FLOODS: [Flood; 3] = [
    Flood {
        name: "unsigned, 500 bytes",
        signed: false,
        bytes: 500,
        connections: 8,
        per_second: 2_000,
    },
    Flood {
        name: "wrongly signed, 500 bytes",
        signed: true,
        bytes: 500,
        connections: 8,
        per_second: 2_000,
    },
    Flood {
        name: "wrongly signed, 1 MB",
        signed: true,
        bytes: 1_000_000,
        connections: 4,
        per_second: 20,
    },
];

pub(super) async fn measure(address: SocketAddr, secret: &str) -> Result<Table> {
    let mut factory = Factory::new(secret)?;
    let mut table = Table::new();
    table.load_preset(UTF8_BORDERS_ONLY).set_header([
        "genuine deliveries beside a flood",
        "refused per second",
        "p50",
        "p99",
        "to quiet",
    ]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut step = Step::start("genuine deliveries beside a flood".to_owned());
    load::round(address, factory.make(Kind::Queued, WARM_UP), CONNECTIONS, Expected::ACCEPTED)
        .await?;
    let mut quiet = load::histogram()?;
    let mut beside = [load::histogram()?, load::histogram()?, load::histogram()?];
    let mut per_second = [0; FLOODS.len()];
    // By turns: the machine may have other things to do now and then.
    for round in 1..=ROUNDS {
        step.detail(&format!("round {round} of {ROUNDS}"));
        quiet.add(paced(address, factory.make(Kind::Queued, DELIVERIES)).await?)?;
        for ((flood, beside), per_second) in FLOODS.iter().zip(&mut beside).zip(&mut per_second) {
            let refused = AtomicU64::new(0);
            let begun = Instant::now();
            tokio::select! {
                latencies = paced(address, factory.make(Kind::Queued, DELIVERIES)) => beside.add(latencies?)?,
                ended = send(address, flood, &refused) => return ended.and(Err(anyhow!("the flood ended"))),
            }
            let millis = u64::try_from(begun.elapsed().as_millis())?.max(1);
            *per_second = refused.into_inner() * 1_000 / millis;
        }
    }
    table.add_row(["quiet", "", &milliseconds(&quiet, 0.50), &milliseconds(&quiet, 0.99)]);
    for ((flood, beside), per_second) in FLOODS.iter().zip(&beside).zip(per_second) {
        table.add_row([
            flood.name,
            &per_second.to_string(),
            &milliseconds(beside, 0.50),
            &milliseconds(beside, 0.99),
            &format!("{:.2} ×", p99(beside) / p99(&quiet)),
        ]);
    }
    step.done("");
    Ok(table)
}

/// Each connection sends at its own pace, so that the load is the same however
/// long an answer takes.
async fn paced(address: SocketAddr, mut deliveries: Vec<Bytes>) -> Result<Histogram<u64>> {
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let own = deliveries.split_off(deliveries.len().saturating_sub(DELIVERIES / CONNECTIONS));
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let mut pace = interval(INTERVAL);
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut latencies = load::histogram()?;
            for request in &own {
                pace.tick().await;
                let sent = Instant::now();
                let status = exchange(&mut stream, request).await?;
                latencies.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
                ensure!(status == *b"202", "a genuine delivery is answered {status:?}");
            }
            anyhow::Ok(latencies)
        });
    }
    let mut latencies = load::histogram()?;
    while let Some(task) = tasks.join_next().await {
        latencies.add(task??)?;
    }
    Ok(latencies)
}

/// Goes on until it is dropped.
async fn send(address: SocketAddr, flood: &Flood, refused: &AtomicU64) -> Result<()> {
    let request = Bytes::from(request(flood));
    let connections = u32::try_from(flood.connections)?;
    let interval = Duration::from_secs(1) * connections / flood.per_second;
    let connections =
        (0..connections).map(|_| refuse(address, request.clone(), flood.signed, interval, refused));
    futures_util::future::try_join_all(connections).await?;
    Ok(())
}

async fn refuse(
    address: SocketAddr,
    request: Bytes,
    signed: bool,
    pace: Duration,
    refused: &AtomicU64,
) -> Result<()> {
    let mut pace = interval(pace);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stream = TcpStream::connect(address).await?;
    loop {
        pace.tick().await;
        let status = exchange(&mut stream, &request).await?;
        ensure!(status == *b"401", "a flood is answered {status:?}");
        if !signed {
            // Refused before its body was read, after which Envoy hangs up.
            stream = TcpStream::connect(address).await?;
        }
        refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// Returns the status. Answers are small and come in one piece.
async fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<[u8; 3]> {
    stream.write_all(request).await?;
    let mut answer = [0; 4_096];
    let count = stream.read(&mut answer).await?;
    let status = answer.get(..count).and_then(|answer| answer.get(9..12));
    status.and_then(|status| status.try_into().ok()).context("the receiver closed the connection")
}

fn head(length: usize, guid: &str, signature: &str) -> String {
    format!(
        "POST {WEBHOOK_PATH} HTTP/1.1\r\nhost: hooks.test\r\ncontent-type: application/json\r\n\
         x-github-event: workflow_job\r\nx-github-delivery: {guid}\r\n\
         x-hub-signature-256: {signature}\r\ncontent-length: {length}\r\n\r\n"
    )
}

fn request(flood: &Flood) -> Vec<u8> {
    let head = head(flood.bytes, "flood", &format!("sha256={}", "0".repeat(64)));
    let head = match flood.signed {
        true => head,
        false => head.replace("x-hub-signature-256", "x-nothing"),
    };
    [head.as_bytes(), &vec![b' '; flood.bytes]].concat()
}

fn p99(latencies: &Histogram<u64>) -> f64 {
    Duration::from_micros(latencies.value_at_quantile(0.99)).as_secs_f64()
}

fn milliseconds(latencies: &Histogram<u64>, quantile: f64) -> String {
    let latency = Duration::from_micros(latencies.value_at_quantile(quantile));
    format!("{:.2} ms", latency.as_secs_f64() * 1e3)
}
