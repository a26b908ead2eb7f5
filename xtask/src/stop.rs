//! The one wish to end: Ctrl-C, SIGTERM, or the terminal going away.

use std::future::Future;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Raised wherever work was cut short on request, so that it is not reported
/// as a failure of that work.
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
    /// From here on signals no longer kill this process: a second Ctrl-C
    /// during the clean-up must not cut the clean-up short.
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

    /// Runs `work` unless the wish to stop comes first; `work` is then dropped.
    pub(crate) async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.token.run_until_cancelled(work).await {
            Some(result) => result,
            None => Err(Interrupted.into()),
        }
    }
}
