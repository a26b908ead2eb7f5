//! Leftovers: a runner's Engine, network and volumes, which may outlive its container.

use std::collections::{HashMap, HashSet};

use bollard::{
    errors::Error as Bollard,
    query_parameters::{ListNetworksOptions, ListVolumesOptions, RemoveVolumeOptions},
};
use tracing::info;

use super::{CALL_LIMIT, Docker, from_bollard, is_dind, within};
use crate::provider::{
    error::Error,
    labels::{self, Labels},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leftover {
    runner: String,
    kind: Kind,
    /// ID or name.
    id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Engine,
    Network,
    Volume,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// The result of a sweep.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// How many containers, networks and volumes; what belongs to a runner's container counts
    /// with it.
    pub removed: usize,
    pub failed: Vec<Error>,
}

impl Swept {
    pub(super) fn add(&mut self, removal: Result<(), Error>) {
        match removal {
            Ok(()) => self.removed += 1,
            Err(error) => self.failed.push(error),
        }
    }
}

impl Docker {
    pub(crate) async fn sweep<E: From<Error>>(
        &self,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
    ) -> Result<Vec<Error>, E> {
        let mut swept = self.sweep_leftovers(alive).await?;
        self.sweep_ways_out(&mut swept).await;
        Ok(swept.failed)
    }

    pub(super) async fn sweep_leftovers<E: From<Error>>(
        &self,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
    ) -> Result<Swept, E> {
        let (leftovers, failed) = self.leftovers(None).await;
        let mut swept = Swept { removed: 0, failed };
        if !leftovers.is_empty() {
            self.remove_unneeded(leftovers, alive, &mut swept).await?;
        }
        self.prune_tool_caches(&mut swept).await;
        Ok(swept)
    }

    async fn remove_unneeded<E: From<Error>>(
        &self,
        leftovers: Vec<Leftover>,
        alive: impl Future<Output = Result<HashSet<String>, E>>,
        swept: &mut Swept,
    ) -> Result<(), E> {
        // After the leftovers: a launch is recorded before it creates anything. Containers count
        // too: a new store has no records of them.
        let mut alive = alive.await?;
        let containers = self.list_containers(None).await?.into_iter();
        let runners = containers.filter(|container| !is_dind(&container.labels));
        alive.extend(runners.filter_map(|mut container| container.labels.remove(labels::RUNNER)));
        for leftover in leftovers.iter().filter(|leftover| !alive.contains(&leftover.runner)) {
            info!(runner = leftover.runner, kind = leftover.kind.as_str(), "removing a leftover");
            swept.add(self.remove_leftover(leftover).await);
        }
        Ok(())
    }

    /// Leftovers of one runner or of all, in an order in which they can be removed, and the
    /// errors of lists that cannot be read.
    pub(super) async fn leftovers(&self, runner: Option<&str>) -> (Vec<Leftover>, Vec<Error>) {
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        let mut add = |kind, id: Option<String>, map: &HashMap<String, String>| {
            if let (Some(id), Some(labels)) = (id, Labels::from_map(map, &self.instance)) {
                found.push(Leftover { runner: labels.runner, kind, id });
            }
        };
        match self.list_containers(runner).await {
            Ok(containers) => {
                for container in containers {
                    if is_dind(&container.labels) {
                        add(Kind::Engine, Some(container.id), &container.labels);
                    }
                }
            }
            Err(error) => failed.push(error),
        }
        match self.networks(runner).await {
            Ok(networks) => {
                for (id, map) in networks {
                    add(Kind::Network, id, &map);
                }
            }
            Err(error) => failed.push(error),
        }
        let call = "list volumes";
        let options = ListVolumesOptions { filters: Some([self.filter(runner)].into()) };
        let volumes = self.bollard.list_volumes(Some(options));
        let volumes = within(CALL_LIMIT, call, async {
            volumes.await.map_err(|error| from_bollard(call, &error))
        });
        match volumes.await {
            Ok(volumes) => {
                for volume in volumes.volumes.unwrap_or_default() {
                    add(Kind::Volume, Some(volume.name), &volume.labels);
                }
            }
            Err(error) => failed.push(error),
        }
        (found, failed)
    }

    /// Ids and labels.
    pub(super) async fn networks(
        &self,
        runner: Option<&str>,
    ) -> Result<Vec<(Option<String>, HashMap<String, String>)>, Error> {
        let call = "list networks";
        let options = ListNetworksOptions { filters: Some([self.filter(runner)].into()) };
        let networks = self.bollard.list_networks(Some(options));
        let networks = within(CALL_LIMIT, call, async {
            networks.await.map_err(|error| from_bollard(call, &error))
        });
        let networks = networks.await?.into_iter();
        Ok(networks.map(|network| (network.id, network.labels.unwrap_or_default())).collect())
    }

    /// One that no longer exists counts as removed.
    pub(super) async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), Error> {
        let Leftover { kind, id, .. } = leftover;
        let (call, removed) = match kind {
            Kind::Engine => return self.delete_container(id).await,
            Kind::Network => ("remove network", self.bollard.remove_network(id).await),
            Kind::Volume => {
                ("remove volume", self.bollard.remove_volume(id, None::<RemoveVolumeOptions>).await)
            }
        };
        match removed {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(from_bollard(&format!("{call} {id}"), &error)),
        }
    }
}
