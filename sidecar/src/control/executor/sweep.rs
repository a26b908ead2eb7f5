//! Removes what runners that no longer exist left behind.

use std::collections::HashSet;

use tracing::warn;

use super::Executor;
use crate::provider;

impl Executor {
    pub(crate) async fn sweep(self) {
        match self.try_sweep().await {
            Ok(failed) => {
                let failed = failed.into_iter().map(|error| (error.message, String::new()));
                for (error, _) in self.shared.stuck.replace(failed) {
                    warn!(error, "a leftover is not removed yet");
                }
            }
            Err(error) => warn!(%error, "leftovers are not removed yet"),
        }
    }

    async fn try_sweep(&self) -> anyhow::Result<Vec<provider::Error>> {
        let recorded = async {
            let records = self.shared.store.present_runners().await?;
            Ok::<HashSet<String>, anyhow::Error>(
                records.into_iter().map(|record| record.name).collect(),
            )
        };
        self.shared.provider.sweep(recorded).await
    }
}
