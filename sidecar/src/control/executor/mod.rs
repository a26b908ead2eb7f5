//! Carries out the planner's actions. Each action ends in an event. No other module calls both
//! GitHub and the provider.

mod denials;
mod launch;
mod look_up;
mod machine;
mod outage;
mod places;
mod protect;
mod recover;
mod refresh;
mod remove;
mod rerun;
mod space;
mod sweep;
#[cfg(test)]
mod tests;
mod turns;
pub(crate) mod usage;
mod versions;
mod wake;

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use self::{
    denials::Denials, places::NodeNames, refresh::Refreshes, turns::Turns, usage::Usages,
    versions::Versions,
};
use crate::{
    config::{PoolConfig, Registry, Reserves},
    control::{
        command::EventSender,
        snapshot::{BudgetView, RefusedWebhookView, SpendingView},
    },
    github::clients::Clients,
    store::Store,
    telemetry::{recurring::Recurring, traces::DeliveryTraces},
};
use edgerunner_scheduler::{
    model::ServerTarget,
    plan::{Event, Parameters, Quota},
};

pub(crate) use self::places::Places;

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
    /// Indexed as the planner's providers are.
    places: Places,
    node_names: NodeNames,
    store: Store,
    traces: Arc<DeliveryTraces>,
    /// What cannot be removed.
    stuck: Recurring,
    /// Containers whose labels cannot be read.
    ignored: Recurring,
    /// By target and credential. Failures name the pool, and what labels asked it for.
    registrations: Turns<(ServerTarget, usize), ((String, Parameters), launch::Failure)>,
    removals: Turns<ServerTarget, launch::Failure>,
    refreshes: Refreshes,
    versions: Versions,
    denials: Denials,
    usages: Usages,
    reserves: Reserves,
    /// Providers whose machines are not known.
    unknown_machines: Recurring,
    /// Providers whose disks are nearly full, and what could not be removed there.
    full_disks: Recurring,
}

/// The part of the configuration that launches need.
pub(crate) struct LaunchConfig {
    pub instance: String,
    pub pools: Vec<PoolConfig>,
    pub registries: Vec<Registry>,
    pub reserves: Reserves,
}

fn shared_pools(pools: Vec<PoolConfig>) -> Arc<[Arc<PoolConfig>]> {
    pools.into_iter().map(Arc::new).collect()
}

impl Executor {
    pub(crate) fn new(
        config: LaunchConfig,
        clients: Arc<Clients>,
        places: Places,
        store: Store,
        traces: Arc<DeliveryTraces>,
        events: EventSender,
    ) -> Self {
        let LaunchConfig { instance, pools, registries, reserves } = config;
        denials::from_zero(&pools);
        let pools = RwLock::new(shared_pools(pools));
        let (registrations, removals) = (Turns::new(), Turns::new());
        let shared = Shared {
            instance,
            pools,
            registries,
            clients,
            places,
            node_names: NodeNames::default(),
            store,
            traces,
            stuck: Recurring::default(),
            ignored: Recurring::default(),
            registrations,
            removals,
            refreshes: Refreshes::default(),
            versions: Versions::default(),
            denials: Denials::default(),
            usages: Usages::default(),
            reserves,
            unknown_machines: Recurring::default(),
            full_disks: Recurring::default(),
        };
        Self { shared: Arc::new(shared), events }
    }

    /// Launches and removals in progress go on with the pools they began with.
    pub(crate) fn set_pools(&self, pools: Vec<PoolConfig>) {
        self.shared.versions.retain(&pools);
        denials::from_zero(&pools);
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

    pub(crate) fn refused_webhooks(&self) -> Vec<RefusedWebhookView> {
        self.shared.clients.refused_webhooks().into_iter().map(RefusedWebhookView::from).collect()
    }

    /// What the credentials have left by which launches are spread.
    pub(crate) fn quotas(&self) -> Vec<Quota> {
        self.shared.clients.quotas()
    }

    /// What each credential's requests of the last hour were for.
    pub(crate) fn spending(&self) -> Vec<SpendingView> {
        let credentials = self.shared.clients.spent().into_iter();
        let views = credentials.flat_map(|(credential, spent)| {
            spent.into_iter().map(move |spent| SpendingView::new(&credential, spent))
        });
        views.collect()
    }

    /// The machine of a runner, if its provider has several and has chosen one.
    pub(crate) fn node_of(&self, runner: &str) -> Option<String> {
        self.shared.node_names.get(runner)
    }

    /// The runner is gone.
    pub(crate) fn forget(&self, runner: &str) {
        self.shared.node_names.forget(runner);
        self.shared.usages.forget(runner);
    }

    pub(crate) fn provider_name(&self, place: usize) -> &str {
        &self.shared.places[place].name
    }

    async fn send(&self, event: Event) {
        self.events.send(event).await;
    }
}
