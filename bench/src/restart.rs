//! A restart under a steady load: how many deliveries fail, and how long an answer takes.
//! GitHub does not repeat a delivery that failed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use edgerunner_testkit::Deployment;
use edgerunner_testkit::deployment::Secrets;
use edgerunner_testkit::ports::free;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::delivery::{Factory, Kind};
use crate::fastapi;
use crate::load::Connection;
use crate::table::table;

const CONNECTIONS: usize = 16;
/// Of each connection, between an answer and the next delivery.
const PAUSE: Duration = Duration::from_millis(20);
/// Before the restart, and after it.
const AROUND: Duration = Duration::from_secs(1);
/// Between the end of the program and its start.
const AWAY: Duration = Duration::from_secs(2);
/// More than are sent.
const DELIVERIES: usize = 10_000;
const PEER: &str = "gunicorn-restart";

#[derive(Default)]
struct Counts {
    accepted: usize,
    unavailable: usize,
    /// Without an answer.
    broken: usize,
    longest: Duration,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.unavailable += other.unavailable;
        self.broken += other.broken;
        self.longest = self.longest.max(other.longest);
    }

    fn row(&self, name: &str) -> [String; 5] {
        [
            name.to_owned(),
            self.accepted.to_string(),
            self.unavailable.to_string(),
            self.broken.to_string(),
            format!("{:.2} s", self.longest.as_secs_f64()),
        ]
    }
}

pub(crate) async fn measure(deployment: &mut Deployment, secrets: &Secrets) -> Result<String> {
    let mut factory = Factory::new(&secrets.webhook)?;
    let load = Load::start(deployment.envoy()?.address(), &mut factory);
    sleep(AROUND).await;
    deployment.restart_sidecar(AWAY).await?;
    sleep(AROUND).await;
    let ours = load.stop().await?;

    let address = free()?;
    let started = (address, "/openapi.json");
    deployment.start(PEER, fastapi::command(address, secrets)?, started).await?;
    let load = Load::start(address, &mut factory);
    sleep(AROUND).await;
    deployment.stop_other(PEER).await?;
    sleep(AWAY).await;
    deployment.start(PEER, fastapi::command(address, secrets)?, started).await?;
    sleep(AROUND).await;
    let theirs = load.stop().await?;
    deployment.stop_other(PEER).await?;

    let mut table = table(["a restart under load", "accepted", "503", "no answer", "longest"]);
    table.add_row(ours.row("edgerunner: the sidecar is restarted behind Envoy"));
    table.add_row(theirs.row("FastAPI: gunicorn is restarted"));
    Ok(format!(
        "{table}\n{CONNECTIONS} connections, each sends {PAUSE:?} after its last answer; the program \
         is away for {AWAY:?} and its own start."
    ))
}

struct Load {
    done: Arc<AtomicBool>,
    tasks: JoinSet<Result<Counts>>,
}

impl Load {
    fn start(address: SocketAddr, factory: &mut Factory) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        let mut deliveries = factory.make(Kind::Queued, DELIVERIES);
        for _ in 0..CONNECTIONS {
            let own = deliveries.split_off(deliveries.len() - DELIVERIES / CONNECTIONS);
            tasks.spawn(send(address, own, Arc::clone(&done)));
        }
        Self { done, tasks }
    }

    async fn stop(mut self) -> Result<Counts> {
        self.done.store(true, Ordering::Relaxed);
        let mut counts = Counts::default();
        while let Some(task) = self.tasks.join_next().await {
            counts.add(&task??);
        }
        Ok(counts)
    }
}

async fn send(
    address: SocketAddr,
    deliveries: Vec<Bytes>,
    done: Arc<AtomicBool>,
) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut connection = None;
    for delivery in deliveries {
        if done.load(Ordering::Relaxed) {
            return Ok(counts);
        }
        let sent = Instant::now();
        match exchange(&mut connection, address, &delivery).await {
            Ok(202) => counts.accepted += 1,
            Ok(_) => counts.unavailable += 1,
            Err(_) => {
                counts.broken += 1;
                connection = None;
            }
        }
        counts.longest = counts.longest.max(sent.elapsed());
        sleep(PAUSE).await;
    }
    Ok(counts)
}

async fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    delivery: &[u8],
) -> Result<u16> {
    if connection.is_none() {
        *connection = Some(Connection::open(address).await?);
    }
    let connection = connection.as_mut().context("a connection")?;
    Ok(connection.exchange(delivery).await?.0)
}
