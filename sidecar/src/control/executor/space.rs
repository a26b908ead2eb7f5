//! Keeps the disks of providers from filling up, with what this installation itself made.

use tracing::warn;

use super::{Executor, places::Place};
use crate::{
    control::clock,
    provider::{Images, MadeSpace, PulledImage},
    store::ImageRecord,
    telemetry::metrics,
};
use edgerunner_scheduler::plan::Disk;

impl Executor {
    /// Records which images were pulled.
    pub(super) async fn record_pulled(&self, place: usize) {
        for image in self.shared.places[place].provider.take_pulled() {
            let PulledImage { engine, id, name } = image;
            let record = ImageRecord { engine, id, name, pulled_at: clock::now().wall };
            let image = record.name.clone();
            if let Err(error) = self.shared.store.save_image(record).await {
                warn!(image, %error, "the image stays when the disk is nearly full: not recorded");
            }
        }
    }

    /// Removes what nobody needs until the reserve is free again. Returns whether it removed
    /// anything.
    pub(super) async fn make_space(&self, place: usize, disk: Disk) -> bool {
        let Place { name, provider, .. } = &self.shared.places[place];
        let records = match self.shared.store.images().await {
            Ok(records) => records,
            Err(error) => {
                warn!(%error, "nothing is removed although the disk is nearly full");
                return false;
            }
        };
        let pulled: Vec<PulledImage> = records
            .into_iter()
            .map(|ImageRecord { engine, id, name, .. }| PulledImage { engine, id, name })
            .collect();
        let made = provider.make_space(&pulled, &self.named_images(), disk.reserve_mib).await;
        let MadeSpace { gone, tool_caches, failed } =
            made.unwrap_or_else(|error| MadeSpace { failed: vec![error], ..MadeSpace::default() });
        metrics::space_made("image", gone.len());
        metrics::space_made("tool_cache", tool_caches);
        let problems = failed.into_iter().map(|error| (name.clone(), error.to_string()));
        for (provider, error) in self.shared.full_disks.replace(problems) {
            warn!(
                provider,
                error, "the disk is nearly full, and not all was removed that could be"
            );
        }
        let any = !gone.is_empty() || tool_caches > 0;
        for PulledImage { engine, id, .. } in gone {
            if let Err(error) = self.shared.store.forget_image(engine, id).await {
                warn!(%error, "an image that was removed is still on record");
            }
        }
        any
    }

    /// The images that any pool names.
    fn named_images(&self) -> Vec<String> {
        let pools = self.pools();
        let containers = pools.iter().flat_map(|pool| pool.containers());
        let images = containers.map(|container| Images::new(&container, &self.shared.registries));
        let mut names: Vec<String> = images.flat_map(|images| images.names).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
