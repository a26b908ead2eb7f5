//! The load generator: each connection sends its next request as soon as it has the
//! response to the last one. It implements only the HTTP that it needs, since it takes
//! processor time from the programs that it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The longest round, even if the receiver is slow.
const ROUND_TIMEOUT: Duration = Duration::from_secs(20);
const RESPONSE_BYTES_MAX: usize = 16 << 10;

pub(crate) struct Round {
    pub(crate) per_second: f64,
    pub(crate) latencies_us: Histogram<u64>,
}

/// A status, and a word in the body.
#[derive(Clone, Copy)]
pub(crate) struct Expected(pub(crate) u16, pub(crate) &'static str);

impl Expected {
    pub(crate) const ACCEPTED: Self = Self(202, "accepted");
}

pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("a histogram of microseconds")
}

/// Sends `requests` over `connections`. Any unexpected response is an error, since it makes
/// the whole round worthless.
pub(crate) async fn round(
    address: SocketAddr,
    requests: Vec<Bytes>,
    connections: usize,
    expected: Expected,
) -> Result<Round> {
    let requests = Arc::new(requests);
    let next = Arc::new(AtomicUsize::new(0));
    let mut opened = Vec::new();
    for _ in 0..connections {
        opened.push(Connection::open(address).await?);
    }
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in opened {
        let requests = Arc::clone(&requests);
        let next = Arc::clone(&next);
        tasks.spawn(async move {
            let mut latencies = histogram()?;
            while started.elapsed() < ROUND_TIMEOUT {
                let Some(request) = requests.get(next.fetch_add(1, Ordering::Relaxed)) else {
                    break;
                };
                let sent = Instant::now();
                let (status, body) = connection.exchange(request).await?;
                latencies.saturating_record(u64::try_from(sent.elapsed().as_micros())?);
                if status != expected.0 || !contains(body, expected.1.as_bytes()) {
                    bail!("{address} answered {status}: {}", String::from_utf8_lossy(body));
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

/// The status of the response to one request.
pub(crate) async fn status(address: SocketAddr, request: &[u8]) -> Result<u16> {
    Ok(Connection::open(address).await?.exchange(request).await?.0)
}

pub(crate) struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("nothing listens on {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Returns the status and the body of the response.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<(u16, &[u8])> {
        self.stream.write_all(request).await.context("the receiver closed the connection")?;
        self.received.clear();
        let response = loop {
            let read = self.stream.read_buf(&mut self.received).await.context("no response")?;
            ensure!(read > 0, "the receiver closed the connection");
            if let Some(response) = parse(&self.received)? {
                break response;
            }
            ensure!(self.received.len() < RESPONSE_BYTES_MAX, "an endless response");
        };
        let (status, body_bytes) = response;
        let body = self.received.len() - body_bytes;
        Ok((status, self.received.get(body..).unwrap_or_default()))
    }
}

/// Returns the status and the length of the body, once the response is complete.
fn parse(received: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = received.split_at(head);
    let head = str::from_utf8(head).context("not an HTTP response")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
    });
    let (Some(status), Some(length)) = (status, length) else {
        bail!("a response without a length: {head}");
    };
    Ok((body.len() >= 4 + length).then_some((status, length)))
}

fn contains(body: &[u8], word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_once_it_is_complete() {
        let answer = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\nok";
        for cut in 0..answer.len() {
            assert_eq!(parse(&answer[..cut]).unwrap(), None);
        }
        assert_eq!(parse(answer).unwrap(), Some((202, 2)));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
