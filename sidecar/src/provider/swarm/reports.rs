//! The reports of a launcher, from the log of its service.

use std::{sync::Arc, time::Duration};

use bollard::query_parameters::LogsOptions;
use futures_util::{Stream, StreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};

use super::managers::Managers;
use crate::provider::report::Report;

/// For a manager to begin to answer.
const HEAD_LIMIT: Duration = Duration::from_secs(60);
/// For a whole log that nobody writes to any more.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Between two readings of a log that nobody follows.
const READ_EVERY: Duration = Duration::from_millis(300);
const READ_EVERY_MAX: Duration = Duration::from_secs(5);
/// A report with the longest log, written as JSON.
const LINE_BYTES_MAX: usize = 512 << 10;

/// All reports of a service, and later ones as they are written. Ends when the manager ends it,
/// for whatever reason.
pub(super) fn follow(
    managers: &Arc<Managers>,
    service: &str,
) -> impl Stream<Item = Report> + Send + use<> {
    read(managers, service, true)
}

/// The last report of a launcher that has ended; `None` if it cannot be had.
pub(super) async fn last(managers: &Arc<Managers>, service: &str) -> Option<Report> {
    so_far(managers, service).await.pop()
}

/// Waits until a service that answers once on each of so many nodes has done so, or `limit` is
/// over. The log is read again and again: one that is followed from before its tasks run may stay
/// silent.
pub(super) async fn answers(
    managers: &Arc<Managers>,
    service: &str,
    nodes: usize,
    limit: Duration,
) -> Vec<Report> {
    let deadline = Instant::now() + limit;
    let mut pause = READ_EVERY;
    loop {
        let reports = so_far(managers, service).await;
        if reports.len() >= nodes || Instant::now() >= deadline {
            return reports;
        }
        sleep(pause).await;
        pause = (pause * 2).min(READ_EVERY_MAX);
    }
}

async fn so_far(managers: &Arc<Managers>, service: &str) -> Vec<Report> {
    let mut reports = std::pin::pin!(read(managers, service, false));
    let mut found = Vec::new();
    let all = async {
        while let Some(report) = reports.next().await {
            found.push(report);
        }
    };
    let _ = timeout(READ_LIMIT, all).await;
    found
}

fn read(
    managers: &Arc<Managers>,
    service: &str,
    follow: bool,
) -> impl Stream<Item = Report> + Send + use<> {
    let options = LogsOptions { follow, stdout: true, ..Default::default() };
    let chunks = managers.current().map(|manager| {
        manager.bollard.clone().with_timeout(HEAD_LIMIT).service_logs(service, Some(options))
    });
    let chunks = stream::iter(chunks).flatten();
    let reports = chunks.scan(Vec::new(), |line: &mut Vec<u8>, chunk| {
        // A long line comes in pieces.
        let mut reports = Vec::new();
        let Ok(chunk) = chunk else { return std::future::ready(None) };
        for byte in chunk.into_bytes() {
            match byte {
                b'\n' => {
                    reports.extend(serde_json::from_slice(line).ok());
                    line.clear();
                }
                _ if line.len() < LINE_BYTES_MAX => line.push(byte),
                _ => {}
            }
        }
        std::future::ready(Some(stream::iter(reports)))
    });
    reports.flatten()
}
