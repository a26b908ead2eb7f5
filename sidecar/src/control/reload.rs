//! What SIGHUP does: the configuration is read anew, and its pools are taken over.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{error, info, warn};

use crate::{
    config::{Config, RestartRequired},
    control::driver::Command,
};

pub(crate) struct Reload {
    pub(crate) file: Option<PathBuf>,
    /// As it was at the start.
    pub(crate) fixed: RestartRequired,
    pub(crate) driver: mpsc::Sender<Command>,
}

impl Reload {
    /// From now on SIGHUP does not end the process. The future ends never.
    pub(crate) fn on_hangup(self) -> Result<impl Future<Output = ()> + Send> {
        let mut hangup = signal(SignalKind::hangup()).context("no SIGHUP handler")?;
        Ok(async move {
            while hangup.recv().await.is_some() {
                self.read_anew().await;
            }
        })
    }

    async fn read_anew(&self) {
        let config = Config::load_to_serve(self.file.as_deref(), &|name| std::env::var(name).ok());
        let config = match config {
            Ok(config) => config,
            Err(mistakes) => {
                let mistakes = mistakes.to_string();
                error!(mistakes, "SIGHUP: the configuration is wrong: the pools stay as they were");
                return;
            }
        };
        let changed = self.fixed.changed(&config.fixed).join(", ");
        if !changed.is_empty() {
            warn!(changed, "SIGHUP: only pools are read anew: for the rest start the sidecar anew");
        }
        let pools: Vec<&str> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
        info!(pools = pools.join(", "), "SIGHUP: the pools are read anew");
        // The driver is gone only at the end of the process.
        let _ = self.driver.send(Command::Pools(config.pools)).await;
    }
}
