//! Opens the store. A server that does not answer yet is waited for.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;
use tracing::{info, warn};

use super::Termination;
use crate::{
    config::{Config, Database},
    store::{Closed, OpenError, Store},
    telemetry::metrics,
};

const RETRY_AFTER: Duration = Duration::from_secs(1);

/// `None` if the process was asked to stop before the store was open.
pub(super) async fn open(
    config: &Config,
    termination: &mut Termination,
) -> Result<Option<(Store, Closed)>> {
    match &config.database {
        None => Ok(Some(Store::open(&config.store.path, config.default_host(), metrics::commit)?)),
        Some(database) => tokio::select! {
            opened = connect(database) => Ok(Some(opened?)),
            () = termination.requested() => Ok(None),
        },
    }
}

/// Fails only if waiting would not help. Each reason to wait is logged once.
async fn connect(database: &Database) -> Result<(Store, Closed), OpenError> {
    let mut waits_for: Option<String> = None;
    loop {
        match Store::connect(database, metrics::commit).await {
            Ok(opened) => {
                if waits_for.is_some() {
                    info!(store = %database.url, "the store answers");
                }
                return Ok(opened);
            }
            Err(error) if error.is_unreachable() => {
                let reason = error.to_string();
                if waits_for.as_ref() != Some(&reason) {
                    warn!(error = reason, "cannot reach the store; waiting until it answers");
                }
                waits_for = Some(reason);
            }
            Err(error) => return Err(error),
        }
        sleep(RETRY_AFTER).await;
    }
}
