//! Accepts job events: into the store first, then to the driver.

pub(crate) mod grpc;
pub(crate) mod server;
pub(crate) mod webhook_secrets;

use std::sync::Arc;

use crate::{
    control::command::{EventSender, job_event},
    store::{Delivery, Error, Store, StoreOutcome},
};

/// Returns the outcome of each delivery, in their order, after the commit. `events`: of the driver,
/// unless it reads deliveries from the store.
pub(crate) async fn accept(
    store: &Store,
    events: Option<&EventSender>,
    deliveries: Arc<[Delivery]>,
) -> Result<Vec<StoreOutcome>, Error> {
    let stored = store.deliver(Arc::clone(&deliveries)).await?;
    for (Delivery { state, job, runner_name, .. }, stored) in deliveries.iter().zip(&stored) {
        if *stored == StoreOutcome::Advanced
            && let Some(events) = events
        {
            events.send(job_event(*state, job.clone(), runner_name.clone())).await;
        }
    }
    Ok(stored)
}
