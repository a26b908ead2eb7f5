//! The settings of Kubernetes, and those of pools whose runners are pods there.

use std::{net::IpAddr, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Config, Container, DockerAccess, Gpus, PoolConfig, ProviderName, ToolCache,
    document::{Document, child},
};

/// Kubernetes refuses secrets of more than 1 MiB, and the scripts of a runner travel in one, beside
/// its credentials.
const JOB_SCRIPTS_BYTES_MAX: usize = 900 << 10;
/// Kubernetes' own limit.
const NAMESERVERS_MAX: usize = 3;
const NAMESPACE_CHARS_MAX: usize = 63;

/// The Kubernetes cluster in which the runners of pools with `provider = "kubernetes"` are pods.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct KubernetesConfig {
    /// Namespace of the runners' pods, best one of their own: whoever may create pods in a namespace
    /// can read all of its secrets. Defaults to that of the context in `kubeconfig`, or to the
    /// sidecar's own.
    pub namespace: Option<String>,
    /// Path of a kubeconfig file. Without it, the sidecar runs in a pod of the cluster and uses its
    /// service account. Read once, at startup.
    #[schemars(extend("x-write" = "a file path"))]
    pub kubeconfig: Option<PathBuf>,
    /// Context to use in `kubeconfig`. Defaults to its current one.
    pub context: Option<String>,
}

impl Document {
    /// `config`: with its pools. `None` without a `[kubernetes]` section.
    pub(super) fn read_kubernetes(&mut self, config: &Config) -> Option<KubernetesConfig> {
        let pods: Vec<(usize, &PoolConfig)> = config
            .pools
            .iter()
            .enumerate()
            .filter(|(_, pool)| pool.provider == ProviderName::Kubernetes)
            .collect();
        if self.get("/kubernetes").is_none() {
            for (index, _) in pods {
                let problem = "provider = \"kubernetes\" needs a section [kubernetes]";
                self.error(&format!("/pools/{index}/provider"), problem);
            }
            return None;
        }
        let kubernetes: KubernetesConfig = self.read("/kubernetes");
        if kubernetes.context.is_some() && kubernetes.kubeconfig.is_none() {
            let problem = "a context is one of a kubeconfig file: set kubernetes.kubeconfig";
            self.error("/kubernetes/context", problem);
        }
        if kubernetes.namespace.as_ref().is_some_and(|name| !is_label(name)) {
            let problem =
                "write 1 to 63 characters of a to z, 0 to 9 and -, neither - first nor last";
            self.error("/kubernetes/namespace", problem);
        }
        let needed = "it is part of the names of pods, which begin and end with a letter or digit: \
                      write a name that does";
        if !pods.is_empty() && !is_label(&config.scheduler.instance) {
            self.error("/scheduler/instance", needed);
        }
        for (index, pool) in pods {
            let pointer = format!("/pools/{index}");
            if !is_label(&pool.name) {
                self.error(&child(&pointer, "name"), needed);
            }
            self.check_placement_of_pods(&pointer, pool);
            self.check_pods(&pointer, &pool.container);
            let scripts: usize = pool.job_scripts.iter().map(|script| script.content.len()).sum();
            if scripts > JOB_SCRIPTS_BYTES_MAX {
                let problem = format!(
                    "the job scripts have {scripts} bytes: with provider = \"kubernetes\" they may \
                     have {JOB_SCRIPTS_BYTES_MAX} together; put the rest into the image"
                );
                self.error(&child(&pointer, "job_started_script"), problem);
            }
        }
        Some(kubernetes)
    }

    fn check_placement_of_pods(&mut self, pointer: &str, pool: &PoolConfig) {
        for (at, text) in pool.placement.iter().enumerate() {
            if !is_constraint(text) {
                let problem = "write LABEL==VALUE or LABEL!=VALUE such as disk==ssd";
                self.error(&format!("{pointer}/placement/{at}"), problem);
            }
        }
        for (at, text) in pool.spread_over.iter().enumerate() {
            if !is_key(text) {
                let problem = "write a label of nodes such as topology.kubernetes.io/zone";
                self.error(&format!("{pointer}/spread_over/{at}"), problem);
            }
        }
    }

    /// Settings that a pod does not have, or has in another form.
    fn check_pods(&mut self, pointer: &str, container: &Container) {
        let has_dind = container.docker == DockerAccess::Dind;
        let other_runtime = has_dind
            && container.runtime.is_some()
            && container.dind_runtime.is_some()
            && container.runtime != container.dind_runtime;
        let problems = [
            (
                "ulimits",
                !container.ulimits.is_empty(),
                "a pod has no such limits: set them in the container runtime of the nodes, and \
                 remove this",
            ),
            (
                "pids",
                container.pids.is_some(),
                "a pod has no such limit: set podPidsLimit in the configuration of the kubelets, and \
                 remove this",
            ),
            (
                "init",
                container.init,
                "a pod has no init process of its own: set shareProcessNamespace in pod_template, or \
                 use an image with one, and remove this",
            ),
            (
                "log_driver",
                container.log_driver.is_some(),
                "the nodes keep the logs of pods: remove this",
            ),
            (
                "log_options",
                !container.log_options.is_empty(),
                "the nodes keep the logs of pods: remove this",
            ),
            (
                "network",
                container.network.is_some(),
                "pods are in the network of the cluster: remove this",
            ),
            (
                "egress",
                !container.egress.is_empty(),
                "edgerunner does not check what pods connect to: write a NetworkPolicy, and remove \
                 this",
            ),
            (
                "egress_mode",
                container.egress.is_empty() && container.has_egress(),
                "edgerunner does not check what pods connect to: remove this",
            ),
            (
                "tool_cache",
                container.tool_cache != ToolCache::None,
                "runners in Kubernetes have no tool cache: put the tools into the image, and remove \
                 this",
            ),
            (
                "devices",
                !container.devices.is_empty(),
                "pods get devices from device plugins: write them in pod_template, under \
                 resources.limits of the container runner, and remove this",
            ),
            (
                "docker",
                container.docker == DockerAccess::Socket,
                "nodes of Kubernetes have no Docker Engine: write \"dind\" or \"none\"",
            ),
            (
                "gpus",
                matches!(container.gpus, Some(Gpus::All | Gpus::Ids(_))),
                "Kubernetes chooses the GPUs of each runner: write how many it gets, as a number",
            ),
            (
                "gpus",
                has_dind && matches!(container.gpus, Some(Gpus::Number(_))),
                "the Engine of docker = \"dind\" would not have them: remove one of the two",
            ),
            (
                "dind_runtime",
                other_runtime,
                "a pod has one runtime class, for the runner and for its Engine: write the same name \
                 in runtime, or remove that",
            ),
            (
                "user",
                container.user.as_deref().is_some_and(|user| pod_user(user).is_none()),
                "Kubernetes does not know the names of an image's users: write UID or UID:GID, as \
                 numbers",
            ),
            (
                "dns",
                container.dns.len() > NAMESERVERS_MAX,
                "Kubernetes accepts at most 3 DNS servers",
            ),
            (
                "platform",
                container.platform.as_deref().is_some_and(|text| text.matches('/').count() != 1),
                "nodes have an operating system and an architecture: write both, such as linux/arm64",
            ),
        ];
        for (field, _, problem) in problems.into_iter().filter(|(_, is_wrong, _)| *is_wrong) {
            self.error(&child(pointer, field), problem);
        }
        let mut check = |field: &str, items: &[String], is_good: fn(&str) -> bool, problem| {
            for (index, _) in items.iter().enumerate().filter(|(_, item)| !is_good(item)) {
                self.error(&format!("{pointer}/{field}/{index}"), problem);
            }
        };
        let host = "write HOST:ADDRESS with an IP address";
        check("extra_hosts", &container.extra_hosts, has_address, host);
        let tmpfs = "the only option in Kubernetes is the size: write /PATH or /PATH:size=64m";
        check("tmpfs", &container.tmpfs, |text| tmpfs_size(text).is_some(), tmpfs);
        let volume =
            "write CLAIM:/DESTINATION or /DIRECTORY:/DESTINATION, with :ro behind it or not";
        check("volumes", &container.volumes, is_volume, volume);
        for name in container.env.keys().filter(|name| !is_variable(name)) {
            let problem = "Kubernetes accepts names of letters, digits, _, - and ., without a digit \
                           in front";
            self.error(&child(&format!("{pointer}/env"), name), problem);
        }
    }
}

/// User and group, as numbers.
pub(crate) fn pod_user(text: &str) -> Option<(i64, Option<i64>)> {
    let id = |text: &str| text.parse().ok().filter(|id| *id >= 0);
    match text.split_once(':') {
        Some((user, group)) => Some((id(user)?, Some(id(group)?))),
        None => Some((id(text)?, None)),
    }
}

/// The size of an in-memory file system in bytes, if it has one. `None`: it has other options.
pub(crate) fn tmpfs_size(text: &str) -> Option<Option<u64>> {
    let Some((_, options)) = text.split_once(':') else { return Some(None) };
    let size = options.strip_prefix("size=")?;
    let digits = size.trim_end_matches(|last: char| last.is_ascii_alphabetic());
    let unit = match size[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit).filter(|bytes| *bytes > 0).map(Some)
}

fn is_label(text: &str) -> bool {
    (1..=NAMESPACE_CHARS_MAX).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// The name of a label, with or without a prefix.
fn is_key(text: &str) -> bool {
    let name = text.rsplit('/').next().unwrap_or_default();
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.matches('/').count() <= 1
        && !text.starts_with('/')
        && (1..=63).contains(&name.len())
        && text.chars().all(|c| is_part(c) || c == '/')
}

fn is_constraint(text: &str) -> bool {
    let parts = text.split_once("==").or_else(|| text.split_once("!="));
    parts.is_some_and(|(key, value)| {
        let value = value.trim();
        let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        is_key(key.trim()) && (1..=63).contains(&value.len()) && value.chars().all(is_part)
    })
}

fn has_address(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, address)| address.parse::<IpAddr>().is_ok())
}

fn is_volume(text: &str) -> bool {
    matches!(text.split(':').nth(2), None | Some("ro" | "rw"))
}

fn is_variable(name: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_in_memory_file_system_has_a_size_and_no_other_option() {
        for (text, expected) in [
            ("/tmp", Some(None)),
            ("/tmp:size=64m", Some(Some(64 << 20))),
            ("/tmp:size=1G", Some(Some(1 << 30))),
            ("/tmp:size=4096", Some(Some(4096))),
            ("/tmp:size=0", None),
            ("/tmp:size=1x", None),
            ("/tmp:exec", None),
            ("/tmp:size=64m,exec", None),
        ] {
            assert_eq!(tmpfs_size(text), expected, "{text}");
        }
    }

    #[test]
    fn users_are_numbers() {
        assert_eq!(pod_user("1001"), Some((1001, None)));
        assert_eq!(pod_user("0:123"), Some((0, Some(123))));
        for text in ["runner", "1001:docker", "-1", "1:", ""] {
            assert_eq!(pod_user(text), None, "{text}");
        }
    }
}
