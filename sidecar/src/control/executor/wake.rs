//! Wakes a parked runner.

use tokio::time::Instant;
use tracing::{Instrument as _, error_span, info, warn};

use super::{Executor, launch::Failure};
use crate::{
    provider::ErrorKind,
    store,
    telemetry::{metrics, traces},
};
use edgerunner_scheduler::plan::{Event, Wake};

impl Executor {
    /// `recorded`: the pending write of the runner's record, without which an earlier process would
    /// seem to have left it parked.
    pub(crate) async fn wake(
        self,
        wake: Wake,
        recorded: impl Future<Output = Result<(), store::Error>> + Send,
    ) {
        let span = error_span!(
            target: traces::TARGET,
            "wake",
            delivery = wake.prompted_by,
            runner = wake.runner,
            pool = wake.pool,
            target = %wake.target,
            host = %wake.target.host,
        );
        self.shared.traces.join(&span, wake.prompted_by.as_deref());
        async {
            let begun = Instant::now();
            let provider = &self.shared.places[wake.provider].provider;
            let woken = async {
                recorded.await.map_err(|error| (Failure::from(error), false))?;
                provider.wake(&wake.runner, wake.again).await.map_err(|error| {
                    let gone = error.kind == ErrorKind::Gone;
                    (Failure::from(error), gone)
                })
            };
            match woken.await {
                Ok(()) if wake.again => {}
                Ok(()) => {
                    let took = begun.elapsed();
                    metrics::wake(&wake.pool, "woken");
                    metrics::launched(&wake.pool, took.as_secs_f64());
                    info!(took_ms = took.as_millis() as u64, "runner woken");
                }
                Err((Failure { cause, message, .. }, gone)) => {
                    metrics::wake(&wake.pool, "failed");
                    traces::failed(&message);
                    warn!(cause = cause.as_str(), error = message, "a parked runner was not woken");
                    let runner = wake.runner.clone();
                    self.send(Event::WakeFailed { runner, cause, message, gone }).await;
                }
            }
        }
        .instrument(span)
        .await;
    }
}
