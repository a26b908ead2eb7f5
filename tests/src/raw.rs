//! HTTP/1.1 by the byte, for requests that no client library sends.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use edgerunner_testkit::Answer;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

/// Envoy answers within 9.5 s, and twice that on a busy machine at most.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Sends the pieces one by one and waits for one response.
pub async fn exchange<P: AsRef<[u8]>>(
    address: SocketAddr,
    pieces: impl IntoIterator<Item = P>,
) -> Result<Answer> {
    exchange_by(address, async |writer| {
        for piece in pieces {
            writer.write_all(piece.as_ref()).await?;
        }
        Ok(())
    })
    .await
}

/// Waits for one response while `send` writes the request.
pub async fn exchange_by(
    address: SocketAddr,
    send: impl AsyncFnOnce(&mut OwnedWriteHalf) -> Result<()>,
) -> Result<Answer> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut reader, mut writer) = stream.into_split();
    let write = async {
        // A write may fail: Envoy may respond early and close.
        let sent = send(&mut writer).await;
        match sent {
            Err(error) if !error.is::<std::io::Error>() => Err(error),
            // Shutting down this side would end the request, so it stays open.
            _ => std::future::pending::<Result<Answer>>().await,
        }
    };
    let read = async {
        let mut received = Vec::new();
        loop {
            if let Some(answer) = parse(&received)? {
                return Ok(answer);
            }
            let count = reader.read_buf(&mut received).await?;
            ensure!(count > 0, "closed after {:?}", String::from_utf8_lossy(&received));
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, async {
        tokio::select! {
            answer = read => answer,
            answer = write => answer,
        }
    })
    .await
    .context("no answer")?
}

/// One chunk of a body sent with `transfer-encoding: chunked`.
pub fn chunk(data: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", data.len()).as_bytes(), data, b"\r\n"].concat()
}

/// Returns `None` if it is not complete.
fn parse(received: &[u8]) -> Result<Option<Answer>> {
    let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let (head, body) = (&received[..end], &received[end + 4..]);
    let head = std::str::from_utf8(head)?;
    let (status_line, fields) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status_line.split(' ').nth(1).context("no status")?.parse()?;
    let mut headers = HeaderMap::new();
    for field in fields.lines() {
        let (name, value) = field.split_once(':').context("no header field")?;
        let name: HeaderName = name.parse()?;
        headers.append(name, HeaderValue::from_str(value.trim())?);
    }
    let length: usize = match headers.get("content-length") {
        Some(length) => length.to_str()?.parse()?,
        None => 0,
    };
    Ok((body.len() >= length).then(|| Answer {
        status,
        headers,
        body: Bytes::copy_from_slice(&body[..length]),
    }))
}
