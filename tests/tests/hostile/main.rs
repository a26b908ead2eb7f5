//! Hundreds of requests that GitHub would not send, to the configuration that ships.
//! Afterwards nothing may be left: no event without a valid signature, no stream, no
//! memory, no trap.
//!
//! The variable `EDGERUNNER_HOSTILE` selects cases by a part of their names.

mod case;
mod expected;
mod flood;
mod frames;
mod growth;
mod http1;
mod http2;
mod payloads;
mod resets;
mod signatures;

use std::time::Duration;

use anyhow::{Result, ensure};
use edgerunner_tests::{Options, Stack};
use futures_util::{StreamExt as _, stream};
use tokio::sync::Mutex;
use tokio::time::Instant;

use case::Case;
use expected::{Expected, unharmed};

/// Cases at the same time: many of them wait for a timeout.
const AT_ONCE: usize = 24;
/// How much Envoy's memory may grow from the first round to the second.
const GROWTH_KIB_MAX: u64 = 24 * 1024;
/// For one case. Envoy ends requests after 9.5 s, and twice that on a busy machine at most.
const CASE_LIMIT: Duration = Duration::from_secs(20);

/// Held by tests that use a whole processor: the others would run into Envoy's timeouts.
static PROCESSOR: Mutex<()> = Mutex::const_new(());

fn cases() -> Vec<Case> {
    let mut cases = http1::cases();
    cases.extend(http2::cases());
    cases.extend(signatures::cases());
    cases.extend(payloads::cases());
    if let Ok(wanted) = std::env::var("EDGERUNNER_HOSTILE") {
        cases.retain(|case| case.name.contains(&wanted));
    }
    cases
}

#[tokio::test]
async fn whatever_is_sent_nothing_is_left_of_it() {
    let _processor = PROCESSOR.lock().await;
    Stack::run(Options::default().new_envoy(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        // The first round allocates buffers and the memory of the VM.
        let first = round(stack, &mut expected).await?;
        let second = round(stack, &mut expected).await?;
        ensure!(
            second <= first + GROWTH_KIB_MAX,
            "Envoy uses {second} KiB after the second round and {first} KiB after the first"
        );
        Ok(())
    })
    .await;
}

/// Returns Envoy's memory afterwards, in KiB.
async fn round(stack: &Stack, expected: &mut Expected) -> Result<u64> {
    let begun = Instant::now();
    let cases = cases();
    for case in &cases {
        expected.enter(&case.genuine);
    }
    let count = cases.len();
    let address = stack.envoy.address();
    let failures: Vec<String> = stream::iter(&cases)
        .map(async |case| case.run(address).await)
        .buffer_unordered(AT_ONCE)
        .filter_map(async |failure| failure)
        .collect()
        .await;
    ensure!(
        failures.is_empty(),
        "{} of {count} cases failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    unharmed(stack, expected).await?;
    let memory = stack.envoy.process().memory_kib()?;
    println!("{count} cases in {:.1?}; Envoy uses {} MiB", begun.elapsed(), memory / 1024);
    Ok(memory)
}
