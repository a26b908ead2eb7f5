//! Whether a cluster may end a runner's pod to make better use of its nodes: it may as long as no
//! job runs on it.

use std::collections::BTreeMap;

use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::Kubernetes;
use crate::provider::error::Error;

/// Of cluster-autoscaler. Without it, that keeps the nodes of all pods that no controller owns.
pub(super) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Of Karpenter.
pub(super) const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
const YES: &str = "true";
const NO: &str = "false";

/// Of a pod whose runner has no job.
pub(super) fn while_idle() -> [(String, String); 1] {
    [(SAFE_TO_EVICT.to_owned(), YES.to_owned())]
}

pub(super) fn is_protected(annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(DO_NOT_DISRUPT).is_some_and(|value| value == YES)
}

impl Kubernetes {
    pub(crate) async fn protect(&self, runner: &str) -> Result<(), Error> {
        if self.shared.pods.get(runner).is_some_and(|seen| seen.protected) {
            return Ok(());
        }
        let annotations = json!({ SAFE_TO_EVICT: NO, DO_NOT_DISRUPT: YES });
        let patch = json!({ "metadata": { "annotations": annotations } });
        let call = format!("annotate pod {runner}");
        let patched = self.shared.cluster.call(&call, |connected| {
            let patch = Patch::Merge(patch.clone());
            async move { connected.pods().patch(runner, &PatchParams::default(), &patch).await }
        });
        patched.await.map(|_| ())
    }
}
