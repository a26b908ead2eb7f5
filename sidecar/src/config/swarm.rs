//! The settings of Docker Swarm, and those of pools that run there.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Config, EngineAddress, Gpus, PoolConfig, ProviderName, document::Document};

/// Docker refuses larger secrets (500 KiB), and an order travels in one. Scripts grow by a third
/// in it.
const JOB_SCRIPTS_BYTES_MAX: usize = 340 << 10;
const LAUNCHER_IMAGE: &str = "/swarm/launcher_image";

/// The Docker Swarm whose nodes run the runners of pools with `provider = "swarm"`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Swarm {
    /// Addresses of the managers, as in `docker.host`. The first one that answers is used; name
    /// all of them, so that the loss of one stops nothing. Defaults to the Engine of `[docker]`.
    #[schemars(extend("x-write" = "a list such as [\"tcp://10.0.0.1:2376\", \"tcp://10.0.0.2:2376\"]"))]
    pub managers: Vec<String>,
    /// Directory with the certificates for managers on other machines, as `docker.cert_path`.
    /// Defaults to that.
    #[schemars(extend("x-write" = "the path of a directory"))]
    pub cert_path: Option<PathBuf>,
    /// Image of the launcher, a small container beside each runner: edgerunner's own image, of the
    /// same version as the sidecar. Every node must have it or be able to pull it. Its registry's
    /// login comes from `[[registries]]`. Required if a pool has `provider = "swarm"`.
    pub launcher_image: Option<String>,
    /// Path of the Docker Engine's socket, the same on every node. Defaults to
    /// `/var/run/docker.sock`.
    #[schemars(extend("x-write" = "a file path"))]
    pub docker_socket: PathBuf,
}

impl Default for Swarm {
    fn default() -> Self {
        Self {
            managers: Vec::new(),
            cert_path: None,
            launcher_image: None,
            docker_socket: "/var/run/docker.sock".into(),
        }
    }
}

/// The Docker Swarm that runs runners.
#[derive(Clone, Debug)]
pub(crate) struct SwarmConfig {
    /// Never empty, unless there was an error.
    pub managers: Vec<EngineAddress>,
    pub launcher_image: String,
    /// On every node.
    pub docker_socket: PathBuf,
}

impl Document {
    /// `config`: with its pools. `None` without a `[swarm]` section.
    pub(super) fn read_swarm(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        config: &Config,
    ) -> Option<SwarmConfig> {
        let on_swarm: Vec<(usize, &PoolConfig)> = config
            .pools
            .iter()
            .enumerate()
            .filter(|(_, pool)| pool.provider == ProviderName::Swarm)
            .collect();
        if self.get("/swarm").is_none() {
            for (index, _) in on_swarm {
                let problem = "provider = \"swarm\" needs a section [swarm] with launcher_image";
                self.error(&format!("/pools/{index}/provider"), problem);
            }
            return None;
        }
        let managers = self.read_managers(env, &config.engine);
        let Swarm { launcher_image, docker_socket, .. } = self.read("/swarm");
        if launcher_image.is_none() && !on_swarm.is_empty() {
            let problem = "write the image of edgerunner that every node can pull, such as \
                           registry.example.com/edgerunner:1.0";
            self.error(LAUNCHER_IMAGE, problem);
        }
        if !docker_socket.is_absolute() {
            self.error("/swarm/docker_socket", "write an absolute path");
        }
        for (index, pool) in on_swarm {
            let pointer = |field: &str| format!("/pools/{index}/{field}");
            let scripts: usize = pool.job_scripts.iter().map(|script| script.content.len()).sum();
            if scripts > JOB_SCRIPTS_BYTES_MAX {
                let problem = format!(
                    "the job scripts have {scripts} bytes: with provider = \"swarm\" they may have \
                     {JOB_SCRIPTS_BYTES_MAX} together; put the rest into the image"
                );
                self.error(&pointer("job_started_script"), problem);
            }
            if let Some(Gpus::Number(_)) = pool.container.gpus {
                let problem = "which GPUs of a node are free is not known before Docker Swarm has \
                               chosen the node: write \"all\" or a list of IDs, and let \
                               placement, cpus or memory_mib keep others away";
                self.error(&pointer("gpus"), problem);
            }
            for (at, text) in pool.placement.iter().enumerate() {
                if !is_constraint(text) {
                    let problem = "write NAME==VALUE or NAME!=VALUE such as node.labels.disk==ssd";
                    self.error(&format!("{}/{at}", pointer("placement")), problem);
                }
            }
            for (at, text) in pool.spread_over.iter().enumerate() {
                if !is_label(text) {
                    let problem = "write a label of nodes such as node.labels.rack";
                    self.error(&format!("{}/{at}", pointer("spread_over")), problem);
                }
            }
        }
        let launcher_image = launcher_image.unwrap_or_default();
        Some(SwarmConfig { managers, launcher_image, docker_socket })
    }
}

fn is_constraint(text: &str) -> bool {
    let parts = text.split_once("==").or_else(|| text.split_once("!="));
    parts.is_some_and(|(name, value)| {
        let name = name.trim();
        let known =
            ["node.id", "node.hostname", "node.role", "node.platform.os", "node.platform.arch"];
        (known.contains(&name) || is_label(name)) && !value.trim().is_empty()
    })
}

/// Of a node, or of its Engine.
fn is_label(text: &str) -> bool {
    let label = ["node.labels.", "engine.labels."].iter().find_map(|it| text.strip_prefix(it));
    label.is_some_and(|label| !label.is_empty() && !label.contains(char::is_whitespace))
}
