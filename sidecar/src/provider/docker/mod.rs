//! Runner containers on one Docker Engine (API 1.41, Engine 20.10, or later).

mod dind;
mod error;
mod image;
mod labels;
mod leftovers;
mod log;
mod spec;
mod survey;
mod watch;

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error as Bollard;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, RemoveContainerOptions, StartContainerOptions,
    StopContainerOptions, UploadToContainerOptions,
};

pub(crate) use self::error::{Cause, Error};
pub(crate) use self::image::Availability;
use self::image::Wanted;
pub(crate) use self::labels::Labels;

pub(crate) use self::spec::{ContainerSpec, File, JobEngine};
pub(crate) use self::survey::{ContainerState, Found};
pub(crate) use self::watch::ChangeKind;
use crate::config::Registry;
use crate::singleflight::Flights;

const API_VERSION_MIN: (u32, u32) = (1, 41);

/// For Docker to kill and report after the grace period of a stop.
const STOP_MARGIN: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Docker {
    bollard: bollard::Docker,
    /// Of the Engine, on this machine.
    socket: PathBuf,
    registries: Arc<[Registry]>,
    images: Arc<Flights<Wanted, Result<(), Error>>>,
}

impl Docker {
    /// `host` is `unix:///…` or `tcp://…`; `None` takes `DOCKER_HOST` or the
    /// usual socket. Nothing is sent yet.
    pub(crate) fn connect(host: Option<&str>, registries: &[Registry]) -> Result<Self, Error> {
        // Requests carry no API version, so that the daemon speaks its own
        // newest: old daemons refuse newer versions, new ones older.
        let bollard = match host {
            Some(host) => bollard::Docker::connect_with_host(host),
            None => bollard::Docker::connect_with_defaults(),
        }
        .map_err(|error| Error::from_bollard("connect", &error))?;
        let socket = host.and_then(|host| host.strip_prefix("unix://")).unwrap_or(dind::SOCKET);
        Ok(Self {
            bollard,
            socket: socket.into(),
            registries: registries.into(),
            images: Arc::new(Flights::new()),
        })
    }

    /// The Engine's version; an error if it is too old for us.
    pub(crate) async fn version(&self) -> Result<String, Error> {
        let call = "ask for the version";
        let answer =
            self.bollard.version().await.map_err(|error| Error::from_bollard(call, &error))?;
        let (version, api) =
            (answer.version.unwrap_or_default(), answer.api_version.unwrap_or_default());
        match api_version(&api) {
            Some(api) if api >= API_VERSION_MIN => Ok(version),
            _ => {
                let what = format_args!(
                    "Docker Engine {version} (API {api}) is too old: 20.10 or newer is needed"
                );
                Err(Error::new(Cause::Invalid, call, what))
            }
        }
    }

    /// Where the Engine keeps images and containers, on its own machine.
    pub(crate) async fn directory(&self) -> Result<PathBuf, Error> {
        let info = self.bollard.info().await;
        let info =
            info.map_err(|error| Error::from_bollard("ask where it keeps images", &error))?;
        Ok(info.docker_root_dir.unwrap_or_default().into())
    }

    /// Returns the container's id. With its files in it, it has yet to start.
    pub(crate) async fn create(&self, spec: &ContainerSpec) -> Result<String, Error> {
        let name = &spec.labels.runner;
        let call = format!("create container {name} from {}", spec.settings.runner_image);
        let options = CreateContainerOptions {
            name: Some(name.clone()),
            platform: spec.settings.platform.clone().unwrap_or_default(),
        };
        let id = self.create_named(&call, options, spec.to_body(), &spec.labels).await?;
        let call = format!("put files into container {name}");
        let archive = spec.archive().map_err(|error| Error::new(Cause::Other, &call, error))?;
        if let Some(archive) = archive {
            let root = UploadToContainerOptions { path: "/".to_owned(), ..Default::default() };
            self.bollard
                .upload_to_container(&id, Some(root), bollard::body_full(archive.into()))
                .await
                .map_err(|error| Error::from_bollard(&call, &error))?;
        }
        Ok(id)
    }

    async fn create_named(
        &self,
        call: &str,
        options: CreateContainerOptions,
        body: ContainerCreateBody,
        labels: &Labels,
    ) -> Result<String, Error> {
        let name = options.name.clone().unwrap_or_default();
        match self.bollard.create_container(Some(options), body).await {
            Ok(created) => {
                for warning in created.warnings {
                    tracing::warn!(container = name, warning, "Docker warns about a container");
                }
                Ok(created.id)
            }
            Err(Bollard::DockerResponseServerError { status_code: 409, message }) => {
                Err(self.conflict(call, &name, &labels.instance, &message).await)
            }
            Err(error) => Err(Error::from_bollard(call, &error)),
        }
    }

    /// For jobs that may use the Engine that runs them.
    pub(crate) fn own_engine(&self) -> Result<JobEngine, Error> {
        let group = self.socket.metadata().map(|socket| socket.gid()).map_err(|error| {
            let call = format!("look at {}", self.socket.display());
            Error::new(Cause::DaemonUnreachable, &call, error)
        })?;
        Ok(JobEngine::Host { socket: self.socket.display().to_string(), group })
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), Error> {
        self.bollard
            .start_container(id, None::<StartContainerOptions>)
            .await
            .map_err(|error| Error::from_bollard(&format!("start container {}", short(id)), &error))
    }

    /// Asks the processes to end, kills them after `stop_grace`, and removes the
    /// container with its anonymous volumes. A container that is gone, or that
    /// somebody else is removing, is as good as removed.
    pub(crate) async fn remove(&self, id: &str, stop_grace: Duration) -> Result<(), Error> {
        let grace_s = stop_grace.as_secs_f64().ceil() as i32;
        let patient = self.bollard.clone().with_timeout(stop_grace + STOP_MARGIN);
        let stop = StopContainerOptions { signal: Some("SIGTERM".to_owned()), t: Some(grace_s) };
        match patient.stop_container(id, Some(stop)).await {
            Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => return Ok(()),
            // The forced removal below ends what would not stop.
            Ok(()) | Err(Bollard::DockerResponseServerError { .. }) => {}
            Err(error) => {
                return Err(Error::from_bollard(&format!("stop container {}", short(id)), &error));
            }
        }
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.bollard.remove_container(id, Some(options)).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(Bollard::DockerResponseServerError { status_code: 409, message })
                if message.contains("already in progress") =>
            {
                Ok(())
            }
            Err(error) => {
                Err(Error::from_bollard(&format!("remove container {}", short(id)), &error))
            }
        }
    }

    async fn conflict(&self, call: &str, name: &str, instance: &str, message: &str) -> Error {
        let holder = self.bollard.inspect_container(name, None::<InspectContainerOptions>).await;
        let labels = holder.ok().and_then(|holder| holder.config?.labels).unwrap_or_default();
        if Labels::from_map(&labels, instance).is_some() {
            let what = "this installation has a container of that name already";
            Error::new(Cause::NameTaken, call, what)
        } else {
            Error::new(
                Cause::Invalid,
                call,
                format_args!("{message} It is not ours: remove or rename it"),
            )
        }
    }
}

fn api_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// As the docker command line shows it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
