//! Removes a runner: its registration at GitHub, and everything at the provider.

use std::time::Duration;

use tracing::{Instrument as _, debug, error_span, info, warn};

use super::Executor;
use crate::github;
use edgerunner_scheduler::plan::{Event, Removal};

/// For a runner whose pool is no longer configured.
const STOP_GRACE_WITHOUT_POOL: Duration = Duration::from_secs(10);

#[derive(PartialEq, Eq)]
enum Outcome {
    Removed,
    /// GitHub refused: nothing was removed.
    Busy,
}

impl Executor {
    pub(crate) async fn remove(self, removal: Removal) {
        let span = error_span!("remove", runner = removal.runner);
        async {
            let event = match self.try_remove(&removal).await {
                Ok(Outcome::Removed) => Event::Removed { runner: removal.runner },
                Ok(Outcome::Busy) => {
                    info!("not removed: GitHub reports that the runner is busy");
                    Event::RemovalRefused { runner: removal.runner }
                }
                Err(message) => {
                    warn!(error = message, "not removed yet");
                    Event::RemovalFailed { runner: removal.runner }
                }
            };
            self.send(event).await;
        }
        .instrument(span)
        .await;
    }

    /// The registration first: GitHub refuses to remove that of a busy runner, and then its
    /// container must stay too.
    async fn try_remove(&self, removal: &Removal) -> Result<Outcome, String> {
        if removal.force {
            self.remove_instance(removal).await?;
        }
        if removal.deregister && self.deregister(removal).await? == github::RunnerRemoval::Busy {
            return Ok(Outcome::Busy);
        }
        if !removal.force {
            self.remove_instance(removal).await?;
        }
        Ok(Outcome::Removed)
    }

    async fn deregister(&self, removal: &Removal) -> Result<github::RunnerRemoval, String> {
        let client = self.shared.clients.for_target(&removal.target);
        let github = &client.map_err(|error| error.to_string())?.github;
        let target = &removal.target.target;
        let id = match removal.registration_id {
            Some(id) => Some(id),
            // The response with the id was lost, or the runner registered itself.
            None => github
                .runner_named(target, &removal.runner)
                .await
                .map_err(|error| error.to_string())?
                .map(|registered| registered.id),
        };
        let Some(id) = id else { return Ok(github::RunnerRemoval::NotFound) };
        let removed = github.remove_runner(target, id).await;
        removed.map_err(|error| error.to_string()).inspect(|removed| {
            debug!(result = removed.as_str(), registration_id = id, "registration removed");
        })
    }

    async fn remove_instance(&self, removal: &Removal) -> Result<(), String> {
        let runner = &removal.runner;
        if removal.keep_logs
            && let Ok(log) = self.runner_log(runner).await
            && let Err(error) = self.shared.store.save_runner_log(runner.clone(), log).await
        {
            warn!(%error, "the last log lines of a failed runner are lost");
        }
        let pool = self.pool(&removal.pool);
        let grace = pool.map_or(STOP_GRACE_WITHOUT_POOL, |pool| pool.stop_grace);
        let removed = self.shared.provider.remove(runner, grace).await;
        removed.map_err(|error| error.to_string())?;
        debug!("container removed");
        Ok(())
    }
}
