//! What exists for a runner beside its own container.

use bollard::errors::Error as Bollard;
use bollard::query_parameters::{
    ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions,
    RemoveVolumeOptions,
};

use super::{Docker, Error, Labels, labels};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leftover {
    /// Whose it is.
    pub runner: String,
    kind: Kind,
    /// Or name.
    id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Engine,
    Network,
    Volume,
}

impl Docker {
    /// Those of one runner, or of all, in an order in which they can be removed.
    pub(crate) async fn leftovers(
        &self,
        instance: &str,
        runner: Option<&str>,
    ) -> Result<Vec<Leftover>, Error> {
        let failed = |call: &'static str| move |error| Error::from_bollard(call, &error);
        let filters = || Some([Labels::filter_of(instance, runner)].into());
        let mut found = Vec::new();
        let mut add = |kind, id: Option<String>, map| {
            if let (Some(id), Some(Labels { runner, .. })) = (id, Labels::from_map(&map, instance))
            {
                found.push(Leftover { runner, kind, id });
            }
        };
        let options = ListContainersOptions { all: true, filters: filters(), ..Default::default() };
        let containers = self.bollard.list_containers(Some(options)).await;
        for container in containers.map_err(failed("list containers"))? {
            let map = container.labels.unwrap_or_default();
            if labels::is_dind(&map) {
                add(Kind::Engine, container.id, map);
            }
        }
        let options = ListNetworksOptions { filters: filters() };
        let networks = self.bollard.list_networks(Some(options)).await;
        for network in networks.map_err(failed("list networks"))? {
            add(Kind::Network, network.id, network.labels.unwrap_or_default());
        }
        let options = ListVolumesOptions { filters: filters() };
        let volumes = self.bollard.list_volumes(Some(options)).await;
        for volume in volumes.map_err(failed("list volumes"))?.volumes.unwrap_or_default() {
            add(Kind::Volume, Some(volume.name), volume.labels);
        }
        Ok(found)
    }

    pub(crate) async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), Error> {
        let Leftover { kind, id, .. } = leftover;
        let (call, removed) = match kind {
            Kind::Engine => {
                let options = RemoveContainerOptions { v: true, force: true, link: false };
                ("remove container", self.bollard.remove_container(id, Some(options)).await)
            }
            Kind::Network => ("remove network", self.bollard.remove_network(id).await),
            Kind::Volume => {
                ("remove volume", self.bollard.remove_volume(id, None::<RemoveVolumeOptions>).await)
            }
        };
        match removed {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(Error::from_bollard(&format!("{call} {id}"), &error)),
        }
    }
}
