//! The services and secrets of launchers, as requests.

use std::{path::Path, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bollard::models::{
    Limit, Mount, MountType, NetworkAttachmentConfig, Platform, ResourceObject, SecretSpec,
    ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicatedJob, TaskSpec, TaskSpecContainerSpec,
    TaskSpecContainerSpecFile, TaskSpecContainerSpecSecrets, TaskSpecLogDriver, TaskSpecPlacement,
    TaskSpecPlacementPreferences, TaskSpecPlacementSpread, TaskSpecResources,
    TaskSpecRestartPolicy, TaskSpecRestartPolicyConditionEnum,
};

use crate::{
    config::SwarmConfig,
    provider::{
        labels::{ATTENDS_ON, Labels},
        order::{JobEngine, Order, Placement},
    },
};

/// Where a launcher finds its order.
const ORDER: &str = "/run/secrets/order";
/// For the launcher to remove its runner after that has stopped.
pub(super) const STOP_MARGIN: Duration = Duration::from_secs(15);
const MIB: i64 = 1 << 20;
/// Of a launcher itself.
const MEMORY_MIB_MAX: i64 = 64;
const PIDS_MAX: i64 = 64;
const READABLE_BY_OWNER: u32 = 0o400;

/// A service that runs a launcher.
pub(super) struct Launcher<'a> {
    /// Of the service and of its secret.
    pub name: String,
    pub labels: &'a Labels,
    pub nodes: Nodes,
    pub placement: Placement,
    /// As Docker writes it, such as `linux/arm64`.
    pub platform: Option<String>,
    pub reserved: ResourceObject,
    pub stop_grace: Duration,
    /// ID of the node on which it attends to a runner that runs already.
    pub attends_on: Option<String>,
}

/// On which nodes.
pub(super) enum Nodes {
    /// One that Swarm chooses.
    One,
    All,
}

impl<'a> Launcher<'a> {
    pub(super) fn of_order(order: &'a Order) -> Self {
        let shared = &order.settings.shared;
        // The runner's own Engine has the same limits beside it.
        let containers = match order.engine {
            JobEngine::Dind { .. } => 2,
            JobEngine::None | JobEngine::Socket => 1,
        };
        Self {
            name: order.labels.runner.clone(),
            labels: &order.labels,
            nodes: Nodes::One,
            placement: order.placement.clone(),
            platform: order.images.platform.clone(),
            reserved: ResourceObject {
                nano_cpus: shared.cpus.map(|cpus| (cpus * 1e9) as i64 * containers),
                memory_bytes: shared
                    .memory_mib
                    .map(|mib| i64::try_from(mib).unwrap_or(i64::MAX / 2 / MIB) * MIB * containers),
                generic_resources: None,
            },
            stop_grace: order.stop_grace,
            attends_on: None,
        }
    }

    /// On the node with this ID; no runner's resources are reserved for it.
    pub(super) fn on_node(name: String, labels: &'a Labels, node: &str, grace: Duration) -> Self {
        Self {
            name,
            labels,
            nodes: Nodes::One,
            placement: Placement {
                constraints: vec![format!("node.id=={node}")],
                ..Placement::default()
            },
            platform: None,
            reserved: ResourceObject::default(),
            stop_grace: grace,
            attends_on: None,
        }
    }

    /// `without`: IDs of nodes that must not be chosen. `secret` is the ID of the order's secret.
    pub(super) fn to_service(
        &self,
        config: &SwarmConfig,
        instance: &str,
        secret: &str,
        without: &[String],
    ) -> ServiceSpec {
        let without = without.iter().map(|node| format!("node.id!={node}"));
        let constraints = self.placement.constraints.iter().cloned().chain(without);
        let preferences =
            self.placement.spread_over.iter().map(|label| TaskSpecPlacementPreferences {
                spread: Some(TaskSpecPlacementSpread { spread_descriptor: Some(label.clone()) }),
            });
        let grace = self.stop_grace + STOP_MARGIN;
        let (replicated_job, global_job) = match self.nodes {
            Nodes::One => {
                let once = ServiceSpecModeReplicatedJob {
                    max_concurrent: Some(1),
                    total_completions: Some(1),
                };
                (Some(once), None)
            }
            Nodes::All => (None, Some([].into())),
        };
        ServiceSpec {
            name: Some(self.name.clone()),
            labels: Some(service_labels(self.labels, instance)),
            mode: Some(ServiceSpecMode { replicated_job, global_job, ..Default::default() }),
            task_template: Some(TaskSpec {
                container_spec: Some(TaskSpecContainerSpec {
                    stop_grace_period: Some(i64::try_from(grace.as_nanos()).unwrap_or(i64::MAX)),
                    ..self.container(config, secret)
                }),
                resources: Some(TaskSpecResources {
                    limits: Some(Limit {
                        nano_cpus: None,
                        memory_bytes: Some(MEMORY_MIB_MAX * MIB),
                        pids: Some(PIDS_MAX),
                    }),
                    reservations: Some(self.reserved.clone()),
                    ..Default::default()
                }),
                // A launcher that ended is never started again.
                restart_policy: Some(TaskSpecRestartPolicy {
                    condition: Some(TaskSpecRestartPolicyConditionEnum::NONE),
                    ..Default::default()
                }),
                placement: Some(TaskSpecPlacement {
                    constraints: Some(constraints.collect()),
                    preferences: Some(preferences.collect()),
                    max_replicas: None,
                    platforms: self.platform.as_deref().map(|platform| vec![to_platform(platform)]),
                }),
                // It needs no network at all, and this one costs nothing.
                networks: Some(vec![NetworkAttachmentConfig {
                    target: Some("host".to_owned()),
                    ..Default::default()
                }]),
                // The sidecar reads it, whatever the node's default is.
                log_driver: Some(TaskSpecLogDriver {
                    name: Some("json-file".to_owned()),
                    options: Some(
                        [("max-size", "1m"), ("max-file", "1")]
                            .map(|(name, value)| (name.to_owned(), value.to_owned()))
                            .into(),
                    ),
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn container(&self, config: &SwarmConfig, secret: &str) -> TaskSpecContainerSpec {
        let socket = config.docker_socket.display().to_string();
        let root = || Some("0".to_owned());
        let mut labels = self.labels.to_launcher_map();
        labels.extend(self.attends_on.clone().map(|node| (ATTENDS_ON.to_owned(), node)));
        TaskSpecContainerSpec {
            image: Some(config.launcher_image.clone()),
            args: Some(["launch", "--order", ORDER].map(str::to_owned).into()),
            labels: Some(labels),
            env: Some(vec![format!("DOCKER_HOST=unix://{socket}")]),
            // To use the socket, whatever its group is on that node.
            user: Some("0:0".to_owned()),
            read_only: Some(true),
            capability_drop: Some(vec!["ALL".to_owned()]),
            mounts: Some(vec![Mount {
                typ: Some(MountType::BIND),
                source: Some(socket.clone()),
                target: Some(socket),
                ..Default::default()
            }]),
            secrets: Some(vec![TaskSpecContainerSpecSecrets {
                secret_id: Some(secret.to_owned()),
                secret_name: Some(self.name.clone()),
                file: Some(TaskSpecContainerSpecFile {
                    name: Some(Path::new(ORDER).display().to_string()),
                    uid: root(),
                    gid: root(),
                    mode: Some(READABLE_BY_OWNER),
                }),
            }]),
            ..Default::default()
        }
    }

    pub(super) fn to_secret(&self, instance: &str, order: &[u8]) -> SecretSpec {
        SecretSpec {
            name: Some(self.name.clone()),
            labels: Some(service_labels(self.labels, instance)),
            data: Some(BASE64_STANDARD.encode(order)),
            ..Default::default()
        }
    }
}

/// Those of the installation, not of the launchers' own.
fn service_labels(labels: &Labels, instance: &str) -> std::collections::HashMap<String, String> {
    Labels { instance: instance.to_owned(), ..labels.clone() }.to_map()
}

/// `OS/ARCHITECTURE[/VARIANT]`; a node's architecture is `aarch64` or `arm64`, and Swarm compares
/// both alike.
fn to_platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    Platform { os: parts.next(), architecture: parts.next() }
}
