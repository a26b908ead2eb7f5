//! `edgerunner serve`: runs the parts until a signal, or until one of them ends early.

mod cluster;
mod parts;
mod planner;
mod store;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    runtime,
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{error, info};

use crate::{
    config::Config,
    control::gauges,
    store::Store,
    telemetry::{logging, metrics, traces},
};
use parts::Parts;

/// For reads of the store in progress: they run on threads and cannot be cancelled.
const READS_GRACE: Duration = Duration::from_secs(1);

/// `file`: where the configuration was read from, for reloads.
///
/// Returns after SIGTERM or SIGINT, or with an error if a part ended early.
pub(crate) fn serve(config: Config, file: Option<PathBuf>) -> Result<()> {
    // One thread: its tasks mostly wait, and waking a second thread would cost a delivery more
    // than it gains. Blocking work has its own threads.
    let start = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.context("the runtime did not start")
    };
    let runtime = start()?;
    let traces = {
        let _entered = runtime.enter();
        config.traces.otlp_endpoint.as_deref().map(traces::Exporter::start).transpose()?
    };
    logging::init(&config.log, traces.as_ref());
    let mut termination = {
        let _entered = runtime.enter();
        Termination::listen()?
    };
    let opened = runtime.block_on(store::open(&config, &mut termination))?;
    let Some((store, store_closed)) = opened else {
        info!("stopped before the store was open");
        return Ok(());
    };
    let served = runtime.block_on(run(config, file, store, termination));
    if let Some(traces) = traces
        && let Err(error) = runtime.block_on(runtime.spawn_blocking(|| traces.end()))
    {
        error!(%error, "the last spans are lost");
    }
    // Launches that outlast the grace period end here and release the store.
    runtime.shutdown_timeout(READS_GRACE);
    start()?.block_on(store_closed.wait());
    if served.is_ok() {
        info!("stopped");
    }
    served
}

async fn run(
    config: Config,
    file: Option<PathBuf>,
    store: Store,
    mut termination: Termination,
) -> Result<()> {
    let prometheus = metrics::install()?;
    gauges::describe();
    let mut parts = Parts::start(config, file, store, prometheus).await?;
    let end = tokio::select! {
        () = termination.requested() => Ok(()),
        error = parts.supervisor.first_exit() => {
            error!(error = format!("{error:#}"), "a part ended early: stopping");
            Err(error)
        }
    };
    parts.stop().await;
    end
}

/// SIGTERM and SIGINT from the moment on that it listens. From then on they do not end the process by
/// themselves, so one that nobody waits for yet must not get lost.
struct Termination {
    terminate: Signal,
    interrupt: Signal,
}

impl Termination {
    fn listen() -> Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("no SIGTERM handler")?,
            interrupt: signal(SignalKind::interrupt()).context("no SIGINT handler")?,
        })
    }

    async fn requested(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => info!("SIGTERM"),
            _ = self.interrupt.recv() => info!("SIGINT"),
        }
    }
}
