//! The end of a runner's log, without its secrets.

use std::time::Duration;

use kube::api::LogParams;
use tokio::time::timeout;

use super::{
    Kubernetes,
    error::{error, no_answer},
    pod::RUNNER,
    secret::environment,
    seen::State,
};
use crate::provider::{
    error::{Error, ErrorKind},
    masked::masked,
    registration,
};

const LOG_BYTES_MAX: usize = 64 << 10;
/// The API server stops there: lines may be long.
const RESPONSE_BYTES_MAX: i64 = 1 << 20;
const LOG_LIMIT: Duration = Duration::from_secs(30);

impl Kubernetes {
    pub(crate) async fn log(&self, runner: &str, lines: usize) -> Result<String, Error> {
        let call = format!("read the log of {runner}");
        timeout(LOG_LIMIT, self.read_log(runner, lines, &call))
            .await
            .unwrap_or_else(|_| Err(no_answer(&call)))
    }

    async fn read_log(&self, runner: &str, lines: usize, call: &str) -> Result<String, Error> {
        let shared = &*self.shared;
        let found = self.look_up(runner).await?;
        let Some(seen) = found.as_ref().and_then(|pod| shared.pods.read(pod)) else {
            return Err(error(ErrorKind::Gone, call, "it has no pod"));
        };
        match &seen.state {
            State::Unscheduled(_) | State::Starting | State::Deleted => {
                return Err(error(ErrorKind::Gone, call, "its container has not started"));
            }
            State::Doubtful(why) | State::Stuck { message: why, .. } => {
                return Ok(format!("[edgerunner: its container has not started: {why}]\n"));
            }
            State::Running | State::Unreachable | State::Exited(_) | State::Ended(_) => {}
        }
        // What this pod was created with: its pool may have changed since, or be gone.
        let secret = shared
            .cluster
            .call(call, |connected| async move { connected.secrets().get_opt(runner).await });
        let Some(secret) = secret.await? else {
            let what = "its secret is gone, and with it what must not be shown of the log";
            return Err(error(ErrorKind::Refused, call, what));
        };
        let parameters = LogParams {
            container: Some(RUNNER.to_owned()),
            tail_lines: i64::try_from(lines).ok(),
            limit_bytes: Some(RESPONSE_BYTES_MAX),
            ..LogParams::default()
        };
        let read = shared.cluster.call(call, |connected| {
            let parameters = parameters.clone();
            async move { connected.pods().logs(runner, &parameters).await }
        });
        let ended = match &seen.state {
            State::Ended(why) => format!("[edgerunner: the pod ended: {why}]\n"),
            _ => String::new(),
        };
        let log = match read.await {
            // Its node may have removed the log, or be gone.
            Err(_) if !ended.is_empty() => String::new(),
            read => end_of(read?),
        };
        Ok(masked(log + &ended, registration::secrets(&environment(secret))))
    }
}

/// Whole lines, so that no part of a secret is left that would not be recognized.
fn end_of(log: String) -> String {
    let Some(start) = log.len().checked_sub(LOG_BYTES_MAX) else { return log };
    let bytes = &log.as_bytes()[start..];
    let line = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
    String::from_utf8_lossy(&bytes[line..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_log_begins_with_a_whole_line() {
        assert_eq!(end_of("one\ntwo\n".to_owned()), "one\ntwo\n");
        let long = format!("{}\n{}\n", "a".repeat(40), "b".repeat(LOG_BYTES_MAX - 20));
        assert_eq!(end_of(long), format!("{}\n", "b".repeat(LOG_BYTES_MAX - 20)));
        assert_eq!(end_of("ü".repeat(LOG_BYTES_MAX)), "");
    }
}
