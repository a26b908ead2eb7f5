//! Carries out the planner's actions. Each action ends in an event. No other module calls both
//! GitHub and the provider.

mod launch;
mod look_up;
mod outage;
mod recover;
mod remove;
mod sweep;
#[cfg(test)]
mod tests;
mod turns;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::Semaphore;

use self::outage::Outage;
use self::turns::Turns;
use crate::{
    config::{PoolConfig, Registry},
    control::{
        command::EventSender,
        snapshot::{BudgetView, SpendingView},
    },
    github::clients::Clients,
    provider::{self, Provider},
    store::Store,
    telemetry::{recurring::Recurring, traces::DeliveryTraces},
};
use edgerunner_scheduler::plan::Event;

/// Launches at the provider at once: more would only slow each other down.
const LAUNCHES_MAX: usize = 16;
/// Log lines to keep of a failed runner, and to show of a running one.
const LOG_LINES: usize = 100;
/// Wait before the provider is called again after an error.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Executor {
    shared: Arc<Shared>,
    events: EventSender,
}

struct Shared {
    instance: String,
    pools: RwLock<Arc<[Arc<PoolConfig>]>>,
    registries: Vec<Registry>,
    clients: Arc<Clients>,
    provider: Provider,
    store: Store,
    traces: Arc<DeliveryTraces>,
    launches: Semaphore,
    outage: Outage,
    /// What cannot be removed.
    stuck: Recurring,
    /// Containers whose labels cannot be read.
    ignored: Recurring,
    /// Failures name the pool.
    registrations: Turns<(String, launch::Failure)>,
    removals: Turns<launch::Failure>,
}

/// The part of the configuration that launches need.
pub(crate) struct LaunchConfig {
    pub instance: String,
    pub pools: Vec<PoolConfig>,
    pub registries: Vec<Registry>,
}

fn shared_pools(pools: Vec<PoolConfig>) -> Arc<[Arc<PoolConfig>]> {
    pools.into_iter().map(Arc::new).collect()
}

impl Executor {
    pub(crate) fn new(
        config: LaunchConfig,
        clients: Arc<Clients>,
        provider: Provider,
        store: Store,
        traces: Arc<DeliveryTraces>,
        events: EventSender,
    ) -> Self {
        let LaunchConfig { instance, pools, registries } = config;
        let launches = Semaphore::new(LAUNCHES_MAX);
        let pools = RwLock::new(shared_pools(pools));
        let (registrations, removals) = (Turns::new(), Turns::new());
        let shared = Shared {
            instance,
            pools,
            registries,
            clients,
            provider,
            store,
            traces,
            launches,
            outage: Outage::default(),
            stuck: Recurring::default(),
            ignored: Recurring::default(),
            registrations,
            removals,
        };
        Self { shared: Arc::new(shared), events }
    }

    /// Launches and removals in progress go on with the pools they began with.
    pub(crate) fn set_pools(&self, pools: Vec<PoolConfig>) {
        let mut current = self.shared.pools.write().unwrap_or_else(PoisonError::into_inner);
        *current = shared_pools(pools);
    }

    pub(crate) fn pools(&self) -> Arc<[Arc<PoolConfig>]> {
        Arc::clone(&self.shared.pools.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn pool(&self, name: &str) -> Option<Arc<PoolConfig>> {
        self.pools().iter().find(|pool| pool.name == name).cloned()
    }

    pub(crate) fn budgets(&self) -> Vec<BudgetView> {
        self.shared.clients.budgets().into_iter().map(BudgetView::from).collect()
    }

    /// What each credential's requests of the last hour were for.
    pub(crate) fn spending(&self) -> Vec<SpendingView> {
        let credentials = self.shared.clients.spent().into_iter();
        let views = credentials.flat_map(|(credential, spent)| {
            spent.into_iter().map(move |spent| SpendingView::new(&credential, spent))
        });
        views.collect()
    }

    /// The end of a runner's log, without its credentials and the values of its `env`.
    pub(crate) async fn runner_log(&self, runner: &str) -> Result<String, provider::Error> {
        self.shared.provider.log(runner, LOG_LINES).await
    }

    async fn send(&self, event: Event) {
        self.events.send(event).await;
    }
}
