//! Where the runners of a pool run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where runners run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ProviderName {
    Docker,
    Swarm,
    Kubernetes,
}

impl ProviderName {
    /// For messages, and for the records of runners.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "Docker",
            Self::Swarm => "Docker Swarm",
            Self::Kubernetes => "Kubernetes",
        }
    }
}
