//! The providers that runners run at, and where each runner is.

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

/// Where a runner is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Location {
    /// Index of its provider.
    pub place: usize,
    /// The name of its machine, if the provider has several and has chosen one.
    pub node: Option<String>,
}

/// By runner.
#[derive(Default)]
pub(super) struct Locations(Mutex<HashMap<String, Location>>);

impl Place {
    pub(super) fn new(name: String, provider: Provider) -> Self {
        let launches = Semaphore::new(provider.launches_max());
        Self { name, provider, launches, outage: Outage::default() }
    }
}

impl Locations {
    pub(super) fn get(&self, runner: &str) -> Option<Location> {
        self.locked().get(runner).cloned()
    }

    /// A machine that is known stays known.
    pub(super) fn set(&self, runner: &str, place: usize, node: Option<String>) {
        let mut locations = self.locked();
        let known = locations.entry(runner.to_owned()).or_default();
        known.place = place;
        known.node = node.or_else(|| known.node.take());
    }

    pub(super) fn forget(&self, runner: &str) {
        self.locked().remove(runner);
    }

    pub(super) fn retain(&self, runners: &HashSet<String>) {
        self.locked().retain(|runner, _| runners.contains(runner));
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<String, Location>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
