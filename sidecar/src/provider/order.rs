//! Everything a node needs to run one runner, as data: made by the control loop, carried out
//! by a provider.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, display::Base64Display, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::labels::Labels;
use crate::config::{
    Container, DockerAccess, EgressMode, Gpus, PodTemplate, PoolConfig, PullPolicy, Registry,
    TOOL_CACHE_VARIABLE, ToolCache,
};
use edgerunner_scheduler::model::UnixMs;

/// In image names without a registry.
const DOCKER_HUB: &str = "docker.io";
/// Where GitHub's own machines have it: some tools work in no other place.
pub(super) const TOOL_CACHE_DIRECTORY: &str = "/opt/hostedtoolcache";

/// Serialized, it holds secrets in the clear: the runner's credentials, the values of the
/// pool's `env`, passwords of registries. Only the node that runs the runner may read it, and
/// it must never be logged; `Debug` shows none of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Order {
    pub labels: Labels,
    pub images: Images,
    /// The runner's image, one of `images`.
    pub image: String,
    /// Empty: the image's default.
    pub command: Vec<String>,
    /// Includes the runner's credentials.
    pub env: Vec<Variable>,
    /// When the runner can no longer start with these credentials.
    pub credentials_end: UnixMs,
    /// Put into the runner before it starts.
    pub scripts: Vec<Script>,
    /// Absolute, or relative to the runner's own directory.
    pub work_folder: String,
    pub engine: JobEngine,
    pub tool_cache: Option<ToolCacheSettings>,
    /// `None`: jobs may connect to everything that the network reaches.
    pub egress: Option<Egress>,
    pub settings: ContainerSettings,
    /// Between asking the runner to stop and killing it.
    pub stop_grace: Duration,
    /// A node need not know why it was chosen.
    #[serde(skip)]
    pub placement: Placement,
    #[serde(skip)]
    pub pod: PodSettings,
}

/// What only a pod has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodSettings {
    pub template: Option<PodTemplate>,
    /// Number of GPUs, whichever the cluster chooses.
    pub gpus: usize,
}

/// Which machines may run a runner, if the provider has several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Placement {
    /// All of them apply.
    pub constraints: Vec<String>,
    /// Labels over whose values runners are spread.
    pub spread_over: Vec<String>,
}

/// The images that a runner needs, and how to get them.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Images {
    pub names: Vec<String>,
    pub platform: Option<String>,
    pub pull_policy: PullPolicy,
    /// Logins for the registries of `names` alone.
    pub logins: Vec<RegistryLogin>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RegistryLogin {
    /// The host as image names spell it.
    pub host: String,
    pub username: String,
    #[serde(serialize_with = "expose_optional")]
    pub password: Option<SecretString>,
}

/// An environment variable.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    pub name: String,
    #[serde(serialize_with = "expose")]
    pub value: SecretString,
}

/// An executable file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Script {
    /// Absolute, inside the runner.
    pub path: String,
    /// Base64 when serialized.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub content: Vec<u8>,
}

/// The Docker Engine that jobs can use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum JobEngine {
    None,
    /// The one that runs the runner.
    Socket,
    /// One for this runner alone, in a container next to it.
    Dind(DindSettings),
}

/// The settings of a Docker Engine for one runner. See [`Container`] for their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DindSettings {
    /// One of the order's `images`.
    pub image: String,
    /// Without one it runs privileged.
    pub runtime: Option<String>,
    pub registry_mirrors: Vec<String>,
    pub insecure_registries: Vec<String>,
    /// Further ones, of `dockerd`.
    pub arguments: Vec<String>,
}

/// The tool cache of a runner. See [`Container`] for the meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolCacheSettings {
    /// Whether runners of other repositories of the pool may have it later.
    pub across_repositories: bool,
    pub max_mib: u64,
    pub days: u32,
}

/// The hosts that jobs may connect to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Egress {
    /// As the pool names them.
    pub hosts: Vec<String>,
    pub mode: EgressMode,
    /// The Envoy that checks connections, one of the order's `images`.
    pub image: String,
}

/// The settings of the runner's container. See [`Container`] for their meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ContainerSettings {
    pub shared: SharedSettings,
    pub shm_mib: Option<u64>,
    pub ulimits: Vec<String>,
    pub user: Option<String>,
    pub cap_drop: Vec<String>,
    pub cap_add: Vec<String>,
    pub allow_new_privileges: bool,
    pub runtime: Option<String>,
    pub tmpfs: Vec<String>,
    pub init: bool,
}

/// Settings that apply to the runner and to its own Docker Engine, each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SharedSettings {
    pub cpus: Option<f64>,
    pub memory_mib: Option<u64>,
    pub pids: Option<i64>,
    pub network: Option<String>,
    pub dns: Vec<String>,
    pub extra_hosts: Vec<String>,
    pub volumes: Vec<String>,
    pub devices: Vec<String>,
    /// IDs, or `all`.
    pub gpus: Vec<String>,
    pub log_driver: Option<String>,
    pub log_options: BTreeMap<String, String>,
}

impl Order {
    /// `env` is complete: the pool's variables and the runner's credentials, which end at
    /// `credentials_end`.
    pub(crate) fn new(
        labels: Labels,
        images: Images,
        pool: &PoolConfig,
        env: Vec<(String, SecretString)>,
        credentials_end: UnixMs,
    ) -> Self {
        let command = pool.command();
        // Without `..`: a new setting must find its way into the order.
        let Container {
            runner_image,
            // In `images`.
            pull_policy: _,
            platform: _,
            // For the images that are present.
            refresh_hours: _,
            // In `command`, which knows the default.
            command: _,
            docker,
            dind_image,
            dind_runtime,
            registry_mirrors,
            insecure_registries,
            dind_args,
            tool_cache,
            tool_cache_max_mib,
            tool_cache_days,
            // Read when the configuration was loaded.
            job_started_script: _,
            job_completed_script: _,
            // In `env`.
            env: _,
            network,
            dns,
            extra_hosts,
            egress,
            egress_mode,
            egress_image,
            cpus,
            memory_mib,
            pids,
            shm_mib,
            ulimits,
            user,
            cap_drop,
            cap_add,
            allow_new_privileges,
            runtime,
            devices,
            gpus,
            volumes,
            tmpfs,
            log_driver,
            log_options,
            init,
        } = pool.container.clone();
        let mut variables: Vec<Variable> =
            env.into_iter().map(|(name, value)| Variable { name, value }).collect();
        let mut scripts = Vec::new();
        for script in &pool.job_scripts {
            let name = script.variable.to_owned();
            variables.push(Variable { name, value: script.path.clone().into() });
            scripts.push(Script { path: script.path.clone(), content: script.content.clone() });
        }
        let engine = match docker {
            DockerAccess::None => JobEngine::None,
            DockerAccess::Socket => JobEngine::Socket,
            DockerAccess::Dind => JobEngine::Dind(DindSettings {
                image: dind_image,
                runtime: dind_runtime,
                registry_mirrors,
                insecure_registries,
                arguments: dind_args,
            }),
        };
        let tool_cache = (tool_cache != ToolCache::None).then(|| {
            let name = TOOL_CACHE_VARIABLE.to_owned();
            variables.push(Variable { name, value: TOOL_CACHE_DIRECTORY.into() });
            ToolCacheSettings {
                across_repositories: tool_cache == ToolCache::Pool,
                max_mib: tool_cache_max_mib,
                days: tool_cache_days,
            }
        });
        let pod = PodSettings {
            template: pool.pod_template.clone(),
            gpus: gpus.as_ref().map_or(0, Gpus::own),
        };
        let gpus = gpus.map(|gpus| gpus.requested(&labels.devices)).unwrap_or_default();
        let egress = pool.container.has_egress().then_some(Egress {
            hosts: egress,
            mode: egress_mode,
            image: egress_image,
        });
        Self {
            labels,
            images,
            image: runner_image,
            command,
            env: variables,
            credentials_end,
            scripts,
            work_folder: pool.work_folder.clone(),
            engine,
            tool_cache,
            egress,
            settings: ContainerSettings {
                shared: SharedSettings {
                    cpus,
                    memory_mib,
                    pids,
                    network,
                    dns,
                    extra_hosts,
                    volumes,
                    devices,
                    gpus,
                    log_driver,
                    log_options,
                },
                shm_mib,
                ulimits,
                user,
                cap_drop,
                cap_add,
                allow_new_privileges,
                runtime,
                tmpfs,
                init,
            },
            stop_grace: pool.stop_grace,
            placement: Placement {
                constraints: pool.placement.clone(),
                spread_over: pool.spread_over.clone(),
            },
            pod,
        }
    }
}

impl Images {
    pub(crate) fn new(container: &Container, registries: &[Registry]) -> Self {
        let engine = (container.docker == DockerAccess::Dind).then_some(&container.dind_image);
        let envoy = container.has_egress().then_some(&container.egress_image);
        let names: Vec<String> =
            [&container.runner_image].into_iter().chain(engine).chain(envoy).cloned().collect();
        let mut logins: Vec<RegistryLogin> = Vec::new();
        for login in names.iter().filter_map(|name| RegistryLogin::find(registries, name)) {
            if !logins.iter().any(|known| known.host == login.host) {
                logins.push(login);
            }
        }
        let platform = container.platform.clone();
        Self { names, platform, pull_policy: container.pull_policy, logins }
    }

    pub(super) fn login(&self, image: &str) -> Option<&RegistryLogin> {
        self.logins.iter().find(|login| login.host == registry_of(image))
    }
}

impl RegistryLogin {
    /// For the registry of `image`.
    pub(crate) fn find(registries: &[Registry], image: &str) -> Option<Self> {
        let host = registry_of(image);
        let Registry { host, username, password, .. } =
            registries.iter().find(|registry| registry.host == host)?.clone();
        Some(Self { host, username, password })
    }
}

/// By Docker's rule: the part before the first slash, if it looks like a host.
pub(super) fn registry_of(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => DOCKER_HUB,
    }
}

fn expose<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn expose_optional<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|secret| secret.expose_secret()).serialize(serializer)
}

fn to_base64<S: Serializer>(content: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&Base64Display::new(content, &BASE64_STANDARD))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    BASE64_STANDARD.decode(text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registry(host: &str) -> Registry {
        let mut registry = Registry::default();
        registry.host = host.into();
        registry.username = "ci".into();
        registry.password = Some("s3cret".into());
        registry
    }

    #[test]
    fn the_registry_is_found_by_dockers_rule() {
        for (image, expected) in [
            ("runner", "docker.io"),
            ("acme/runner:1", "docker.io"),
            ("docker.io/acme/runner", "docker.io"),
            ("ghcr.io/a/runner@sha256:0f", "ghcr.io"),
            ("localhost/runner", "localhost"),
            ("127.0.0.1:5000/runner:2", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(image), expected);
        }
    }

    #[test]
    fn an_order_carries_the_logins_of_its_own_registries_alone() {
        let registries = ["ghcr.io", "docker.io", "registry.example.com"].map(registry);
        let container = Container { docker: DockerAccess::Dind, ..Container::default() };
        let hosts = |images: &Images| -> Vec<String> {
            images.logins.iter().map(|login| login.host.clone()).collect()
        };

        let images = Images::new(&container, &registries);
        assert_eq!(images.names, ["ghcr.io/actions/actions-runner:latest", "docker:dind"]);
        assert_eq!(hosts(&images), ["ghcr.io", "docker.io"]);
        assert_eq!(images.login("docker:dind").unwrap().host, "docker.io");

        let images = Images::new(&Container::default(), &registries);
        assert_eq!(images.names.len(), 1);
        assert_eq!(hosts(&images), ["ghcr.io"]);
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let pool = &crate::config::Config::load(None, &|_| None).unwrap().pools[0];
        let images = Images::new(&pool.container, &[registry("ghcr.io")]);
        let env = vec![("TOKEN".into(), "s3cret".into())];
        let order = Order::new(Labels::default(), images, pool, env, 17);
        assert!(!format!("{order:?}").contains("s3cret"));
        assert_eq!(serde_json::to_string(&order).unwrap().matches("s3cret").count(), 2);
    }
}
