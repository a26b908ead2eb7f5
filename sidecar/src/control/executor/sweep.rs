//! Removes what runners that no longer exist left behind.

use std::collections::HashSet;

use tracing::warn;

use super::Executor;
use crate::provider::{self, Provider};

impl Executor {
    pub(crate) async fn sweep(self) {
        let mut failed = Vec::new();
        for place in &self.shared.places {
            match self.try_sweep(&place.provider).await {
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
            self.shared.locations.retain(&names);
            Ok::<_, anyhow::Error>(names)
        };
        provider.sweep(recorded).await
    }
}
