//! Whether Envoy grows under many deliveries. V8 tells nothing of the memory of
//! a VM in Envoy's statistics, so this is that of the whole process.

use anyhow::{Result, ensure};
use bytes::Bytes;
use edgerunner_tests::{Options, Stack, Webhook};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use crate::case::genuine;
use crate::expected::{Expected, unharmed};

const DELIVERIES: usize = 1_000;
/// One in a hundred.
const LARGE_EVERY: usize = 100;
const LARGE: usize = 5_000_000;
/// Less than what is left if a tenth of the large bodies stays.
const GROWTH_KIB_MAX: u64 = 4 * 1024;
const AT_ONCE: usize = 4;

#[tokio::test]
async fn envoy_does_not_grow_under_deliveries_of_mixed_sizes() {
    let _processor = crate::PROCESSOR.lock().await;
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        // Until it has the room it needs for as many at once.
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

/// Small ones that are stored, large ones that are parsed or refused.
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
