//! What nobody at GitHub would send, by the hundred, against the configuration
//! that ships. Afterwards nothing may be left of it: no event that a plain HMAC
//! over the whole body refuses, no stream, no memory, no trap.
//!
//! The variable `EDGERUNNER_HOSTILE` picks the cases that have it in their names.

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

/// Cases on their way at once: many of them wait for a limit of time.
const AT_ONCE: usize = 24;
/// What Envoy may hold after the second round that it did not after the first.
const GROWTH_KIB_MAX: u64 = 24 * 1024;
/// For one case; Envoy ends whatever takes longer than 9.5 s.
const CASE_LIMIT: Duration = Duration::from_secs(12);

/// Held by what takes all of a processor: Envoy's limits of time would end what
/// is slow only because of it.
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
    Stack::run(Options::default(), async |stack| -> Result<()> {
        let mut expected = Expected::default();
        // Buffers, and the memory of the VM, grow to what they need once.
        let first = round(stack, &mut expected).await?;
        let second = round(stack, &mut expected).await?;
        ensure!(
            second <= first + GROWTH_KIB_MAX,
            "Envoy holds {second} KiB after a second round and {first} KiB after the first"
        );
        Ok(())
    })
    .await;
}

/// Returns what Envoy holds in memory afterwards, in KiB.
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
    println!("{count} cases in {:.1?}; Envoy holds {} MiB", begun.elapsed(), memory / 1024);
    Ok(memory)
}
