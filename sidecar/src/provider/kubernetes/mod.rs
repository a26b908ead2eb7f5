//! Runners as pods of a Kubernetes cluster (1.29 or later for `docker = "dind"`).
//!
//! Each runner is one bare pod: a Job would start its runner again, and with it a configuration
//! that was used. Its Secret is owned by the pod, and all pods by one ConfigMap. What runs is its
//! own record: the annotations of the pods.

pub(crate) mod access;
mod cluster;
mod error;
#[cfg(test)]
mod fake_api;
mod launch;
mod log;
mod owner;
mod pod;
mod pods;
mod protect;
mod remove;
mod secret;
mod seen;
mod template;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::Stream;
use kube::api::ListParams;
use tokio_util::task::AbortOnDropHandle;

use self::{cluster::Cluster, owner::Owner, pods::Pods};
use super::{
    error::Error,
    instance::{Exit, Instance},
};
use crate::config::KubernetesConfig;

/// Pods in one response of a list.
const PAGE: u32 = 500;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Kubernetes {
    shared: Arc<Shared>,
}

struct Shared {
    cluster: Arc<Cluster>,
    owner: Owner,
    pods: Arc<Pods>,
    _watch: AbortOnDropHandle<()>,
}

impl Kubernetes {
    /// Starts to watch, and changes nothing. The cluster may be away.
    pub(crate) fn connect(config: &KubernetesConfig, instance: &str) -> Self {
        Self::new(Cluster::new(config), instance)
    }

    fn new(cluster: Cluster, instance: &str) -> Self {
        let (cluster, pods) = (Arc::new(cluster), Arc::new(Pods::new(instance)));
        let watch = tokio::spawn(Arc::clone(&pods).keep_up(Arc::clone(&cluster)));
        let _watch = AbortOnDropHandle::new(watch);
        let owner = Owner::new(instance);
        Self { shared: Arc::new(Shared { cluster, owner, pods, _watch }) }
    }

    pub(crate) async fn list(&self) -> Result<Vec<Instance>, Error> {
        let mut instances = Vec::new();
        let mut parameters = ListParams::default().labels(&self.shared.pods.selector()).limit(PAGE);
        loop {
            let page = self.shared.cluster.call("list pods", |connected| {
                let parameters = parameters.clone();
                async move { connected.pods().list(&parameters).await }
            });
            let page = page.await?;
            let seen = page.items.iter().filter_map(|pod| self.shared.pods.read(pod));
            instances.extend(seen.map(|seen| seen.to_instance()));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(instances),
            }
        }
    }

    pub(crate) fn exits(&self) -> impl Stream<Item = Result<Exit, Error>> + Send + use<> {
        self.shared.pods.exits()
    }
}
