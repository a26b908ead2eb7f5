//! Senders that disconnect, in every state of a delivery.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use edgerunner_tests::{Options, Stack, Webhook, eventually};
use futures_util::future::try_join_all;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::case::{genuine, http1};
use crate::expected::{Expected, unharmed};

const EACH: usize = 25;

#[derive(Clone, Copy)]
enum Leave {
    /// Resets the connection.
    Reset,
    Close,
}

#[derive(Clone, Copy)]
enum When {
    InHeaders,
    InBody,
    AllSent,
}

#[tokio::test]
async fn senders_that_disconnect_leave_nothing_behind() {
    Stack::run(Options::default().new_envoy(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        for when in [When::InHeaders, When::InBody, When::AllSent] {
            leave_all(stack, &mut expected, when).await?;
        }
        unharmed(stack, &mut expected).await
    })
    .await;
}

/// The deliveries wait for the sidecar, which is frozen.
#[tokio::test]
async fn senders_that_disconnect_while_the_sidecar_answers_leave_nothing_behind() {
    Stack::run(Options::default().new_envoy(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        unharmed(stack, &mut expected).await?;
        // As separate calls first, then over the stream.
        for _ in 0..2 {
            stack.sidecar.freeze()?;
            leave_all(stack, &mut expected, When::AllSent).await?;
            stack.sidecar.thaw()?;
            unharmed(stack, &mut expected).await?;
            // The sidecar answers while they disconnect.
            leave_all(stack, &mut expected, When::AllSent).await?;
            unharmed(stack, &mut expected).await?;
        }
        Ok(())
    })
    .await;
}

async fn leave_all(stack: &Stack, expected: &mut Expected, when: When) -> Result<()> {
    let webhooks: Vec<Webhook> = (0..3 * EACH).map(|_| genuine()).collect();
    expected.enter(&webhooks);
    let (first, rest) = webhooks.split_at(EACH);
    let (second, third) = rest.split_at(EACH);
    try_join_all(first.iter().map(|it| leave(stack, it, when, Leave::Reset))).await?;
    try_join_all(second.iter().map(|it| leave(stack, it, when, Leave::Close))).await?;
    leave_http2(stack, third, when).await?;
    eventually("no request is left", async || {
        let active = stack.envoy.stat("http.webhooks.downstream_rq_active").await?;
        Ok((active == 0).then_some(()))
    })
    .await
}

async fn leave(stack: &Stack, webhook: &Webhook, when: When, leave: Leave) -> Result<()> {
    let bytes = http1(webhook);
    let head = bytes.len() - webhook.body.len();
    let length = match when {
        When::InHeaders => head / 2,
        When::InBody => head + webhook.body.len() / 2,
        When::AllSent => bytes.len(),
    };
    let mut stream = TcpStream::connect(stack.envoy.address()).await?;
    stream.write_all(&bytes[..length]).await?;
    sleep(Duration::from_millis(5)).await;
    if matches!(leave, Leave::Reset) {
        stream.set_zero_linger()?;
    }
    drop(stream);
    Ok(())
}

/// All on one connection, which stays open.
async fn leave_http2(stack: &Stack, webhooks: &[Webhook], when: When) -> Result<()> {
    let tcp = TcpStream::connect(stack.envoy.address()).await?;
    let (mut sender, connection) = h2::client::handshake(tcp).await?;
    let connection = tokio::spawn(connection);
    let mut streams = Vec::new();
    for webhook in webhooks {
        sender = sender.ready().await?;
        let (answer, mut body) = sender.send_request(webhook.request_with(())?, false)?;
        match when {
            When::InHeaders => {}
            When::InBody => body.send_data(webhook.body.slice(..9), false)?,
            When::AllSent => body.send_data(webhook.body.clone(), true)?,
        }
        streams.push((answer, body));
    }
    sleep(Duration::from_millis(20)).await;
    for (_, body) in &mut streams {
        body.send_reset(h2::Reason::CANCEL);
    }
    drop(streams);
    // The connection still works.
    sender = sender.ready().await?;
    let request = http::Request::get("http://hooks.test/elsewhere").body(())?;
    let (answer, _) = sender.send_request(request, true)?;
    ensure!(answer.await?.status() == 404, "the connection no longer works");
    drop(sender);
    connection.await?.context("the connection")
}
