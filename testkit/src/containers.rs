//! The runner containers of one instance, as the Docker Engines report them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bollard::errors::Error;
use bollard::models::{
    ContainerInspectResponse, ContainerSummary, ContainerSummaryStateEnum, EventMessage, Network,
    Volume,
};
use bollard::query_parameters::{
    EventsOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListNetworksOptions, ListSecretsOptionsBuilder, ListServicesOptionsBuilder, ListVolumesOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use futures_util::future::try_join_all;
use futures_util::{Stream, StreamExt as _};
use serde::Serialize;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::eventually::eventually;

/// Of a network that is a pool's only way out, and of its Envoy.
const EGRESS: &str = "dev.edgerunner.egress";

const PING_INTERVAL: Duration = Duration::from_millis(20);

pub struct Containers {
    engines: Vec<bollard::Docker>,
    /// Where services and secrets are, for a Swarm.
    manager: Option<bollard::Docker>,
    instance: String,
    label: String,
    history: Arc<Mutex<History>>,
    watching: Vec<JoinHandle<()>>,
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
        Self::watch_all(vec![docker], None, instance, instance)
    }

    /// Watches the Engines of a Swarm from now on. The first one is a manager's.
    pub fn watch_swarm(engines: &[String], instance: &str) -> Result<Self> {
        let engines = engines.iter().map(|host| bollard::Docker::connect_with_host(host));
        let engines: Vec<_> = engines.collect::<Result<_, _>>()?;
        let manager = engines.first().cloned();
        // Nodes have labels of their own: the Engine of a manager may also be used directly.
        Self::watch_all(engines, manager, instance, &format!("{instance}.swarm"))
    }

    fn watch_all(
        engines: Vec<bollard::Docker>,
        manager: Option<bollard::Docker>,
        instance: &str,
        label: &str,
    ) -> Result<Self> {
        let label = format!("dev.edgerunner.instance={label}");
        let history = Arc::new(Mutex::new(History::default()));
        let watching = engines.iter().map(|docker| watch(docker, &label, &history));
        let watching = watching.collect::<Result<_>>()?;
        Ok(Self { engines, manager, instance: instance.to_owned(), label, history, watching })
    }

    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// A client of the Engine that they run on; of the first one, in a Swarm.
    pub fn docker(&self) -> &bollard::Docker {
        &self.engines[0]
    }

    /// A container, and a client of the Engine that runs it.
    pub async fn inspect(
        &self,
        name: &str,
    ) -> Result<(ContainerInspectResponse, &bollard::Docker)> {
        for docker in &self.engines {
            match docker.inspect_container(name, None::<InspectContainerOptions>).await {
                Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                found => return Ok((found?, docker)),
            }
        }
        bail!("no Engine has the container {name}")
    }

    /// The label that all of them have, as `NAME=VALUE`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// All of them, in any state.
    pub async fn list(&self) -> Result<Vec<ContainerSummary>> {
        let lists = self.engines.iter().map(|docker| labelled(docker, &self.label));
        Ok(try_join_all(lists).await?.concat())
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
        for docker in &self.engines {
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match docker.remove_container(id, Some(options)).await {
                // It is on another Engine, already gone, or being removed.
                Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Fails if a network or volume has this instance's label or name, unless it is kept for the next
    /// runner, or if a Swarm has a launcher, a service or a secret of it.
    pub async fn nothing_else_is_left(&self) -> Result<()> {
        for docker in &self.engines {
            let (mut networks, mut volumes) = self.networks_and_volumes(docker).await?;
            networks.retain(|network| !is_kept(network.labels.as_ref()));
            volumes.retain(|volume| !is_kept(Some(&volume.labels)));
            ensure!(
                networks.is_empty() && volumes.is_empty(),
                "networks: {networks:?}; volumes: {volumes:?}"
            );
        }
        let Some(manager) = &self.manager else { return Ok(()) };
        let (launchers, services, secrets) =
            (self.launchers().await?, self.services(manager).await?, self.secrets(manager).await?);
        ensure!(
            launchers.is_empty() && services.is_empty() && secrets.is_empty(),
            "launchers: {:?}; services: {services:?}; secrets: {secrets:?}",
            launchers.iter().map(|container| &container.names).collect::<Vec<_>>(),
        );
        Ok(())
    }

    /// The containers of a Swarm that launch runners, in any state.
    pub async fn launchers(&self) -> Result<Vec<ContainerSummary>> {
        let label = format!("dev.edgerunner.launcher={}.swarm", self.instance);
        let lists = self.engines.iter().map(|docker| labelled(docker, &label));
        Ok(try_join_all(lists).await?.concat())
    }

    /// The names of the instance's services.
    async fn services(&self, manager: &bollard::Docker) -> Result<Vec<String>> {
        let options = ListServicesOptionsBuilder::default().filters(&self.of_instance()).build();
        let services = manager.list_services(Some(options)).await?;
        Ok(services.into_iter().filter_map(|service| service.spec?.name).collect())
    }

    /// The names of the instance's secrets.
    async fn secrets(&self, manager: &bollard::Docker) -> Result<Vec<String>> {
        let options = ListSecretsOptionsBuilder::default().filters(&self.of_instance()).build();
        let secrets = manager.list_secrets(Some(options)).await?;
        Ok(secrets.into_iter().filter_map(|secret| secret.spec?.name).collect())
    }

    fn of_instance(&self) -> HashMap<&'static str, Vec<String>> {
        HashMap::from([("label", vec![format!("dev.edgerunner.instance={}", self.instance)])])
    }

    async fn networks_and_volumes(
        &self,
        docker: &bollard::Docker,
    ) -> Result<(Vec<Network>, Vec<Volume>)> {
        let mut networks = docker.list_networks(None::<ListNetworksOptions>).await?;
        networks.retain(|network| self.is_named_in(network));
        let volumes = docker.list_volumes(None::<ListVolumesOptions>).await?.volumes;
        let mut volumes = volumes.unwrap_or_default();
        volumes.retain(|volume| self.is_named_in(volume));
        Ok((networks, volumes))
    }

    fn is_named_in(&self, resource: &impl Serialize) -> bool {
        serde_json::to_string(resource).is_ok_and(|text| text.contains(&self.instance))
    }

    /// Removes all containers, networks and volumes, and the services and secrets of a Swarm.
    /// Returns the number of containers.
    pub async fn remove_all(&self) -> Result<usize> {
        let mut removed = BTreeSet::new();
        eventually("no container, network or volume is left", async || {
            if let Some(manager) = &self.manager {
                for service in self.services(manager).await? {
                    manager.delete_service(&service).await?;
                }
                for secret in self.secrets(manager).await? {
                    manager.delete_secret(&secret).await?;
                }
                // Without its service, Swarm removes it.
                let launchers = self.launchers().await?;
                ensure!(launchers.is_empty(), "{} launchers are running", launchers.len());
            }
            let mut list = self.list().await?;
            let envoys = format!("{EGRESS}={}", self.instance);
            for docker in &self.engines {
                list.extend(labelled(docker, &envoys).await?);
            }
            for container in &list {
                self.remove(container).await?;
                removed.extend(container.id.clone());
            }
            let mut left = list.len();
            for docker in &self.engines {
                let (networks, volumes) = self.networks_and_volumes(docker).await?;
                for network in networks.iter().filter_map(|network| network.id.as_deref()) {
                    docker.remove_network(network).await?;
                }
                for volume in &volumes {
                    docker.remove_volume(&volume.name, None::<RemoveVolumeOptions>).await?;
                }
                left += networks.len() + volumes.len();
            }
            Ok((left == 0).then_some(()))
        })
        .await?;
        Ok(removed.len())
    }
}

/// What outlives runners: a pool's way out, and tool caches.
fn is_kept(labels: Option<&HashMap<String, String>>) -> bool {
    let kept = |label: &&str| labels.is_some_and(|labels| labels.contains_key(*label));
    [EGRESS, "dev.edgerunner.tool-cache"].iter().any(kept)
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.watching.iter().for_each(JoinHandle::abort);
    }
}

/// Records the events of this Engine.
fn watch(
    docker: &bollard::Docker,
    label: &str,
    history: &Arc<Mutex<History>>,
) -> Result<JoinHandle<()>> {
    let mut events = events(docker, label)?;
    let (docker, label, history) = (docker.clone(), label.to_owned(), Arc::clone(history));
    Ok(tokio::spawn(async move {
        // Those of this Engine alone.
        let mut running = BTreeSet::new();
        loop {
            while let Some(Ok(event)) = events.next().await {
                history.lock().unwrap_or_else(PoisonError::into_inner).take(event, &mut running);
            }
            // The Engine was stopped, and all containers with it.
            history.lock().unwrap_or_else(PoisonError::into_inner).forget(&running);
            running.clear();
            while docker.ping().await.is_err() {
                sleep(PING_INTERVAL).await;
            }
            match self::events(&docker, &label) {
                Ok(next) => events = next,
                Err(_) => return,
            }
        }
    }))
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
            // Podman's filter knows only its own name of the second.
            ("event", vec!["start", "die", "died"]),
            ("label", vec![label]),
        ]))
        .build();
    Ok(docker.events(Some(options)).boxed())
}

impl History {
    fn forget(&mut self, ended: &BTreeSet<String>) {
        self.running.retain(|name| !ended.contains(name));
    }

    /// `running`: those of the Engine that has sent the event.
    fn take(&mut self, event: EventMessage, running: &mut BTreeSet<String>) {
        let attributes = event.actor.and_then(|actor| actor.attributes);
        let Some(name) = attributes.and_then(|mut it| it.remove("name")) else { return };
        match event.action.as_deref() {
            Some("start") => {
                running.insert(name.clone());
                self.running.insert(name);
                self.started += 1;
                if self.running.len() > self.peak.len() {
                    self.peak.clone_from(&self.running);
                }
            }
            Some("die") => {
                running.remove(&name);
                self.running.remove(&name);
            }
            _ => {}
        }
    }
}
