//! Removes a runner: its registration at GitHub, and everything at the provider.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing::{Instrument as _, debug, error_span, info, warn};

use super::{Executor, launch::Failure};
use crate::{
    github::{self, GitHub, Purpose, RunnerRemoval},
    provider,
};
use edgerunner_scheduler::{
    model::{Cause, ServerTarget},
    plan::{Event, Removal, RemovalFailure},
};

/// For a runner whose pool is no longer configured.
const STOP_GRACE_WITHOUT_POOL: Duration = Duration::from_secs(10);
/// For a whole removal, beyond the grace period of its container.
const REMOVE_LIMIT: Duration = Duration::from_secs(600);

/// What became of a removal.
#[derive(Default)]
struct Outcome {
    deregistered: bool,
    container_removed: bool,
    /// GitHub refused because the runner is busy.
    busy: bool,
    /// GitHub did not remove the registration for another reason.
    refused: Option<Failure>,
    container: Option<provider::Error>,
}

impl Executor {
    pub(crate) async fn remove(self, removal: Removal) {
        let span = error_span!("remove", runner = removal.runner);
        async {
            let begun = Instant::now();
            let limit = self.stop_grace(&removal.pool) + REMOVE_LIMIT;
            let event = match timeout(limit, self.try_remove(&removal, begun)).await {
                Ok(outcome) => outcome.event(&removal),
                Err(_) => {
                    let message = format!("the removal took longer than {} s", limit.as_secs());
                    failed(
                        &removal,
                        RemovalFailure {
                            deregistered: false,
                            container_removed: false,
                            cause: Cause::DockerUnavailable,
                            message,
                            retry_after_ms: 0,
                        },
                    )
                }
            };
            self.send(event).await;
        }
        .instrument(span)
        .await;
    }

    /// The registration first: GitHub refuses to remove that of a busy runner, and then its
    /// container must stay too. Where nothing runs any more, neither waits for the other.
    async fn try_remove(&self, removal: &Removal, begun: Instant) -> Outcome {
        let mut outcome = Outcome::default();
        if removal.container && removal.container_first {
            self.remove_container(removal, &mut outcome).await;
        }
        if removal.deregister {
            match self.deregister(removal, begun).await {
                Ok(RunnerRemoval::Busy) => outcome.busy = true,
                Ok(RunnerRemoval::Removed | RunnerRemoval::NotFound) => outcome.deregistered = true,
                Err(failure) => outcome.refused = Some(failure),
            }
        }
        let kept = outcome.busy || outcome.refused.is_some();
        if removal.container && !removal.container_first && !kept {
            self.remove_container(removal, &mut outcome).await;
        }
        outcome
    }

    async fn deregister(
        &self,
        removal: &Removal,
        begun: Instant,
    ) -> Result<RunnerRemoval, Failure> {
        let turn = self.shared.removals.enter(&removal.target).await;
        if let Some(failure) = turn.failure(begun) {
            return Err(failure);
        }
        let removed = self.deregister_in_turn(removal).await;
        match &removed {
            Ok(_) => turn.succeeded(),
            Err(failure) => turn.failed(failure.clone()),
        }
        removed
    }

    async fn deregister_in_turn(&self, removal: &Removal) -> Result<RunnerRemoval, Failure> {
        let target = &removal.target.target;
        let remove = |github: GitHub| async move {
            let id = match removal.registration_id {
                Some(id) => Some(id),
                // The response with the id was lost, or the runner registered itself.
                None => github
                    .runner_named(target, &removal.runner)
                    .await?
                    .map(|registered| registered.id),
            };
            let Some(id) = id else { return Ok(RunnerRemoval::NotFound) };
            let removed = github.remove_runner(target, id).await;
            removed.inspect(|removed| {
                debug!(result = removed.as_str(), registration_id = id, "registration removed");
            })
        };
        Ok(self.call_to_remove(&removal.target, remove).await?)
    }

    /// GitHub answers that a runner is not there if it hides the target from the credential, so
    /// another one has to confirm it.
    async fn call_to_remove<F>(
        &self,
        target: &ServerTarget,
        call: impl Fn(GitHub) -> F,
    ) -> Result<RunnerRemoval, github::Error>
    where
        F: Future<Output = Result<RunnerRemoval, github::Error>>,
    {
        let is_final = |removed: &RunnerRemoval| *removed != RunnerRemoval::NotFound;
        self.shared.clients.call_until(target, Purpose::Removals, is_final, call).await
    }

    async fn remove_container(&self, removal: &Removal, outcome: &mut Outcome) {
        let runner = &removal.runner;
        if removal.keep_logs {
            self.keep_log(removal).await;
        }
        let grace = self.stop_grace(&removal.pool);
        let place = &self.shared.places[removal.provider];
        match place.provider.remove(runner, grace).await {
            Ok(()) => {
                debug!("container removed");
                outcome.container_removed = true;
            }
            Err(error) => outcome.container = Some(error),
        }
    }

    fn stop_grace(&self, pool: &str) -> Duration {
        self.pool(pool).map_or(STOP_GRACE_WITHOUT_POOL, |pool| pool.stop_grace)
    }

    /// Removes the registration of a runner that ended without.
    pub(crate) async fn deregister_left(self, runner: String, target: ServerTarget, id: u64) {
        let remove = |github: GitHub| {
            let target = &target.target;
            async move { github.remove_runner(target, id).await }
        };
        match self.call_to_remove(&target, remove).await {
            Ok(RunnerRemoval::Busy) => {}
            Ok(RunnerRemoval::Removed | RunnerRemoval::NotFound) => {
                info!(runner, %target, "the registration that was left is removed");
                self.send(Event::Deregistered { runner, target }).await;
            }
            Err(error) => self.look_up_failed(target, error.into()).await,
        }
    }

    /// Keeps the end of a failed runner's log or, if it cannot be read, why.
    async fn keep_log(&self, removal: &Removal) {
        let runner = &removal.runner;
        let log = match self.shared.places.runner_log(removal.provider, runner).await {
            Ok(log) => log,
            // The launch failed before there was a container.
            Err(error) if error.kind == provider::ErrorKind::Gone => return,
            Err(error) => {
                warn!(%error, "the log of a failed runner cannot be read");
                let known = self.shared.store.runner(runner.clone()).await;
                if known.is_ok_and(|known| known.is_some_and(|known| known.log.is_some())) {
                    // An earlier try to remove it has read the log.
                    return;
                }
                format!("[edgerunner: the log could not be read: {error}]\n")
            }
        };
        if let Err(error) = self.shared.store.save_runner_log(runner.clone(), log).await {
            warn!(%error, "the last log lines of a failed runner are lost");
        }
    }
}

impl Outcome {
    fn event(self, removal: &Removal) -> Event {
        let runner = removal.runner.clone();
        let Self { deregistered, container_removed, busy, refused, container } = self;
        let (cause, message, retry_after_ms) = match (refused, container) {
            (Some(refused), container) => {
                if let Some(error) = container {
                    warn!(%error, "the container is not removed yet");
                }
                let retry_after_ms = refused.retry_after_ms();
                (refused.cause, refused.message, retry_after_ms)
            }
            (None, Some(error)) => (error.kind.into(), error.message, 0),
            (None, None) if busy => {
                info!("not removed: GitHub reports that the runner is busy");
                return Event::RemovalRefused { runner };
            }
            (None, None) => return Event::Removed { runner },
        };
        let failure =
            RemovalFailure { deregistered, container_removed, cause, message, retry_after_ms };
        failed(removal, failure)
    }
}

fn failed(removal: &Removal, failure: RemovalFailure) -> Event {
    let (cause, message) = (failure.cause.as_str(), &failure.message);
    // Repeated attempts fail for the same reason, usually.
    match removal.attempts {
        0 => warn!(cause, error = message, "not removed yet"),
        attempts => debug!(cause, error = message, attempts, "not removed yet"),
    }
    Event::RemovalFailed { runner: removal.runner.clone(), failure }
}
