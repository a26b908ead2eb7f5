//! Keeps the images of the pools young: tags that may have moved, and runners that were too old.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tracing::{info, warn};

use super::Executor;
use crate::{
    config::{Container, PoolConfig, PullPolicy},
    provider::{Images, Refreshed},
    telemetry::metrics,
};
use edgerunner_scheduler::plan::Parameters;

const HOUR: Duration = Duration::from_secs(3_600);

/// An image of a provider's: its place, name and platform.
type Key = (usize, String, Option<String>);

#[derive(Default)]
pub(super) struct Refreshes {
    asked: Mutex<HashMap<Key, Asked>>,
    /// Pools whose next launch with this image pulls it.
    pull: Mutex<HashSet<(String, String)>>,
}

struct Asked {
    at: Instant,
    /// Why the registry did not answer.
    error: Option<String>,
}

impl Refreshes {
    /// Whether an image is to be asked for now. One that failed is asked for within an hour.
    fn is_due(&self, key: &Key, hours: u32) -> bool {
        match self.asked().get(key) {
            Some(Asked { at, error: None }) => at.elapsed() >= HOUR * hours,
            Some(Asked { at, error: Some(_) }) => at.elapsed() >= HOUR,
            None => true,
        }
    }

    /// Returns whether an error is another than the last time.
    fn asked_for(&self, key: Key, error: Option<String>) -> bool {
        let asked = Asked { at: Instant::now(), error: error.clone() };
        let before = self.asked().insert(key, asked);
        error.is_some() && before.is_none_or(|before| before.error != error)
    }

    /// Whether this launch of the pool has to pull. Only the first one after a request has.
    pub(super) fn pulls(&self, pool: &str, image: &str) -> bool {
        self.pull().remove(&(pool.to_owned(), image.to_owned()))
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Key, Asked>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pull(&self) -> MutexGuard<'_, HashSet<(String, String)>> {
        self.pull.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    /// What has to be done from time to time for runners that GitHub accepts. Takes as long as
    /// registries and GitHub take; nothing else waits for it.
    pub(crate) async fn keep_young(self) {
        self.refresh_images().await;
        self.check_versions().await;
    }

    /// Asks for the tags again that are due.
    async fn refresh_images(&self) {
        for pool in self.pools().iter() {
            let container = &pool.container;
            if container.refresh_hours == 0 || container.pull_policy == PullPolicy::Never {
                continue;
            }
            for container in pool.containers() {
                let images = Images::new(&container, &self.shared.registries);
                for image in images.names.iter().filter(|image| has_tag(image)) {
                    let place = pool.place;
                    let key = (place, image.clone(), images.platform.clone());
                    if self.shared.refreshes.is_due(&key, container.refresh_hours) {
                        self.refresh(pool, &images, image).await;
                    }
                }
            }
        }
    }

    /// The next launch of a pool with these parameters pulls its runner's image, where that can
    /// bring another one.
    pub(crate) fn pull_at_next_launch(&self, pool: &str, parameters: &Parameters) {
        let Some(pool) = self.pool(pool).map(|pool| pool.with(parameters)) else { return };
        if can_pull(&pool.container) {
            let (pool, image) = (pool.name.clone(), pool.container.runner_image.clone());
            info!(pool, image, "its runner is too old: the next launch pulls the image");
            self.shared.refreshes.pull().insert((pool, image));
        }
    }

    /// Pulls the image of a runner that was too old. If that fails, the launch goes on with what
    /// is there.
    pub(super) async fn pull_again(&self, pool: &PoolConfig, images: &Images) {
        self.refresh(pool, images, &pool.container.runner_image).await;
    }

    async fn refresh(&self, pool: &PoolConfig, images: &Images, image: &str) {
        let place = pool.place;
        let refreshed = self.shared.places[place].provider.refresh(images, image).await;
        self.record_pulled(place).await;
        let key = (place, image.to_owned(), images.platform.clone());
        match refreshed {
            Ok(refreshed) => {
                self.shared.refreshes.asked_for(key, None);
                if let Some(outcome) = outcome(refreshed) {
                    metrics::image_refreshed(&pool.name, outcome);
                }
                if refreshed == Refreshed::Updated {
                    info!(pool = pool.name, image, "its tag names another image now");
                    for pool in self.pools().iter() {
                        if pool.place == place && pool.container.runner_image == image {
                            self.shared.versions.image_changed(pool);
                        }
                    }
                }
            }
            Err(error) => {
                metrics::image_refreshed(&pool.name, "failed");
                let error = error.to_string();
                if self.shared.refreshes.asked_for(key, Some(error.clone())) {
                    warn!(
                        pool = pool.name,
                        image,
                        error,
                        "the image is not refreshed: launches go on with the one that is there"
                    );
                }
            }
        }
    }
}

/// Whether a pull can bring another image, and no launch pulls anyway.
fn can_pull(container: &Container) -> bool {
    container.pull_policy == PullPolicy::Missing && has_tag(&container.runner_image)
}

/// `None` if the registry was not asked.
fn outcome(refreshed: Refreshed) -> Option<&'static str> {
    match refreshed {
        Refreshed::Updated => Some("updated"),
        Refreshed::Unchanged => Some("unchanged"),
        Refreshed::LeftAlone => None,
    }
}

fn has_tag(image: &str) -> bool {
    !image.contains('@')
}
