//! The request to stop: Ctrl-C, SIGTERM, or a closed terminal.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returned by work that was interrupted on request, which is not a failure.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

#[derive(Clone)]
pub(crate) struct Stop {
    token: CancellationToken,
}

impl Stop {
    /// From here on signals do not kill this process: a second Ctrl-C must not interrupt
    /// the clean-up.
    pub(crate) fn on_signals() -> Result<Self> {
        let token = CancellationToken::new();
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let on_signal = token.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {}
                }
                if on_signal.is_cancelled() {
                    eprintln!("already stopping");
                }
                on_signal.cancel();
            }
        });
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
