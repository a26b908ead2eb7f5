//! Retries while GitHub is unavailable.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::ClientError;
use super::console::log;

/// How long GitHub may be unavailable before the runner gives up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Repeats `attempt` while GitHub is unavailable. Returns `None` once the runner must stop.
pub(super) async fn with_retries<T, F>(
    stop: &CancellationToken,
    mut attempt: impl FnMut() -> F,
) -> Option<Result<T, ClientError>>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let attempts = async {
        let mut first_failure = None;
        loop {
            match attempt().await {
                Err(ClientError::Unavailable(error))
                    if first_failure.get_or_insert_with(Instant::now).elapsed() < GIVE_UP_AFTER =>
                {
                    log(&format!("Runner connect error: {error}. Retrying until reconnected."));
                    tokio::time::sleep(RETRY_DELAY).await;
                }
                other => return other,
            }
        }
    };
    stop.run_until_cancelled(attempts).await
}
