//! The way of news about a job into the store and to the planner, whoever tells.

pub(crate) mod grpc;
pub(crate) mod listen;
mod webhook_secrets;

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    control::driver::Command,
    store::{Delivery, Error, JobRecord, Store, Stored},
};
use edgerunner_scheduler::{model::JobState, plan::Event};

/// What each came to. Returns after the commit.
pub(crate) async fn take(
    store: &Store,
    driver: &mpsc::Sender<Command>,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<Stored>, Error> {
    let stored = store.deliver(Arc::clone(&deliveries)).await?;
    for (Delivery { job, .. }, stored) in deliveries.iter().zip(&stored) {
        if *stored == Stored::Advanced {
            // The driver is gone only at shutdown; then the next start reads the store.
            let _ = driver.send(Command::Event(event(job))).await;
        }
    }
    Ok(stored)
}

/// What the planner is to be told of a job in this state.
pub(crate) fn event(record: &JobRecord) -> Event {
    let (job, runner) = (record.job(), record.runner_name.clone());
    match record.state {
        JobState::Queued => Event::JobQueued(job),
        JobState::InProgress => Event::JobStarted { job, runner },
        JobState::Completed => Event::JobCompleted { job, runner },
    }
}
