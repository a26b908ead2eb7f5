//! The ConfigMap that owns every pod of an installation, so that its deletion ends all of them.

use std::{collections::BTreeMap, sync::Mutex, sync::PoisonError, time::Duration};

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::api::PostParams;
use tokio::time::Instant;

use super::cluster::Cluster;
use crate::provider::{error::Error, labels};

/// How long it is taken for granted that it is still there: Kubernetes deletes whatever names an
/// owner that is gone.
const KNOWN_FOR: Duration = Duration::from_secs(60);

pub(super) struct Owner {
    instance: String,
    known: Mutex<Option<(Instant, OwnerReference)>>,
}

impl Owner {
    pub(super) fn new(instance: &str) -> Self {
        Self { instance: instance.to_owned(), known: Mutex::default() }
    }

    pub(super) fn name(&self) -> String {
        format!("{}-runners", self.instance)
    }

    /// Creates it if it is not there.
    pub(super) async fn reference(&self, cluster: &Cluster) -> Result<OwnerReference, Error> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, reference)) = known.filter(|(at, _)| at.elapsed() < KNOWN_FOR) {
            return Ok(reference);
        }
        let found = self.get_or_create(cluster).await?;
        let reference = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: self.name(),
            uid: found.metadata.uid.unwrap_or_default(),
            // Clusters may require a further permission for `true`.
            block_owner_deletion: None,
            controller: None,
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), reference.clone()));
        Ok(reference)
    }

    async fn get_or_create(&self, cluster: &Cluster) -> Result<ConfigMap, Error> {
        let name = &self.name();
        let call = format!("read ConfigMap {name}");
        let found = cluster
            .call(&call, |connected| async move { connected.config_maps().get_opt(name).await });
        if let Some(found) = found.await? {
            return Ok(found);
        }
        let call = format!("create ConfigMap {name}");
        let body = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some([(labels::INSTANCE.to_owned(), self.instance.clone())].into()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(
                "README".to_owned(),
                "Owns the pods of edgerunner's runners: deleting it ends all of them.".to_owned(),
            )])),
            ..ConfigMap::default()
        };
        let created = cluster.call(&call, |connected| {
            let body = &body;
            async move {
                let api = connected.config_maps();
                match api.create(&PostParams::default(), body).await {
                    // By another sidecar, or an earlier try.
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        api.get(name).await
                    }
                    created => created,
                }
            }
        });
        created.await
    }
}
