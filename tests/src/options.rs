//! The options of a test's stack.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use edgerunner_sandbox::WebhookKind;
use edgerunner_testkit::control_plane::Kubernetes;
use edgerunner_testkit::swarm::{Node, Swarm};

use crate::engine::Engine;
use crate::podman::Podman;
use crate::tools::dind_image;

/// The token that the sidecar uses at GitHub. It occurs nowhere else, so that a leak can
/// be searched for.
pub const TOKEN: &str = "github-token-sesame";
/// Another one that GitHub accepts, for a second credential.
pub const OTHER_TOKEN: &str = "another-token-sesame";

/// An Envoy configuration that ships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Edge {
    /// `envoy.yaml`
    #[default]
    Plain,
    /// `production.yaml`: TLS, and mutual TLS to the sidecars.
    Production,
    /// `unix-socket.yaml`: TLS, and one sidecar behind a Unix socket.
    UnixSocket,
}

#[derive(Default)]
pub struct Options {
    pub(crate) sidecar: Vec<(String, String)>,
    pub(crate) sidecar_program: Option<PathBuf>,
    pub(crate) other_sidecars: usize,
    pub(crate) store_url: Option<String>,
    pub(crate) envoy: Vec<(String, String)>,
    pub(crate) envoy_configuration: Vec<(String, String)>,
    pub(crate) file: Option<String>,
    pub(crate) enterprise: Option<String>,
    pub(crate) hook: WebhookKind,
    pub(crate) docker_proxy: bool,
    pub(crate) engine: Option<String>,
    pub(crate) shared_engine: Option<Arc<Engine>>,
    pub(crate) swarm: Option<Swarm>,
    pub(crate) edge: Edge,
    pub(crate) own_envoy: Option<String>,
    pub(crate) new_envoy: bool,
    pub(crate) github: Option<IpAddr>,
    pub(crate) jit_reuses: usize,
    pub(crate) requests_per_hour: Option<u32>,
}

impl Options {
    /// Sets a variable of the sidecar.
    pub fn sidecar(mut self, name: &str, value: &str) -> Self {
        self.sidecar.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts this program, which becomes the sidecar.
    pub fn sidecar_program(self, program: &Path) -> Self {
        Self { sidecar_program: Some(program.to_owned()), ..self }
    }

    /// Starts this many sidecars behind one Envoy, at least one. Each has a store and an instance
    /// of its own, unless they share a store by [`Self::store_url`].
    pub fn sidecars(self, count: usize) -> Self {
        Self { other_sidecars: count.saturating_sub(1), ..self }
    }

    /// Keeps the store of all sidecars in this Postgres database.
    pub fn store_url(self, url: &str) -> Self {
        Self { store_url: Some(url.to_owned()), ..self }
    }

    /// Gives the sidecar a configuration file as well.
    pub fn file(self, text: &str) -> Self {
        Self { file: Some(text.to_owned()), ..self }
    }

    /// Sets a variable of Envoy.
    pub fn envoy(mut self, name: &str, value: &str) -> Self {
        self.envoy.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces a text in Envoy's configuration.
    pub fn envoy_configuration(mut self, from: &str, to: &str) -> Self {
        self.envoy_configuration.push((from.to_owned(), to.to_owned()));
        self
    }

    /// Makes the organizations part of this enterprise.
    pub fn enterprise(self, slug: &str) -> Self {
        Self { enterprise: Some(slug.to_owned()), ..self }
    }

    /// Sends deliveries from a webhook of this kind.
    pub fn hook(self, hook: WebhookKind) -> Self {
        Self { hook, ..self }
    }

    /// Puts a [`crate::DockerProxy`] between the sidecar and the Docker Engine.
    pub fn docker_proxy(self) -> Self {
        Self { docker_proxy: true, ..self }
    }

    /// Starts Envoy with this configuration.
    pub fn edge(self, edge: Edge) -> Self {
        Self { edge, ..self }
    }

    /// Starts Envoy with another configuration, which has the ports of `envoy.yaml`.
    pub fn own_envoy(self, configuration: String) -> Self {
        Self { own_envoy: Some(configuration), ..self }
    }

    /// Starts an Envoy that no other test has used. By default tests with one sidecar and the same
    /// configuration of Envoy use one after the other.
    pub fn new_envoy(self) -> Self {
        Self { new_envoy: true, ..self }
    }

    /// Whether any Envoy will do that looks for a sidecar as [`Edge::Plain`] does.
    pub(crate) fn shares_envoy(&self) -> bool {
        let Self { envoy, envoy_configuration, own_envoy, edge, other_sidecars, .. } = self;
        let is_usual = envoy.is_empty() && envoy_configuration.is_empty() && own_envoy.is_none();
        is_usual && *edge == Edge::Plain && *other_sidecars == 0 && !self.new_envoy
    }

    /// Gives each runner its own network and Docker Engine.
    pub async fn dind(self) -> Result<Self> {
        let image = dind_image()?;
        let options = self.shared_engine().await?;
        Ok(options
            .sidecar("DOCKER_NETWORK", "")
            .sidecar("DOCKER_DOCKER", "dind")
            .sidecar("DOCKER_DIND_IMAGE", &image))
    }

    /// Runs containers where jobs may use the Engine, and where runners may have their own:
    /// on [`Engine::shared`], or on the nodes of the Swarm that all tests use.
    pub async fn shared_engine(self) -> Result<Self> {
        if Swarm::from_environment()?.is_some() {
            return Ok(self);
        }
        let engine = Engine::shared().await?;
        let github = Some(engine.gateway());
        Ok(Self { github, shared_engine: Some(Arc::clone(&engine)), ..self.engine(&engine) })
    }

    /// Runs containers on this Engine.
    pub fn engine(self, engine: &Engine) -> Self {
        Self { engine: Some(engine.host()), ..self }
    }

    /// Runs containers on the Engine of one node, as on a machine of its own.
    pub fn node(self, node: &Node, swarm: &Swarm) -> Self {
        Self { engine: Some(node.docker_host()), github: Some(swarm.gateway), ..self }
    }

    /// Runs pods in this cluster.
    pub fn pods(self, cluster: &Kubernetes) -> Self {
        let options = Self { github: Some(cluster.gateway), ..self };
        // A network of the containers of other tests has no meaning there.
        options.sidecar("RUNNER_PROVIDER", "kubernetes").sidecar("DOCKER_NETWORK", "")
    }

    /// Runs containers on Podman.
    pub fn podman(self, podman: &Podman) -> Self {
        Self { engine: Some(podman.host()), ..self }
    }

    /// Permits that GitHub refuses so many starts with a configuration that was already used.
    pub fn jit_reuses(self, jit_reuses: usize) -> Self {
        Self { jit_reuses, ..self }
    }

    /// How many requests GitHub permits with each credential.
    pub fn requests_per_hour(self, requests: u32) -> Self {
        Self { requests_per_hour: Some(requests), ..self }
    }

    /// Runs containers on this Swarm.
    pub fn swarm(self, swarm: &Swarm) -> Self {
        Self { swarm: Some(swarm.clone()), ..self }
    }
}
