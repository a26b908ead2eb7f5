//! Starts a runner, once.

use std::{pin::pin, time::Duration};

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, warn};

use super::{Launcher, Outcome, failure, refusal};
use crate::provider::{
    Error, Instance, InstanceState, Order, Report,
    docker::{Docker, Swept},
};

/// For a launch that SIGTERM interrupts: what comes to an end by itself leaves nothing open.
const LAUNCH_END_LIMIT: Duration = Duration::from_secs(5);
/// A runner that ended longer ago than this has no launcher any more that waits for it.
const ENDED_AGE: Duration = Duration::from_secs(600);
/// For a sweep after a failure.
const SWEEP_LIMIT: Duration = Duration::from_secs(30);

/// How a start ended.
enum Start {
    Started {
        container: String,
    },
    /// By a signal, before the runner started.
    Stopped,
    Failed {
        error: Error,
        outcome: Outcome,
    },
}

impl Launcher<'_> {
    pub(super) async fn run(&self, order: Order) -> Outcome {
        let (runner, grace) = (order.labels.runner.clone(), order.stop_grace);
        match self.docker.find(&runner).await {
            Ok(found) => {
                if let Some(found) = found.filter(has_started) {
                    let id = found.id;
                    let message =
                        format!("runner {runner} has already run on this node, as container {id}");
                    warn!(error = message, "the order is refused");
                    (self.report)(&Report::Refused { message });
                    return Outcome::CarriedOut;
                }
            }
            // Nothing is removed: an earlier launcher may have started the runner.
            Err(error) => return self.failed(error, Outcome::NothingStarted),
        }
        let start = Box::pin(self.start(&order)).await;
        // It may be large, and the runner may run for days.
        drop(order);
        match start {
            Start::Started { container } => {
                (self.report)(&Report::Started { container });
                let swept = sweep(self.docker.clone(), runner.clone());
                let _sweep = AbortOnDropHandle::new(tokio::spawn(swept));
                self.attend(&runner, grace).await;
                Outcome::CarriedOut
            }
            Start::Stopped => {
                self.remove(&runner, grace).await;
                (self.report)(&Report::ended(None, String::new()));
                Outcome::CarriedOut
            }
            Start::Failed { error, outcome } => {
                self.remove(&runner, grace).await;
                let outcome = self.failed(error, outcome);
                // What is left on the node may be the reason.
                tokio::select! {
                    () = self.stop.cancelled() => {}
                    _ = timeout(SWEEP_LIMIT, sweep(self.docker.clone(), runner)) => {}
                }
                outcome
            }
        }
    }

    async fn start(&self, order: &Order) -> Start {
        let prepared = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Start::Stopped,
            prepared = self.docker.prepare(&order.images) => prepared,
        };
        // A pull may take long, and so may the wait of a launch that nobody has ended.
        let prepared = prepared.and_then(|()| has_credentials(order, Timestamp::now()));
        // `None`: interrupted.
        let launched = match prepared {
            Ok(()) => {
                let mut launch = pin!(self.docker.launch(order));
                tokio::select! {
                    launched = &mut launch => Some(launched),
                    () = self.stop.cancelled() => timeout(LAUNCH_END_LIMIT, launch).await.ok(),
                }
            }
            Err(error) => Some(Err(error)),
        };
        let error = match launched {
            Some(Ok(launched)) => return Start::Started { container: launched.id },
            failed => failed.and_then(Result::err),
        };
        // A call may have failed and started the runner nevertheless.
        let found = self.find(&order.labels.runner).await;
        match (found, error) {
            (Ok(Some(found)), _) if has_started(&found) => Start::Started { container: found.id },
            (_, None) => Start::Stopped,
            (Ok(_), Some(error)) => Start::Failed { error, outcome: Outcome::NothingStarted },
            (Err(_), Some(error)) => Start::Failed { error, outcome: Outcome::CarriedOut },
        }
    }

    fn failed(&self, error: Error, outcome: Outcome) -> Outcome {
        error!(error = error.message, "the runner did not start");
        (self.report)(&failure(error));
        outcome
    }
}

/// A runner without them takes no job, and does not report it.
fn has_credentials(order: &Order, now: Timestamp) -> Result<(), Error> {
    let end = i64::try_from(order.credentials_end).ok();
    match end.and_then(|end| Timestamp::from_millisecond(end).ok()) {
        Some(end) if end <= now => Err(refusal(format!(
            "the runner's credentials for GitHub ended at {end:.0}, and by the clock of this node \
             it is {now:.0}: another runner takes its place; if this repeats, correct the node's \
             clock, or make its pulls of {} faster",
            order.image
        ))),
        _ => Ok(()),
    }
}

/// Ever, even if it has ended.
fn has_started(instance: &Instance) -> bool {
    instance.state != InstanceState::Created
}

/// Removes what earlier launchers left on this node.
async fn sweep(docker: Docker, runner: String) {
    let Swept { failed, .. } = docker.sweep_ended(&runner, Timestamp::now() - ENDED_AGE).await;
    for error in failed {
        warn!(error = error.message, "something that an earlier launcher left is not removed yet");
    }
}
