//! The providers that runners run at, and the machine of each runner.

use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Semaphore;

use super::outage::Outage;
use crate::provider::{self, Node, Provider};

/// Log lines to keep of a failed runner, and to show of a running one.
const LOG_LINES: usize = 100;

/// All providers. Cheap to clone; clones share what is known about them.
#[derive(Clone)]
pub(crate) struct Places(Arc<[Place]>);

/// A provider, and what the executor knows about it. Its index is that of the planner.
pub(crate) struct Place {
    /// For messages and records.
    pub(super) name: String,
    pub(crate) provider: Provider,
    /// Permits for launches at once.
    pub(super) launches: Semaphore,
    pub(super) outage: Outage,
}

/// The name of each runner's machine, where the provider has several and has chosen one.
#[derive(Default)]
pub(super) struct NodeNames(Mutex<HashMap<String, String>>);

impl Deref for Places {
    type Target = [Place];

    fn deref(&self) -> &[Place] {
        &self.0
    }
}

impl Places {
    /// The providers with their names, in the planner's order.
    pub(crate) fn new(providers: Vec<(String, Provider)>) -> Self {
        Self(providers.into_iter().map(|(name, it)| Place::new(name, it)).collect())
    }

    /// The provider that a record names. An earlier version had but one, the first.
    pub(crate) fn named(&self, name: &str) -> usize {
        self.iter().position(|place| place.name == name).unwrap_or_default()
    }

    /// The end of a runner's log, without its credentials and the values of its `env`.
    /// `place`: index of its provider.
    pub(crate) async fn runner_log(
        &self,
        place: usize,
        runner: &str,
    ) -> Result<String, provider::Error> {
        self[place].provider.log(runner, LOG_LINES).await
    }

    /// The machines of all providers that have several, by name, and the errors of those that do
    /// not list them.
    pub(crate) async fn nodes(&self) -> (Vec<Node>, Vec<provider::Error>) {
        let (mut nodes, mut failed) = (Vec::new(), Vec::new());
        for place in &**self {
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
        match self.iter().find(|it| it.provider.has_nodes()) {
            Some(place) => place.provider.drain_node(node, drain).await,
            None => Err(provider::Error {
                kind: provider::ErrorKind::Gone,
                message: "no pool runs on nodes: only those of Docker Swarm can be drained".into(),
            }),
        }
    }
}

impl Place {
    fn new(name: String, provider: Provider) -> Self {
        let launches = Semaphore::new(provider.launches_max());
        Self { name, provider, launches, outage: Outage::default() }
    }
}

impl NodeNames {
    pub(super) fn get(&self, runner: &str) -> Option<String> {
        self.locked().get(runner).cloned()
    }

    /// A machine that is known stays known.
    pub(super) fn set(&self, runner: &str, node: Option<String>) {
        if let Some(node) = node {
            self.locked().insert(runner.to_owned(), node);
        }
    }

    pub(super) fn forget(&self, runner: &str) {
        self.locked().remove(runner);
    }

    pub(super) fn retain(&self, runners: &HashSet<String>) {
        self.locked().retain(|runner, _| runners.contains(runner));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
