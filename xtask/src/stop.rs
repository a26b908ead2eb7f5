//! The request to stop: Ctrl-C, SIGTERM, or a closed terminal.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The error of work that was stopped on request, which is not a failure.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

#[derive(Clone)]
pub(crate) struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// From here on signals do not kill this process: a second Ctrl-C must not interrupt
    /// the clean-up.
    pub(crate) fn on_signals() -> Result<Self> {
        let token = CancellationToken::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let mut signal = signal(kind).context("cannot handle signals")?;
            let on_signal = token.clone();
            tokio::spawn(async move {
                while signal.recv().await.is_some() {
                    if on_signal.is_cancelled() {
                        eprintln!("already stopping");
                    }
                    on_signal.cancel();
                }
            });
        }
        Ok(Self { token })
    }

    pub(crate) async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Runs `work`, and drops it when a stop is requested.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.token.run_until_cancelled(work).await {
            Some(result) => result,
            None => Err(Interrupted.into()),
        }
    }
}
