//! Waiting for a condition.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Far more than anything takes: only failures wait this long.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two polls at first.
const INTERVAL: Duration = Duration::from_millis(20);
/// Afterwards a tenth of what has been waited, so that a wait takes a tenth longer at most and the
/// processors are left to what is waited for; but no more than this.
const INTERVAL_MAX: Duration = Duration::from_millis(250);

/// Polls until there is a value. An error counts as no value yet; the last one is
/// reported when time runs out.
pub async fn eventually<T>(what: &str, poll: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_within(LIMIT, what, poll).await
}

/// The same with another limit.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut poll: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        let polled = poll().await;
        if let Ok(Some(value)) = polled {
            return Ok(value);
        }
        if began.elapsed() > limit {
            match polled {
                Err(error) => bail!("not within {limit:?}: {what}: {error:#}"),
                Ok(_) => bail!("not within {limit:?}: {what}"),
            }
        }
        sleep((began.elapsed() / 10).clamp(INTERVAL, INTERVAL_MAX)).await;
    }
}
