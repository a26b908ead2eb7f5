//! Envoy's memory under many deliveries. Envoy's statistics do not include the VM's memory,
//! so this measures the process.

use anyhow::{Result, ensure};
use bytes::Bytes;
use edgerunner_tests::{Options, Stack, Webhook};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::case::genuine;
use crate::expected::{Expected, unharmed};

const DELIVERIES: usize = 1_000;
/// One delivery in a hundred is large.
const LARGE_EVERY: usize = 100;
const LARGE: usize = 5_000_000;
/// Less than a tenth of the large bodies would leave.
const GROWTH_KIB_MAX: u64 = 4 * 1024;
const AT_ONCE: usize = 4;

#[tokio::test]
async fn envoy_does_not_grow_under_deliveries_of_mixed_sizes() {
    let _processor = crate::PROCESSOR.lock().await;
    Stack::run(Options::default().new_envoy(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        // A warm-up, until memory suffices for as many at the same time.
        deliver(stack, &mut expected).await?;
        let before = stack.envoy.process().memory_kib()?;
        deliver(stack, &mut expected).await?;
        let after = stack.envoy.process().memory_kib()?;
        println!("Envoy: {} MiB before, {} MiB after", before / 1024, after / 1024);
        ensure!(after <= before + GROWTH_KIB_MAX, "{before} KiB before, {after} KiB after");
        unharmed(stack, &mut expected).await
    })
    .await;
}

/// Small ones are stored; large ones are parsed or rejected.
async fn deliver(stack: &Stack, expected: &mut Expected) -> Result<()> {
    let large = Bytes::from(vec![b' '; LARGE]);
    let webhooks: Vec<(Webhook, &str)> = (0..DELIVERIES)
        .map(|index| match index % LARGE_EVERY {
            0 => (Webhook::new("workflow_job", large.clone()), "payload_malformed"),
            50 => (
                Webhook::new("workflow_job", large.slice(..LARGE / 10)).signed_with("another"),
                "signature_mismatch",
            ),
            _ => {
                let webhook = genuine();
                expected.enter(std::slice::from_ref(&webhook));
                (webhook, "accepted")
            }
        })
        .collect();
    stream::iter(&webhooks)
        .map(async |(webhook, expected)| {
            let answer = stack.send(webhook).await?;
            ensure!(answer.outcome() == *expected, "{answer:?}");
            Ok(())
        })
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}
