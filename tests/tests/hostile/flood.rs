//! Genuine deliveries during a flood of others.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use bytes::Bytes;
use edgerunner_tests::{Options, Stack, Webhook};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::case::{genuine, http1};
use crate::expected::{Expected, unharmed};

const GENUINE: usize = 300;
/// Connections of each kind.
const CONNECTIONS: usize = 8;

#[tokio::test]
async fn every_genuine_delivery_is_accepted_during_a_flood() {
    let _processor = crate::PROCESSOR.lock().await;
    Stack::run(Options::default().new_envoy(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        let wrong = |size: usize| {
            let body = Bytes::from(vec![b' '; size]);
            http1(&Webhook::new("workflow_job", body).signed_with("another secret"))
        };
        let unsigned = http1(&genuine().without("x-hub-signature-256"));
        let kinds = [unsigned, wrong(500), wrong(1_000_000)];
        let refused = AtomicUsize::new(0);
        let address = stack.envoy.address();
        let floods = kinds
            .iter()
            .flat_map(|bytes| (0..CONNECTIONS).map(|_| flood(address, bytes, &refused)));
        let deliver = async {
            for _ in 0..GENUINE {
                let webhook = genuine();
                expected.enter(std::slice::from_ref(&webhook));
                let answer = stack.send(&webhook).await?;
                ensure!(answer.outcome() == "accepted", "{answer:?}");
            }
            anyhow::Ok(())
        };
        tokio::select! {
            done = deliver => done?,
            never = futures_util::future::join_all(floods) => drop(never),
        }
        let refused = refused.into_inner();
        ensure!(refused > 2 * GENUINE, "only {refused} were rejected");
        unharmed(stack, &mut expected).await
    })
    .await;
}

/// Sends the same request repeatedly, and reconnects whenever Envoy closes.
async fn flood(address: SocketAddr, bytes: &[u8], refused: &AtomicUsize) {
    loop {
        // The flood goes on despite errors.
        let _ = flood_once(address, bytes, refused).await;
    }
}

async fn flood_once(
    address: SocketAddr,
    bytes: &[u8],
    refused: &AtomicUsize,
) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = vec![0; 4096];
    loop {
        stream.write_all(bytes).await?;
        if stream.read(&mut answer).await? == 0 {
            return Ok(());
        }
        refused.fetch_add(1, Ordering::Relaxed);
    }
}
