//! The providers that runners run at, and the machine of each runner.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Semaphore;

use super::outage::Outage;
use crate::provider::Provider;

/// A provider, and what the executor knows about it. Its index is that of the planner.
pub(super) struct Place {
    /// For messages and records.
    pub(super) name: String,
    pub(super) provider: Provider,
    /// Permits for launches at once.
    pub(super) launches: Semaphore,
    pub(super) outage: Outage,
}

/// The name of each runner's machine, where the provider has several and has chosen one.
#[derive(Default)]
pub(super) struct NodeNames(Mutex<HashMap<String, String>>);

impl Place {
    pub(super) fn new(name: String, provider: Provider) -> Self {
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
