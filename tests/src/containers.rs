use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bollard::errors::Error;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, EventMessage};
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptionsBuilder,
};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use crate::eventually::eventually;

/// The containers of one instance, as Docker itself tells of them.
pub struct Containers {
    docker: bollard::Docker,
    label: String,
    history: Arc<Mutex<History>>,
    watching: JoinHandle<()>,
}

#[derive(Default)]
struct History {
    running: HashSet<String>,
    started: usize,
    peak: usize,
}

impl Containers {
    /// Watches from now on.
    pub(crate) fn watch(instance: &str) -> Result<Self> {
        let docker = bollard::Docker::connect_with_defaults()?;
        let label = format!("dev.edgerunner.instance={instance}");
        let history = Arc::new(Mutex::new(History::default()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let options = EventsOptionsBuilder::default()
            .since(&format!("{}.{:09}", now.as_secs(), now.subsec_nanos()))
            .filters(&HashMap::from([
                ("type", vec!["container"]),
                ("event", vec!["start", "die"]),
                ("label", vec![&label]),
            ]))
            .build();
        let mut events = docker.events(Some(options));
        let watching = tokio::spawn({
            let history = Arc::clone(&history);
            async move {
                while let Some(Ok(event)) = events.next().await {
                    history.lock().unwrap_or_else(PoisonError::into_inner).take(event);
                }
            }
        });
        Ok(Self { docker, label, history, watching })
    }

    /// In whatever state.
    pub async fn list(&self) -> Result<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&HashMap::from([("label", vec![&self.label])]))
            .build();
        self.docker.list_containers(Some(options)).await.context("cannot list containers")
    }

    pub async fn running(&self) -> Result<Vec<ContainerSummary>> {
        let mut list = self.list().await?;
        list.retain(|container| container.state == Some(ContainerSummaryStateEnum::RUNNING));
        Ok(list)
    }

    /// How many were ever started.
    pub fn started(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).started
    }

    /// How many ran at once at most.
    pub fn peak(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).peak
    }

    /// Takes one away by force, as an administrator might.
    pub async fn remove(&self, container: &ContainerSummary) -> Result<()> {
        let id = container.id.as_deref().context("a container without an id")?;
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // It has gone, or is going.
            Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    pub(crate) async fn remove_all(&self) -> Result<()> {
        eventually("no container is left", async || {
            let list = self.list().await?;
            for container in &list {
                self.remove(container).await?;
            }
            Ok(list.is_empty().then_some(()))
        })
        .await
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl History {
    fn take(&mut self, event: EventMessage) {
        let Some(id) = event.actor.and_then(|actor| actor.id) else { return };
        match event.action.as_deref() {
            Some("start") => {
                self.running.insert(id);
                self.started += 1;
                self.peak = self.peak.max(self.running.len());
            }
            Some("die") => {
                self.running.remove(&id);
            }
            _ => {}
        }
    }
}
