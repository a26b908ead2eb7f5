//! The way of news about a job into the store and to the planner, whoever tells.

pub(crate) mod grpc;
pub(crate) mod listen;
mod webhook_secrets;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    control::driver::Command,
    store::{Delivery, Error, Store, StoreOutcome},
};
use edgerunner_scheduler::{
    model::{Job, JobState},
    plan::Event,
};

/// What each came to. Returns after the commit.
pub(crate) async fn take(
    store: &Store,
    driver: &mpsc::Sender<Command>,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<StoreOutcome>, Error> {
    let stored = store.deliver(Arc::clone(&deliveries)).await?;
    for (Delivery { state, job, runner_name, .. }, stored) in deliveries.iter().zip(&stored) {
        if *stored == StoreOutcome::Advanced {
            let event = event(*state, job.clone(), runner_name.clone());
            // The driver is gone only at shutdown; then the next start reads the store.
            let _ = driver.send(Command::Event(event)).await;
        }
    }
    Ok(stored)
}

/// What the planner is to be told of a job in this state.
pub(crate) fn event(state: JobState, job: Job, runner: String) -> Event {
    match state {
        JobState::Queued => Event::JobQueued(job),
        JobState::InProgress => Event::JobStarted { job, runner },
        JobState::Completed => Event::JobCompleted { job, runner },
    }
}
