//! One hostile exchange and its allowed results.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use edgerunner_tests::{Webhook, send_http2};
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::CASE_LIMIT;
use crate::expected::is_genuine;
use crate::frames;

/// Time for responses that must not come: to a smuggled request, or one more than allowed.
const MORE_WITHIN: Duration = Duration::from_millis(60);

/// Something to send, and the allowed responses.
pub(crate) struct Case {
    pub(crate) name: String,
    wire: Wire,
    /// Any of these, in the notation of [`Case::run`].
    may: Vec<String>,
    /// The deliveries in it, as a strict receiver reads them.
    pub(crate) genuine: Vec<Webhook>,
}

enum Wire {
    Raw(Protocol, Vec<Step>),
    /// What the HTTP library permits.
    Http2(Webhook, Vec<Frame2>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

#[derive(Clone)]
pub(crate) enum Frame2 {
    Data(Bytes),
    Trailers(http::HeaderMap),
}

pub(crate) enum Step {
    Send(Vec<u8>),
    Wait(Duration),
    /// Shuts down our side; responses are still read.
    Shut,
}

/// The signed delivery of a new job.
pub(crate) fn genuine() -> Webhook {
    Webhook::job(next_job())
}

pub(crate) fn next_job() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

pub(crate) fn with_length(webhook: Webhook) -> Webhook {
    let length = webhook.body.len().to_string();
    webhook.and_header("content-length", length)
}

/// With the right length.
pub(crate) fn http1(webhook: &Webhook) -> Vec<u8> {
    let head = with_length(webhook.clone()).head();
    [&head, b"\r\n".as_slice(), &webhook.body].concat()
}

impl Case {
    fn new(name: impl Into<String>, wire: Wire, may: &[&str]) -> Self {
        let may = may.iter().map(|&may| may.to_owned()).collect();
        Self { name: name.into(), wire, may, genuine: Vec::new() }
    }

    pub(crate) fn http1(name: impl Into<String>, bytes: impl Into<Vec<u8>>, may: &[&str]) -> Self {
        Self::http1_steps(name, vec![Step::Send(bytes.into())], may)
    }

    pub(crate) fn http1_steps(name: impl Into<String>, steps: Vec<Step>, may: &[&str]) -> Self {
        let name = format!("HTTP/1: {}", name.into());
        Self::new(name, Wire::Raw(Protocol::Http1, steps), may)
    }

    /// Frames after the preface and our settings.
    pub(crate) fn frames(name: impl Into<String>, frames: Vec<u8>, may: &[&str]) -> Self {
        Self::frames_steps(name, vec![Step::Send(frames)], may)
    }

    pub(crate) fn frames_steps(
        name: impl Into<String>,
        mut steps: Vec<Step>,
        may: &[&str],
    ) -> Self {
        steps.insert(0, Step::Send(frames::opening()));
        Self::http2_raw(name, steps, may)
    }

    pub(crate) fn http2_raw(name: impl Into<String>, steps: Vec<Step>, may: &[&str]) -> Self {
        let name = format!("HTTP/2 frames: {}", name.into());
        Self::new(name, Wire::Raw(Protocol::Http2, steps), may)
    }

    pub(crate) fn http2(name: impl Into<String>, webhook: &Webhook, may: &[&str]) -> Self {
        let frames = vec![Frame2::Data(webhook.body.clone())];
        Self::http2_body(name, webhook, frames, may)
    }

    pub(crate) fn http2_body(
        name: impl Into<String>,
        webhook: &Webhook,
        frames: Vec<Frame2>,
        may: &[&str],
    ) -> Self {
        let name = format!("HTTP/2: {}", name.into());
        Self::new(name, Wire::Http2(webhook.clone(), frames), may)
    }

    /// Adds a delivery that it contains; whether it is genuine is checked.
    pub(crate) fn with(mut self, webhook: &Webhook) -> Self {
        self.genuine.push(webhook.clone());
        self
    }

    /// Returns the failure, if any. The notation is `202 accepted` for a response of the
    /// filter, `400` for one of Envoy, `, ` between several; `reset` and `goaway` for these
    /// frames; `closed` for a connection that ends without any of them.
    pub(crate) async fn run(&self, address: SocketAddr) -> Option<String> {
        let seen = match timeout(CASE_LIMIT, self.wire.run(address, self.least())).await {
            Ok(Ok(seen)) => seen,
            Ok(Err(error)) => format!("error: {error:#}"),
            Err(_) => "hung".to_owned(),
        };
        let accepted = seen.matches("202 accepted").count();
        let genuine = self.genuine.iter().filter(|webhook| is_genuine(webhook)).count();
        if accepted > genuine {
            return Some(format!("{}: {seen}, of which {genuine} genuine", self.name));
        }
        // After a response, a reset only means that the rest is not read.
        let answer = seen.strip_suffix(", reset").unwrap_or(&seen);
        let allowed = self.may.iter().any(|may| *may == seen || may == answer);
        (!allowed).then(|| format!("{}: {seen} instead of {:?}", self.name, self.may))
    }

    /// The smallest number of responses that is allowed; 1 for a closed connection as well.
    fn least(&self) -> usize {
        self.may.iter().map(|may| may.split(", ").count()).min().unwrap_or(1)
    }
}

impl Wire {
    async fn run(&self, address: SocketAddr, least: usize) -> Result<String> {
        match self {
            Self::Raw(protocol, steps) => raw(address, *protocol, steps, least).await,
            Self::Http2(webhook, frames) => {
                let frames = frames.clone().into_iter().map(|frame| match frame {
                    Frame2::Data(data) => Ok::<_, std::convert::Infallible>(Frame::data(data)),
                    Frame2::Trailers(trailers) => Ok(Frame::trailers(trailers)),
                });
                let request = webhook.request_with(StreamBody::new(stream::iter(frames)))?;
                match send_http2(address, request).await {
                    Ok(answer) => Ok(shown(answer.status, answer.outcome())),
                    Err(error) if error.is::<hyper::Error>() => Ok("reset".to_owned()),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

fn shown(status: u16, outcome: &str) -> String {
    format!("{status} {outcome}").trim_end().to_owned()
}

/// Waits for `least` responses, or for the end of the connection.
async fn raw(
    address: SocketAddr,
    protocol: Protocol,
    steps: &[Step],
    least: usize,
) -> Result<String> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let mut received = Vec::new();
    let mut sending = std::pin::pin!(async {
        for step in steps {
            match step {
                // A write may fail: Envoy may respond early and close.
                Step::Send(bytes) => writer.write_all(bytes).await?,
                Step::Wait(time) => sleep(*time).await,
                Step::Shut => writer.shutdown().await?,
            }
        }
        std::io::Result::Ok(())
    });
    let mut sent = false;
    let mut closed = false;
    while !closed {
        let answered = answers(protocol, &received)?.len() >= least;
        // Everything is sent and answered, so this waits for unexpected responses.
        let limit = if sent && answered { MORE_WITHIN } else { CASE_LIMIT };
        tokio::select! {
            _ = &mut sending, if !sent => sent = true,
            read = timeout(limit, reader.read_buf(&mut received)) => match read {
                Ok(Ok(count)) => closed = count == 0,
                // A reset.
                Ok(Err(_)) => closed = true,
                Err(_) => break,
            },
        }
    }
    let answers = answers(protocol, &received)?;
    Ok(if answers.is_empty() { "closed".to_owned() } else { answers.join(", ") })
}

fn answers(protocol: Protocol, received: &[u8]) -> Result<Vec<String>> {
    match protocol {
        Protocol::Http1 => http1_answers(received),
        Protocol::Http2 => Ok(frames::answers(received)),
    }
}

/// The complete responses.
fn http1_answers(mut received: &[u8]) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    while let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = std::str::from_utf8(&received[..end])?.to_ascii_lowercase();
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        ensure!(head.starts_with("http/1") && status.is_some(), "no answer: {head:?}");
        let field =
            |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let length = field("content-length").map_or(Ok(0), str::parse::<usize>)?;
        let body = &received[end + 4..];
        // The response to HEAD has a length but no body; it is the last one.
        let is_next = body.len() >= length || body.is_empty();
        if !is_next {
            break;
        }
        answers.push(shown(
            status.unwrap_or_default(),
            field("x-edgerunner-outcome").unwrap_or_default(),
        ));
        received = body.get(length..).unwrap_or_default();
    }
    Ok(answers)
}
