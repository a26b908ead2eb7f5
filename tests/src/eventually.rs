use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Far more than anything takes: only a failure waits so long.
const LIMIT: Duration = Duration::from_secs(30);
const INTERVAL: Duration = Duration::from_millis(20);

/// Looks again and again until there is a value. An error counts as none yet,
/// and is shown if it was the last.
pub async fn eventually<T>(what: &str, look: impl AsyncFnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_within(LIMIT, what, look).await
}

/// The same for what takes longer.
pub async fn eventually_within<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let looked = look().await;
        if let Ok(Some(value)) = looked {
            return Ok(value);
        }
        if Instant::now() > deadline {
            match looked {
                Err(error) => bail!("not within {limit:?}: {what}: {error:#}"),
                Ok(_) => bail!("not within {limit:?}: {what}"),
            }
        }
        sleep(INTERVAL).await;
    }
}
