//! The runner containers of one instance, as the Docker Engine reports them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage, Network, Volume};
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptions, ListVolumesOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::eventually::eventually;

const PING_INTERVAL: Duration = Duration::from_millis(20);

pub struct Containers {
    docker: bollard::Docker,
    instance: String,
    label: String,
    history: Arc<Mutex<History>>,
    watching: JoinHandle<()>,
}

#[derive(Default)]
struct History {
    running: BTreeSet<String>,
    started: usize,
    peak: BTreeSet<String>,
}

impl Containers {
    /// Watches this Engine from now on; the default one without a host.
    pub fn watch(engine: Option<&str>, instance: &str) -> Result<Self> {
        let docker = match engine {
            Some(host) => bollard::Docker::connect_with_host(host)?,
            None => bollard::Docker::connect_with_defaults()?,
        };
        let label = format!("dev.edgerunner.instance={instance}");
        let history = Arc::new(Mutex::new(History::default()));
        let mut events = events(&docker, &label)?;
        let watching = tokio::spawn({
            let (docker, label, history) = (docker.clone(), label.clone(), Arc::clone(&history));
            async move {
                loop {
                    while let Some(Ok(event)) = events.next().await {
                        history.lock().unwrap_or_else(PoisonError::into_inner).take(event);
                    }
                    // The Engine was stopped, and all containers with it.
                    history.lock().unwrap_or_else(PoisonError::into_inner).running.clear();
                    while docker.ping().await.is_err() {
                        sleep(PING_INTERVAL).await;
                    }
                    match self::events(&docker, &label) {
                        Ok(next) => events = next,
                        Err(_) => return,
                    }
                }
            }
        });
        Ok(Self { docker, instance: instance.to_owned(), label, history, watching })
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// A client of the Engine that they run on.
    pub fn docker(&self) -> &bollard::Docker {
        &self.docker
    }

    /// The label that all of them have, as `NAME=VALUE`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// All of them, in any state.
    pub async fn list(&self) -> Result<Vec<ContainerSummary>> {
        labelled(&self.docker, &self.label).await
    }

    pub async fn running(&self) -> Result<Vec<ContainerSummary>> {
        let mut list = self.list().await?;
        list.retain(|container| container.state == Some(ContainerSummaryStateEnum::RUNNING));
        Ok(list)
    }

    /// How many were started since [`Self::watch`].
    pub fn started(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).started
    }

    /// The highest number that ran at the same time.
    pub fn peak(&self) -> usize {
        self.names_at_peak().len()
    }

    /// The names of those that ran at the peak.
    pub fn names_at_peak(&self) -> BTreeSet<String> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).peak.clone()
    }

    /// Removes one by force, as an administrator might.
    pub async fn remove(&self, container: &ContainerSummary) -> Result<()> {
        let id = container.id.as_deref().context("a container without an id")?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // It is already gone, or being removed.
            Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Fails if a network or volume has this instance's label or name.
    pub async fn nothing_else_is_left(&self) -> Result<()> {
        let (networks, volumes) = self.networks_and_volumes().await?;
        ensure!(
            networks.is_empty() && volumes.is_empty(),
            "networks: {networks:?}; volumes: {volumes:?}"
        );
        Ok(())
    }

    async fn networks_and_volumes(&self) -> Result<(Vec<Network>, Vec<Volume>)> {
        let mut networks = self.docker.list_networks(None::<ListNetworksOptions>).await?;
        networks.retain(|network| self.is_named_in(network));
        let volumes = self.docker.list_volumes(None::<ListVolumesOptions>).await?.volumes;
        let mut volumes = volumes.unwrap_or_default();
        volumes.retain(|volume| self.is_named_in(volume));
        Ok((networks, volumes))
    }

    fn is_named_in(&self, resource: &impl Serialize) -> bool {
        serde_json::to_string(resource).is_ok_and(|text| text.contains(&self.instance))
    }

    /// Removes all containers, networks and volumes, and returns the number of containers.
    pub async fn remove_all(&self) -> Result<usize> {
        let mut removed = BTreeSet::new();
        eventually("no container, network or volume is left", async || {
            let list = self.list().await?;
            for container in &list {
                self.remove(container).await?;
                removed.extend(container.id.clone());
            }
            let (networks, volumes) = self.networks_and_volumes().await?;
            for network in networks.iter().filter_map(|network| network.id.as_deref()) {
                self.docker.remove_network(network).await?;
            }
            for volume in &volumes {
                self.docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await?;
            }
            Ok((list.is_empty() && networks.is_empty() && volumes.is_empty()).then_some(()))
        })
        .await?;
        Ok(removed.len())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// All containers with this label, in any state.
pub async fn labelled(docker: &bollard::Docker, label: &str) -> Result<Vec<ContainerSummary>> {
    let options = ListContainersOptionsBuilder::default()
        .all(true)
        .filters(&HashMap::from([("label", vec![label])]))
        .build();
    docker.list_containers(Some(options)).await.context("cannot list containers")
}

/// Starts and exits from now on, even if the stream is polled later.
pub fn events(
    docker: &bollard::Docker,
    label: &str,
) -> Result<impl Stream<Item = Result<EventMessage, Error>> + Unpin + use<>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let options = EventsOptionsBuilder::default()
        .since(&format!("{}.{:09}", now.as_secs(), now.subsec_nanos()))
        .filters(&HashMap::from([
            ("type", vec!["container"]),
            ("event", vec!["start", "die"]),
            ("label", vec![label]),
        ]))
        .build();
    Ok(docker.events(Some(options)).boxed())
}

impl History {
    fn take(&mut self, event: EventMessage) {
        let attributes = event.actor.and_then(|actor| actor.attributes);
        let Some(name) = attributes.and_then(|mut it| it.remove("name")) else { return };
        match event.action.as_deref() {
            Some("start") => {
                self.running.insert(name);
                self.started += 1;
                if self.running.len() > self.peak.len() {
                    self.peak.clone_from(&self.running);
                }
            }
            Some("die") => {
                self.running.remove(&name);
            }
            _ => {}
        }
    }
}
