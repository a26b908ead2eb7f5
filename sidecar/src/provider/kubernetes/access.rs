//! What the sidecar needs to be permitted, and whether it is: for `edgerunner doctor`.

use k8s_openapi::{
    api::{
        authorization::v1::{
            ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
        },
        core::v1::Node,
    },
    apimachinery::pkg::{api::resource::Quantity, version::Info},
};
use kube::api::{Api, ListParams, PostParams};

use super::{cluster::Cluster, owner::Owner};
use crate::{config::KubernetesConfig, provider::error::Error};

/// Verb, resource, and what it is for.
pub(crate) const NEEDED: [(&str, &str, &str); 9] = [
    ("create", "pods", "to launch runners"),
    ("get", "pods", "to launch and remove runners"),
    ("list", "pods", "to find runners after a restart"),
    ("watch", "pods", "to see when runners start and end"),
    ("delete", "pods", "to remove runners"),
    ("patch", "pods", "to keep nodes of busy runners"),
    ("get", "pods/log", "to keep the logs of failed runners"),
    ("create", "secrets", "to give runners their credentials"),
    ("delete", "secrets", "to remove the credentials of runners"),
];
const NEEDED_FOR_LOGS: (&str, &str, &str) =
    ("get", "secrets", "to mask credentials in the logs of runners");
const NEEDED_OF_OWNER: (&str, &str, &str) = ("get", "configmaps", "to name the owner of all pods");

/// One thing that the sidecar needs.
pub(crate) struct Permission {
    /// As in `create pods`.
    pub(crate) what: String,
    pub(crate) purpose: &'static str,
    pub(crate) allowed: bool,
}

/// What a node offers to pods.
pub(crate) struct Offer {
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) ready: bool,
    pub(crate) cpus: f64,
    pub(crate) memory_mib: f64,
}

/// A cluster as `edgerunner doctor` sees it.
pub(crate) struct Inspection(Cluster);

impl Inspection {
    pub(crate) fn new(config: &KubernetesConfig) -> Self {
        Self(Cluster::new(config))
    }

    #[cfg(test)]
    pub(super) fn of(cluster: Cluster) -> Self {
        Self(cluster)
    }

    pub(crate) async fn namespace(&self) -> Result<&str, Error> {
        Ok(&self.0.connected().await?.namespace)
    }

    pub(crate) async fn version(&self) -> Result<Info, Error> {
        let version = self.0.call("read the version", |connected| async move {
            connected.client.apiserver_version().await
        });
        version.await
    }

    pub(crate) async fn permissions(&self, instance: &str) -> Result<Vec<Permission>, Error> {
        let owner = Owner::new(instance).name();
        let needed = NEEDED.into_iter().chain([NEEDED_FOR_LOGS]).map(|it| (it, None));
        let needed = needed.chain([(NEEDED_OF_OWNER, Some(owner))]);
        let mut permissions = Vec::new();
        for ((verb, resource, purpose), name) in needed {
            let what = match &name {
                Some(name) => format!("{verb} {resource} {name}"),
                None => format!("{verb} {resource}"),
            };
            let allowed = self.allows(verb, resource, name).await?;
            permissions.push(Permission { what, purpose, allowed });
        }
        Ok(permissions)
    }

    async fn allows(
        &self,
        verb: &str,
        resource: &str,
        name: Option<String>,
    ) -> Result<bool, Error> {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (resource, None),
        };
        let call = format!("ask whether `{verb} {resource}` is permitted");
        let attributes = ResourceAttributes {
            namespace: Some(self.namespace().await?.to_owned()),
            verb: Some(verb.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            name,
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(attributes),
                non_resource_attributes: None,
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviewed = self.0.call(&call, |connected| {
            let review = &review;
            async move { Api::all(connected.client).create(&PostParams::default(), review).await }
        });
        Ok(reviewed.await?.status.is_some_and(|status| status.allowed))
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> Result<Vec<Offer>, Error> {
        let nodes = self.0.call("list nodes", |connected| async move {
            Api::<Node>::all(connected.client).list(&ListParams::default()).await
        });
        Ok(nodes.await?.items.into_iter().map(Offer::of).collect())
    }
}

impl Offer {
    fn of(node: Node) -> Self {
        let status = node.status.unwrap_or_default();
        let amount = |name: &str| {
            status.allocatable.as_ref().and_then(|it| it.get(name)).map_or(0.0, to_number)
        };
        let conditions = status.conditions.iter().flatten();
        let answers = conditions.clone().any(|it| it.type_ == "Ready" && it.status == "True");
        let closed = node.spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
        Self {
            labels: node.metadata.labels.unwrap_or_default(),
            ready: answers && !closed,
            cpus: amount("cpu"),
            memory_mib: amount("memory") / f64::from(1 << 20),
        }
    }

    /// Whether it has what a pool's placement asks for.
    pub(crate) fn meets(&self, constraint: &str) -> bool {
        let has = |key: &str, value: &str| {
            self.labels.get(key.trim()).is_some_and(|label| label == value.trim())
        };
        match constraint.split_once("==") {
            Some((key, value)) => has(key, value),
            None => constraint.split_once("!=").is_none_or(|(key, value)| !has(key, value)),
        }
    }
}

/// 0 if it cannot be read.
fn to_number(Quantity(text): &Quantity) -> f64 {
    let digits = text.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "Ti" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return 0.0,
    };
    digits.parse::<f64>().unwrap_or_default() * factor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in
            [("4", 4.0), ("3920m", 3.92), ("16Gi", 17_179_869_184.0), ("1k", 1000.0), ("x", 0.0)]
        {
            assert_eq!(to_number(&Quantity(text.to_owned())), expected, "{text}");
        }
    }
}
