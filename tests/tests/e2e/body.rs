//! Bodies in pieces, with trailers, and too large.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use edgerunner_tests::{Options, Stack, Webhook, eventually, payload, raw, send_http2};
use futures_util::stream;
use http::{HeaderMap, HeaderValue};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::io::AsyncWriteExt as _;

/// `max_body_bytes` of the shipped configuration.
const BODY_MAX: usize = 26_214_400;
const RECEIVED_BYTES: &str = "http.webhooks.downstream_cx_rx_bytes_total";

fn chunked(webhook: Webhook) -> (Vec<u8>, Bytes) {
    let webhook = webhook.and_header("transfer-encoding", "chunked");
    ([webhook.head(), b"\r\n".to_vec()].concat(), webhook.body)
}

#[tokio::test]
async fn a_chunked_body_is_hashed_however_it_is_cut() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        for (id, size) in [(1, usize::MAX), (2, 7), (3, 1)] {
            let (head, body) = chunked(Webhook::job(id));
            let mut pieces = vec![head];
            pieces.extend(body.chunks(size.min(body.len())).map(raw::chunk));
            pieces.push(raw::chunk(b""));
            let answer = raw::exchange(stack.envoy.address(), pieces).await?;
            assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{size}: {answer:?}");
            assert_eq!(answer.json()?["job"], id);
        }
        Ok(())
    })
    .await;
}

/// Envoy may pass pieces on together. Here it has read each piece before the next is sent.
#[tokio::test]
async fn a_body_that_comes_slowly_is_hashed_piece_by_piece() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let received = async || stack.envoy.stat(RECEIVED_BYTES).await;
        for (id, size) in [(1, 100), (2, 40)] {
            let (head, body) = chunked(Webhook::job(id));
            let mut expected = received().await?;
            let answer = raw::exchange_by(stack.envoy.address(), async |writer| {
                let end = [raw::chunk(b"")];
                let pieces = body.chunks(size).map(raw::chunk).chain(end);
                for piece in std::iter::once(head).chain(pieces) {
                    writer.write_all(&piece).await?;
                    expected += u64::try_from(piece.len())?;
                    eventually("Envoy has read the piece", async || {
                        Ok((received().await? >= expected).then_some(()))
                    })
                    .await?;
                }
                Ok(())
            })
            .await?;
            assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");
            assert_eq!(answer.json()?["job"], id);
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_body_with_trailers_is_complete_at_the_trailers() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        for (id, size) in [(1, usize::MAX), (2, 10)] {
            let webhook = Webhook::job(id);
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_bytes(b"\xff\x80 none")?);
            let size = size.min(webhook.body.len());
            let frames: Vec<_> = (0..webhook.body.len())
                .step_by(size)
                .map(|at| webhook.body.slice(at..webhook.body.len().min(at + size)))
                .map(Frame::data)
                .chain([Frame::trailers(trailers)])
                .map(Ok::<_, Infallible>)
                .collect();
            let body = StreamBody::new(stream::iter(frames));
            let answer = send_http2(stack.envoy.address(), webhook.request_with(body)?).await?;
            assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");

            let tampered: Vec<_> = [
                Frame::data(webhook.body.slice(1..)),
                Frame::trailers(HeaderMap::from_iter([(
                    http::HeaderName::from_static("x-checksum"),
                    HeaderValue::from_static("none"),
                )])),
            ]
            .map(Ok::<_, Infallible>)
            .into();
            let body = StreamBody::new(stream::iter(tampered));
            let answer = send_http2(stack.envoy.address(), webhook.request_with(body)?).await?;
            assert_eq!((answer.status, answer.outcome()), (401, "signature_mismatch"));
        }

        // HTTP/1.1 has trailers as well, after the last chunk.
        let (head, body) = chunked(Webhook::job(3));
        let pieces = [head, raw::chunk(&body), b"0\r\nx-checksum: none\r\n\r\n".to_vec()];
        let answer = raw::exchange(stack.envoy.address(), pieces).await?;
        assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_body_too_large_is_refused_by_its_length_before_it_is_sent() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        for length in [(BODY_MAX + 1).to_string(), "99999999999999999999".to_owned()] {
            let webhook = Webhook::job(1).and_header("content-length", &length);
            let head = [webhook.head(), b"\r\n".to_vec()].concat();
            let answer = raw::exchange(stack.envoy.address(), [head]).await?;
            // Envoy rejects a length beyond 64 bits.
            let expected = if length.len() < 20 { (413, "too_large") } else { (400, "") };
            assert_eq!((answer.status, answer.outcome()), expected, "{answer:?}");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_refused() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let (head, _) = chunked(Webhook::job(1));
        let piece = raw::chunk(&[b' '; 1 << 16]);
        let count = BODY_MAX.div_ceil(1 << 16) + 1;
        let pieces = std::iter::once(head).chain(std::iter::repeat_n(piece, count));
        let answer = raw::exchange(stack.envoy.address(), pieces).await?;
        assert_eq!((answer.status, answer.outcome()), (413, "too_large"), "{answer:?}");
        let answer = stack.send(&Webhook::job(2)).await?;
        assert_eq!(answer.status, 202, "{answer:?}");
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn large_bodies_up_to_the_limit_are_accepted() {
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut payload = payload("queued", 1);
        payload["workflow_job"]["padding"] = "x".repeat(5_000_000).into();
        let answer = stack.send(&Webhook::workflow_job(&payload)).await?;
        assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");

        payload["workflow_job"]["id"] = 2.into();
        payload["workflow_job"]["padding"] = "".into();
        let room = BODY_MAX - payload.to_string().len();
        payload["workflow_job"]["padding"] = "x".repeat(room).into();
        let webhook = Webhook::workflow_job(&payload);
        assert_eq!(webhook.body.len(), BODY_MAX);
        let answer = stack.send(&webhook).await?;
        assert_eq!((answer.status, answer.outcome()), (202, "accepted"), "{answer:?}");
        Ok(())
    })
    .await;
}
