//! The task of a launcher on its node, as data: made by the Swarm provider, carried out by
//! `edgerunner launch`.

use std::{collections::HashSet, time::Duration};

use serde::{Deserialize, Serialize};

use super::{labels::Labels, order::Order};

/// What `edgerunner launch` does on its node; travels as JSON.
///
/// With an [`Order`] it holds secrets in the clear, as the order does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[expect(clippy::large_enum_variant, reason = "few exist at a time")]
pub(crate) enum NodeTask {
    /// Launch the order's runner, wait for its end, remove it.
    Run(Order),
    /// Wait for the end of a runner whose launcher ended early, then remove it.
    Attend { labels: Labels, stop_grace: Duration },
    /// Stop and remove a runner whose launcher ended early.
    Remove { labels: Labels, stop_grace: Duration },
    /// Print the end of a runner's log. `instance`: as in the labels on the node.
    Log { instance: String, runner: String, lines: usize },
    /// Remove what no runner needs any more on this node. `instance`: as in the labels on the
    /// node. `alive`: runners that may exist, at `taken_at_unix_ms`.
    Sweep { instance: String, alive: HashSet<String>, taken_at_unix_ms: u64 },
}

impl NodeTask {
    /// The installation, as in the labels on the node.
    pub(crate) fn instance(&self) -> &str {
        match self {
            Self::Run(order) => &order.labels.instance,
            Self::Attend { labels, .. } | Self::Remove { labels, .. } => &labels.instance,
            Self::Log { instance, .. } | Self::Sweep { instance, .. } => instance,
        }
    }
}
