//! Removes what runners that no longer exist left behind.

use std::collections::HashSet;

use futures_util::future::join_all;
use tracing::warn;

use super::Executor;
use crate::provider::{self, Provider};

impl Executor {
    pub(crate) async fn sweep(self) {
        // One that does not answer must not delay the others.
        let places = self.shared.places.iter().filter(|place| place.outage.error().is_none());
        let swept = join_all(places.map(|place| self.try_sweep(&place.provider))).await;
        let mut failed = Vec::new();
        for swept in swept {
            match swept {
                Ok(errors) => failed.extend(errors),
                Err(error) => warn!(%error, "leftovers are not removed yet"),
            }
        }
        let failed = failed.into_iter().map(|error| (error.message, String::new()));
        for (error, _) in self.shared.stuck.replace(failed) {
            warn!(error, "a leftover is not removed yet");
        }
    }

    async fn try_sweep(&self, provider: &Provider) -> anyhow::Result<Vec<provider::Error>> {
        let recorded = async {
            let records = self.shared.store.present_runners().await?;
            let names: HashSet<String> = records.into_iter().map(|record| record.name).collect();
            // A survey may have found one again that was being removed.
            self.shared.node_names.retain(&names);
            Ok::<_, anyhow::Error>(names)
        };
        provider.sweep(recorded).await
    }
}
