//! Restores the planner's state from the store at startup.

use anyhow::Result;
use tracing::info;

use crate::{
    control::{clock, command::job_event},
    store::{RunnerRecord, Store},
};
use edgerunner_scheduler::plan::{Event, Settings, State, plan};

/// Returns the state with its open jobs and drained pools, and the runners that were present
/// when the last process ended. Nothing is launched before those are adopted.
pub(crate) async fn restore(
    store: &Store,
    settings: Settings,
) -> Result<(State, Vec<RunnerRecord>)> {
    let open_jobs = store.open_jobs().await?;
    let runners = store.present_runners().await?;
    let mut state = State::new(settings, clock::now().wall);
    let (jobs, store_location) = (open_jobs.len(), store.location());
    info!(jobs, runners = runners.len(), store = store_location, "store opened");
    for pool in store.draining().await? {
        drain(&mut state, pool.as_deref());
    }
    for record in open_jobs {
        let event = job_event(record.state, record.job, record.runner_name);
        let actions = plan(&mut state, event, clock::now());
        debug_assert!(actions.is_empty(), "nothing is launched before the runners are adopted");
    }
    Ok((state, runners))
}

/// A restart does not undo `edgerunner drain`.
fn drain(state: &mut State, name: Option<&str>) {
    let pools = &state.settings().pools;
    let pool = name.map(|name| pools.iter().position(|pool| pool.name == name));
    match pool {
        Some(None) => info!(pool = name, "the drained pool is no longer configured"),
        None | Some(Some(_)) => {
            info!(pool = name, "still drained: nothing is launched until it is resumed");
            let event = Event::Drain { pool: pool.flatten(), draining: true };
            plan(state, event, clock::now());
        }
    }
}
