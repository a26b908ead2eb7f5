//! News about jobs: into the store first, then to the driver.

pub(crate) mod grpc;
pub(crate) mod listen;
pub(crate) mod server;
mod webhook_secrets;

use std::sync::Arc;

use crate::{
    control::command::Events,
    store::{Delivery, Error, JobRecord, Store, Stored},
};
use edgerunner_scheduler::{model::JobState, plan::Event};

/// Returns the outcome of each delivery, in their order, after the commit.
pub(crate) async fn accept(
    store: &Store,
    events: &Events,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<Stored>, Error> {
    let stored = store.deliver(Arc::clone(&deliveries)).await?;
    for (Delivery { job, .. }, stored) in deliveries.iter().zip(&stored) {
        if *stored == Stored::Advanced {
            events.send(event(job)).await;
        }
    }
    Ok(stored)
}

/// The planner's event for a job in this state.
pub(crate) fn event(record: &JobRecord) -> Event {
    let (job, runner) = (record.job(), record.runner_name.clone());
    match record.state {
        JobState::Queued => Event::JobQueued(job),
        JobState::InProgress => Event::JobStarted { job, runner },
        JobState::Completed => Event::JobCompleted { job, runner },
    }
}
