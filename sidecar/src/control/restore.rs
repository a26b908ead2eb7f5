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
        let now = clock::now();
        // Limits of jobs that run go on from where they were.
        let at = record.started_at.map_or(now, |started| now.at_wall(started));
        let event = job_event(record.state, record.job, record.runner_name);
        let actions = plan(&mut state, event, at);
        debug_assert!(actions.is_empty(), "nothing is launched before the runners are adopted");
    }
    Ok((state, runners))
}

/// A restart does not undo `edgerunner drain`.
fn drain(state: &mut State, name: Option<&str>) {
    let pools = &state.settings().pools;
    let pool = name.map(|name| pools.iter().position(|pool| pool.name == name));
    match pool {
        Some(None) => {
            info!(pool = name, "still drained, but not configured now");
            name.iter().for_each(|name| state.drain_pool(name));
        }
        None | Some(Some(_)) => {
            info!(pool = name, "still drained: nothing is launched until it is resumed");
            let event = Event::Drain { pool: pool.flatten(), draining: true };
            plan(state, event, clock::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        store::{Delivery, JobDetails},
    };
    use edgerunner_scheduler::{
        model::{Host, Job, JobKey, JobState, Visibility},
        plan::{Action, Adopted, AdoptedContainer, Parameters},
    };

    const HOUR_MS: u64 = 3_600_000;

    fn settings(pools: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        std::fs::write(&file, pools).unwrap();
        let token = |name: &str| (name == "GITHUB_TOKEN").then(|| "token".to_owned());
        Config::load(Some(&file), &token).unwrap().planner_settings()
    }

    #[tokio::test]
    async fn a_restart_keeps_drains_and_the_limits_of_jobs() {
        let directory = tempfile::tempdir().unwrap();
        let (store, _closed) =
            Store::open(&directory.path().join("edgerunner.db"), Host::default(), |_| {}).unwrap();
        let job = Job {
            key: JobKey::new(1, 1),
            repository: "acme/app".into(),
            organization: "acme".into(),
            enterprise: String::new(),
            visibility: Visibility::Private,
            run_id: 0,
            from_fork: None,
            labels: vec!["self-hosted".into()],
            queued_at: 1,
            delivery: "a".into(),
        };
        let delivery = Delivery {
            hook_id: 0,
            hook_target_type: String::new(),
            hook_target_id: 0,
            received_at: clock::now().wall - 2 * HOUR_MS,
            hook: String::new(),
            state: JobState::InProgress,
            job,
            details: JobDetails::default(),
            conclusion: String::new(),
            runner_name: "edge-small-1".into(),
        };
        store.deliver([delivery].into()).await.unwrap();
        store.save_draining(Some("large".into()), true).await.unwrap();

        let pool = |name: &str| format!("[[pools]]\nname = \"{name}\"\njob_timeout_seconds = 3600");
        let (mut state, _) = restore(&store, settings(&pool("small"))).await.unwrap();
        let adopted = Adopted {
            runner: "edge-small-1".into(),
            pool: "small".into(),
            provider: 0,
            target: "repo:acme/app".parse().unwrap(),
            registration_id: Some(7),
            job: Some(JobKey::new(1, 1)),
            created_at: 1,
            container: AdoptedContainer::Running,
            parameters: Parameters::default(),
            devices: Vec::new(),
            parked: None,
        };
        plan(&mut state, Event::Adopted(adopted), clock::now());
        let actions = plan(&mut state, Event::Tick, clock::now());
        let removed = |action: &Action| matches!(action, Action::Remove(it) if it.force);
        assert!(actions.iter().any(removed), "{actions:?}");

        let both = format!("{}\n{}", pool("small"), pool("large"));
        plan(&mut state, Event::Pools(settings(&both).pools), clock::now());
        assert!(!state.pool_draining(0) && state.pool_draining(1));
    }
}
