//! Carries out an order: the runner's own Engine if it has one, then its container.

use std::{collections::HashMap, os::unix::fs::MetadataExt as _};

use bollard::{
    errors::Error as Bollard,
    models::{ContainerCreateBody, ContainerInspectResponse, ContainerStateStatusEnum as Status},
    query_parameters::{CreateContainerOptions, StartContainerOptions, UploadToContainerOptions},
};

use super::{
    Docker,
    body::{self, Engine, HttpProxy},
    error, from_bollard, short,
    tool_cache::ToolCache,
};
use crate::provider::{
    error::{Error, ErrorKind},
    instance::Launched,
    labels::Labels,
    order::{Images, JobEngine, Order},
};

/// A container that was created, or that an earlier call for the same labels created.
pub(super) struct Created {
    pub id: String,
    /// Ever, even if it has ended.
    pub started: bool,
}

impl Docker {
    pub(crate) async fn launch(&self, order: &Order) -> Result<Launched, Error> {
        let needs_more = matches!(order.engine, JobEngine::Dind(_))
            || order.tool_cache.is_some()
            || order.egress.is_some();
        // A runner that has ended needs nothing else any more.
        if needs_more && let Some(launched) = self.started_runner(&order.labels).await? {
            return Ok(launched);
        }
        let tool_cache = self.tool_cache(order).await?;
        let tool_cache = tool_cache.as_ref();
        let proxy = self.way_out(order).await?;
        let proxy = proxy.as_ref();
        let engine = self.job_engine(order, tool_cache, proxy).await?;
        if let Engine::Dind(dind) = &engine {
            self.start_dind(&dind.container()).await?;
        }
        let request = body::runner(order, &engine, tool_cache, proxy);
        let Created { id, started } = self.create_runner(order, request).await?;
        if !started {
            self.upload(&id, order, &engine, proxy).await?;
            self.start(&id).await?;
            if let Some(proxy) = proxy {
                let dind = match &engine {
                    Engine::Dind(dind) => Some(dind.container()),
                    Engine::None | Engine::Host { .. } => None,
                };
                self.note_runner(order, dind.as_deref().unwrap_or(&id), proxy).await;
            }
        }
        Ok(launched(&id))
    }

    /// The Engine that jobs may use. One of their own is created, and not started.
    pub(super) async fn job_engine(
        &self,
        order: &Order,
        tool_cache: Option<&ToolCache>,
        proxy: Option<&HttpProxy>,
    ) -> Result<Engine, Error> {
        match &order.engine {
            JobEngine::None => Ok(Engine::None),
            JobEngine::Socket => self.host_engine(),
            JobEngine::Dind(settings) => {
                let dind = self.create_dind(order, settings, tool_cache, proxy).await?;
                Ok(Engine::Dind(dind))
            }
        }
    }

    pub(super) async fn create_runner(
        &self,
        order: &Order,
        body: ContainerCreateBody,
    ) -> Result<Created, Error> {
        let runner = &order.labels.runner;
        let call = format!("create container {runner} from {}", order.image);
        self.create(&call, runner, &order.images, body, &order.labels).await
    }

    /// `labels` are those in `body`: a container that has both the name and the labels was
    /// created by an earlier call.
    pub(super) async fn create(
        &self,
        call: &str,
        name: &str,
        images: &Images,
        body: ContainerCreateBody,
        labels: &Labels,
    ) -> Result<Created, Error> {
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            platform: images.platform.clone().unwrap_or_default(),
        };
        match self.bollard.create_container(Some(options), body).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = name, warning, "Docker warns about a container");
                }
                Ok(Created { id: created.id, started: false })
            }
            Err(Bollard::DockerResponseServerError { status_code: 409, message }) => {
                self.existing(call, name, labels, &message).await
            }
            Err(error) => Err(from_bollard(call, &error)),
        }
    }

    pub(super) async fn start(&self, id: &str) -> Result<(), Error> {
        let started = self.bollard.start_container(id, None::<StartContainerOptions>).await;
        started.map_err(|error| from_bollard(&format!("start container {}", short(id)), &error))
    }

    /// Puts files into the container before it starts.
    pub(super) async fn upload(
        &self,
        id: &str,
        order: &Order,
        engine: &Engine,
        proxy: Option<&HttpProxy>,
    ) -> Result<(), Error> {
        let call = format!("put files into container {}", short(id));
        let archive = body::archive(order, engine, proxy);
        let archive = archive.map_err(|cause| error(ErrorKind::Refused, &call, cause))?;
        let Some(archive) = archive else { return Ok(()) };
        let root = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
        let archive = bollard::body_full(archive.into());
        let uploaded = self.bollard.upload_to_container(id, Some(root), archive).await;
        uploaded.map_err(|error| from_bollard(&call, &error))
    }

    /// For jobs that may use the Engine that runs them.
    fn host_engine(&self) -> Result<Engine, Error> {
        let socket = self.socket.display().to_string();
        match self.socket.metadata() {
            Ok(metadata) => Ok(Engine::Host { socket, group: metadata.gid() }),
            Err(cause) => {
                Err(error(ErrorKind::Unavailable, &format!("read the group of {socket}"), cause))
            }
        }
    }

    /// The runner's container, if an earlier call for the same labels started it.
    async fn started_runner(&self, labels: &Labels) -> Result<Option<Launched>, Error> {
        match self.inspect(&labels.runner).await {
            Ok(found) => {
                let created = created_for(labels, found).filter(|created| created.started);
                Ok(created.map(|created| launched(&created.id)))
            }
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The container that already has the name.
    async fn existing(
        &self,
        call: &str,
        name: &str,
        labels: &Labels,
        message: &str,
    ) -> Result<Created, Error> {
        let found = self.inspect(name).await.unwrap_or_default();
        let ours = Labels::from_map(labels_of(&found), &labels.instance).is_some();
        if let Some(created) = created_for(labels, found) {
            return Ok(created);
        }
        let what = match ours {
            true => "this installation already has a container with that name".to_owned(),
            false => format!(
                "{message} The container does not belong to this installation: remove or \
                 rename it"
            ),
        };
        Err(error(ErrorKind::Refused, call, what))
    }
}

fn launched(id: &str) -> Launched {
    Launched { id: short(id).to_owned(), node: None }
}

/// `None` if the container is not one that `labels` were written on.
fn created_for(labels: &Labels, found: Box<ContainerInspectResponse>) -> Option<Created> {
    if Labels::from_map(labels_of(&found), &labels.instance).as_ref() != Some(labels) {
        return None;
    }
    let started = found.state.and_then(|state| state.status) != Some(Status::CREATED);
    Some(Created { id: found.id?, started })
}

pub(super) fn labels_of(container: &ContainerInspectResponse) -> &HashMap<String, String> {
    static NONE: std::sync::LazyLock<HashMap<String, String>> =
        std::sync::LazyLock::new(HashMap::new);
    container.config.as_ref().and_then(|config| config.labels.as_ref()).unwrap_or(&NONE)
}
