//! Carries out the planner's actions. Each action ends in an event. No other module calls both
//! GitHub and the provider.

mod launch;
mod look_up;
mod outage;
mod places;
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

use self::{
    places::{NodeNames, Place},
    turns::Turns,
};
use crate::{
    config::{PoolConfig, Registry},
    control::{
        command::EventSender,
        snapshot::{BudgetView, SpendingView},
    },
    github::clients::Clients,
    provider::{self, Node, Provider},
    store::Store,
    telemetry::{recurring::Recurring, traces::DeliveryTraces},
};
use edgerunner_scheduler::{
    model::ServerTarget,
    plan::{Event, Quota},
};

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
    /// Indexed as the planner's providers are.
    places: Vec<Place>,
    node_names: NodeNames,
    store: Store,
    traces: Arc<DeliveryTraces>,
    /// What cannot be removed.
    stuck: Recurring,
    /// Containers whose labels cannot be read.
    ignored: Recurring,
    /// By target and credential. Failures name the pool.
    registrations: Turns<(ServerTarget, usize), (String, launch::Failure)>,
    removals: Turns<ServerTarget, launch::Failure>,
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
        providers: Vec<(String, Provider)>,
        store: Store,
        traces: Arc<DeliveryTraces>,
        events: EventSender,
    ) -> Self {
        let LaunchConfig { instance, pools, registries } = config;
        let pools = RwLock::new(shared_pools(pools));
        let (registrations, removals) = (Turns::new(), Turns::new());
        let shared = Shared {
            instance,
            pools,
            registries,
            clients,
            places: providers.into_iter().map(|(name, it)| Place::new(name, it)).collect(),
            node_names: NodeNames::default(),
            store,
            traces,
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

    /// The end of a runner's log, without its credentials and the values of its `env`.
    /// `place`: index of its provider.
    pub(crate) async fn runner_log(
        &self,
        place: usize,
        runner: &str,
    ) -> Result<String, provider::Error> {
        self.shared.places[place].provider.log(runner, LOG_LINES).await
    }

    /// The machine of a runner, if its provider has several and has chosen one.
    pub(crate) fn node_of(&self, runner: &str) -> Option<String> {
        self.shared.node_names.get(runner)
    }

    /// The runner is gone.
    pub(crate) fn forget(&self, runner: &str) {
        self.shared.node_names.forget(runner);
    }

    /// The provider that a record names. An earlier version had but one, the first.
    pub(crate) fn place_named(&self, name: &str) -> usize {
        self.shared.places.iter().position(|place| place.name == name).unwrap_or_default()
    }

    pub(crate) fn provider_name(&self, place: usize) -> &str {
        &self.shared.places[place].name
    }

    /// The machines of all providers that have several, by name, and the errors of those that do
    /// not list them.
    pub(crate) async fn nodes(&self) -> (Vec<Node>, Vec<provider::Error>) {
        let (mut nodes, mut failed) = (Vec::new(), Vec::new());
        for place in &self.shared.places {
            match place.provider.nodes().await {
                Some(Ok(found)) => nodes.extend(found),
                Some(Err(error)) => failed.push(error),
                None => {}
            }
        }
        (nodes, failed)
    }

    /// Drains a machine, or ends that.
    pub(crate) async fn drain_node(&self, node: &str, drain: bool) -> Result<(), provider::Error> {
        let mut places = self.shared.places.iter().filter(|it| it.provider.has_nodes());
        match places.next() {
            Some(place) => place.provider.drain_node(node, drain).await,
            None => Err(provider::Error {
                kind: provider::ErrorKind::Gone,
                message: "no pool runs on nodes: only those of Docker Swarm can be drained".into(),
            }),
        }
    }

    async fn send(&self, event: Event) {
        self.events.send(event).await;
    }
}
