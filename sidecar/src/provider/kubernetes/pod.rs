//! The pod of a runner, as a request.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ExecAction,
        HostAlias, HostPathVolumeSource, LocalObjectReference, NodeAffinity, NodeSelector,
        NodeSelectorRequirement, NodeSelectorTerm, PersistentVolumeClaimVolumeSource, Pod,
        PodDNSConfig, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
        SecretKeySelector, SecretVolumeSource, SecurityContext, TopologySpreadConstraint, Volume,
        VolumeMount,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
    },
};

use super::{protect, secret, template};
use crate::{
    config::{PullPolicy, pod_user, tmpfs_size},
    provider::{
        labels,
        order::{ContainerSettings, DindSettings, JobEngine, Order, SharedSettings},
    },
};

/// Names of containers.
pub(super) const RUNNER: &str = "runner";
pub(super) const DIND: &str = "dind";
/// Copies the runner's `externals`, which jobs mount into their containers, for both to see.
pub(super) const EXTERNALS: &str = "externals";

/// Where files for the runner are.
const FILES: &str = "/opt/edgerunner";
/// Where the runner is in GitHub's image.
const DIRECTORY: &str = "/home/runner";
const COPIES: &str = "/edgerunner-externals";
/// Owner of the Engine's socket: the group `docker` of GitHub's own image.
const DOCKER_GROUP: i64 = 123;
const SOCKET: &str = "unix:///var/run/docker.sock";
const NVIDIA: &str = "nvidia.com/gpu";
const OS: &str = "kubernetes.io/os";
const ARCHITECTURE: &str = "kubernetes.io/arch";
/// For the Engine to answer, in seconds.
const ENGINE_READY_SECONDS: i32 = 60;
const EXECUTABLE: i32 = 0o755;

/// Returns what is wrong with the pool's template, if Kubernetes does not know the result.
pub(super) fn pod(order: &Order, owner: &OwnerReference) -> Result<Pod, String> {
    let ours = Pod { metadata: metadata(order, owner), spec: Some(spec(order)), status: None };
    let Some(of_pool) = &order.pod.template else { return Ok(ours) };
    let mut merged = of_pool.value().clone();
    let ours = serde_json::to_value(ours).map_err(|error| error.to_string())?;
    template::merge(&mut merged, ours);
    serde_json::from_value(merged).map_err(|error| format!("pod_template: {error}"))
}

fn metadata(order: &Order, owner: &OwnerReference) -> ObjectMeta {
    let of = &order.labels;
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    // Values of labels are short and have few characters; the annotations are the record.
    let labels = [
        label("app.kubernetes.io/managed-by", "edgerunner"),
        label(labels::INSTANCE, &of.instance),
        label(labels::POOL, &of.pool),
    ];
    ObjectMeta {
        name: Some(of.runner.clone()),
        labels: Some(labels.into()),
        annotations: Some(of.to_map().into_iter().chain(protect::while_idle()).collect()),
        owner_references: Some(vec![owner.clone()]),
        ..ObjectMeta::default()
    }
}

fn spec(order: &Order) -> PodSpec {
    let settings = &order.settings;
    let shared = &settings.shared;
    let dind = match &order.engine {
        JobEngine::Dind(dind) => Some(dind),
        // Sockets are refused when the configuration is read.
        JobEngine::None | JobEngine::Socket => None,
    };
    let mut mounted = Mounted::default();
    mounted.add("files", FILES, files(order));
    mounted.read_only();
    for (index, volume) in shared.volumes.iter().enumerate() {
        mounted.add_configured(&format!("volume-{index}"), volume);
    }
    // What the pool mounts, its Engine has as well.
    let mut of_engine = mounted.mounts[1..].to_vec();
    if let Some(mib) = settings.shm_mib {
        mounted.add("shm", "/dev/shm", in_memory(Some(mib << 20)));
    }
    for (index, tmpfs) in settings.tmpfs.iter().enumerate() {
        let path = tmpfs.split(':').next().unwrap_or_default();
        let size = tmpfs_size(tmpfs).flatten();
        mounted.add(&format!("tmpfs-{index}"), path, in_memory(size));
    }
    if dind.is_some() {
        let first = mounted.mounts.len();
        mounted.add("work", &work_folder(&order.work_folder), on_disk());
        mounted.add(EXTERNALS, &format!("{DIRECTORY}/externals"), on_disk());
        mounted.add("run", "/var/run", on_disk());
        of_engine.extend(mounted.mounts[first..].iter().cloned());
        mounted.volumes.push(Volume { name: "docker".to_owned(), ..on_disk() });
        of_engine.push(mount("docker", "/var/lib/docker"));
    }
    let runner = runner(order, mounted.mounts);
    let (node_selector, affinity) = placement(order);
    PodSpec {
        init_containers: dind.map(|dind| {
            let externals = externals(order);
            vec![externals, engine(dind, order, of_engine)]
        }),
        containers: vec![runner],
        volumes: Some(mounted.volumes),
        // It runs one job.
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: i64::try_from(order.stop_grace.as_secs()).ok(),
        // Jobs must not reach the API server in the name of anybody.
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        runtime_class_name: dind
            .and_then(|dind| dind.runtime.clone())
            .or_else(|| settings.runtime.clone()),
        image_pull_secrets: (!order.images.logins.is_empty())
            .then(|| vec![LocalObjectReference { name: order.labels.runner.clone() }]),
        security_context: dind.map(|_| PodSecurityContext {
            supplemental_groups: Some(vec![DOCKER_GROUP]),
            ..PodSecurityContext::default()
        }),
        dns_policy: (!shared.dns.is_empty()).then(|| "None".to_owned()),
        dns_config: (!shared.dns.is_empty()).then(|| PodDNSConfig {
            nameservers: Some(shared.dns.clone()),
            ..PodDNSConfig::default()
        }),
        host_aliases: host_aliases(&shared.extra_hosts),
        node_selector,
        affinity,
        topology_spread_constraints: spread(order),
        ..PodSpec::default()
    }
}

fn runner(order: &Order, mounts: Vec<VolumeMount>) -> Container {
    let ContainerSettings { user, cap_drop, cap_add, allow_new_privileges, .. } = &order.settings;
    let (user, group) = user.as_deref().and_then(pod_user).unzip();
    Container {
        name: RUNNER.to_owned(),
        image: Some(order.image.clone()),
        image_pull_policy: Some(pull_policy(order).to_owned()),
        // Docker's command; what Kubernetes calls so is the entrypoint.
        args: (!order.command.is_empty()).then(|| order.command.clone()),
        env: Some(environment(order)),
        resources: Some(resources(&order.settings.shared, order.pod.gpus)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(*allow_new_privileges),
            capabilities: Some(Capabilities {
                add: capabilities(cap_add),
                drop: capabilities(cap_drop),
            }),
            run_as_user: user,
            run_as_group: group.flatten(),
            // Docker's default, and not that of every kubelet.
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                localhost_profile: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// The Engine for jobs, which starts before the runner and stops after it.
fn engine(dind: &DindSettings, order: &Order, mounts: Vec<VolumeMount>) -> Container {
    let DindSettings { image, runtime, registry_mirrors, insecure_registries, arguments } = dind;
    let mut args =
        vec!["dockerd".to_owned(), format!("--host={SOCKET}"), format!("--group={DOCKER_GROUP}")];
    args.extend(registry_mirrors.iter().map(|url| format!("--registry-mirror={url}")));
    let insecure = insecure_registries.iter();
    args.extend(insecure.map(|registry| format!("--insecure-registry={registry}")));
    args.extend_from_slice(arguments);
    Container {
        name: DIND.to_owned(),
        image: Some(image.clone()),
        image_pull_policy: Some(pull_policy(order).to_owned()),
        args: Some(args),
        restart_policy: Some("Always".to_owned()),
        resources: Some(resources(&order.settings.shared, 0)),
        security_context: Some(SecurityContext {
            privileged: Some(runtime.is_none()),
            ..SecurityContext::default()
        }),
        // The runner waits for it.
        startup_probe: Some(Probe {
            exec: Some(ExecAction { command: Some(vec!["docker".into(), "version".into()]) }),
            period_seconds: Some(1),
            timeout_seconds: Some(5),
            failure_threshold: Some(ENGINE_READY_SECONDS),
            ..Probe::default()
        }),
        volume_mounts: Some(mounts),
        ..Container::default()
    }
}

/// A volume is empty at first, while Docker's has what the image has there.
fn externals(order: &Order) -> Container {
    let from = format!("{DIRECTORY}/externals/.");
    Container {
        name: EXTERNALS.to_owned(),
        image: Some(order.image.clone()),
        image_pull_policy: Some(pull_policy(order).to_owned()),
        command: Some(["cp", "-r", &from, COPIES].map(str::to_owned).into()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![mount(EXTERNALS, COPIES)]),
        ..Container::default()
    }
}

/// Each value is in the Secret. The last one of a name applies.
fn environment(order: &Order) -> Vec<EnvVar> {
    let names: BTreeMap<&str, ()> = order.env.iter().map(|it| (it.name.as_str(), ())).collect();
    names
        .into_keys()
        .map(|name| EnvVar {
            name: name.to_owned(),
            value: None,
            value_from: Some(EnvVarSource {
                secret_key_ref: Some(SecretKeySelector {
                    name: order.labels.runner.clone(),
                    key: secret::key_of(name),
                    optional: None,
                }),
                ..EnvVarSource::default()
            }),
        })
        .collect()
}

/// Kubernetes requests the same where a template requests nothing else.
fn resources(shared: &SharedSettings, gpus: usize) -> ResourceRequirements {
    let cpus = shared.cpus.map(|cpus| ("cpu", format!("{}m", (cpus * 1_000.0).round() as u64)));
    let memory = shared.memory_mib.map(|mib| ("memory", format!("{mib}Mi")));
    let gpus = (gpus > 0).then(|| (NVIDIA, gpus.to_string()));
    let limits: BTreeMap<String, Quantity> = [cpus, memory, gpus]
        .into_iter()
        .flatten()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount)))
        .collect();
    ResourceRequirements {
        limits: (!limits.is_empty()).then_some(limits),
        ..ResourceRequirements::default()
    }
}

fn pull_policy(order: &Order) -> &'static str {
    match order.images.pull_policy {
        PullPolicy::Missing => "IfNotPresent",
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
    }
}

/// Docker writes them with `CAP_` or without, and in any case.
fn capabilities(names: &[String]) -> Option<Vec<String>> {
    let names = names.iter().map(|name| {
        let name = name.to_ascii_uppercase();
        name.strip_prefix("CAP_").map(str::to_owned).unwrap_or(name)
    });
    let names: Vec<String> = names.collect();
    (!names.is_empty()).then_some(names)
}

fn host_aliases(extra_hosts: &[String]) -> Option<Vec<HostAlias>> {
    let mut by_address: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (host, address) in extra_hosts.iter().filter_map(|line| line.split_once(':')) {
        by_address.entry(address).or_default().push(host.to_owned());
    }
    let aliases = by_address
        .into_iter()
        .map(|(address, hosts)| HostAlias { ip: address.to_owned(), hostnames: Some(hosts) });
    let aliases: Vec<HostAlias> = aliases.collect();
    (!aliases.is_empty()).then_some(aliases)
}

fn placement(order: &Order) -> (Option<BTreeMap<String, String>>, Option<Affinity>) {
    let mut wanted = BTreeMap::new();
    let mut unwanted = Vec::new();
    if let Some((os, architecture)) =
        order.images.platform.as_deref().and_then(|it| it.split_once('/'))
    {
        wanted.insert(OS.to_owned(), os.to_owned());
        wanted.insert(ARCHITECTURE.to_owned(), architecture.to_owned());
    }
    for constraint in &order.placement.constraints {
        if let Some((key, value)) = constraint.split_once("==") {
            wanted.insert(key.trim().to_owned(), value.trim().to_owned());
        } else if let Some((key, value)) = constraint.split_once("!=") {
            unwanted.push(NodeSelectorRequirement {
                key: key.trim().to_owned(),
                operator: "NotIn".to_owned(),
                values: Some(vec![value.trim().to_owned()]),
            });
        }
    }
    let affinity = (!unwanted.is_empty()).then(|| {
        let term =
            NodeSelectorTerm { match_expressions: Some(unwanted), ..NodeSelectorTerm::default() };
        Affinity {
            node_affinity: Some(NodeAffinity {
                required_during_scheduling_ignored_during_execution: Some(NodeSelector {
                    node_selector_terms: vec![term],
                }),
                ..NodeAffinity::default()
            }),
            ..Affinity::default()
        }
    });
    ((!wanted.is_empty()).then_some(wanted), affinity)
}

fn spread(order: &Order) -> Option<Vec<TopologySpreadConstraint>> {
    let of_instance = [(labels::INSTANCE.to_owned(), order.labels.instance.clone())];
    let keys = order.placement.spread_over.iter();
    let constraints = keys.map(|key| TopologySpreadConstraint {
        topology_key: key.clone(),
        max_skew: 1,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(of_instance.clone().into()),
            ..LabelSelector::default()
        }),
        ..TopologySpreadConstraint::default()
    });
    let constraints: Vec<TopologySpreadConstraint> = constraints.collect();
    (!constraints.is_empty()).then_some(constraints)
}

fn work_folder(folder: &str) -> String {
    if folder.starts_with('/') { folder.to_owned() } else { format!("{DIRECTORY}/{folder}") }
}

/// Volumes of a pod, and where the runner has them.
#[derive(Default)]
struct Mounted {
    volumes: Vec<Volume>,
    mounts: Vec<VolumeMount>,
}

impl Mounted {
    fn add(&mut self, name: &str, path: &str, source: Volume) {
        self.volumes.push(Volume { name: name.to_owned(), ..source });
        self.mounts.push(mount(name, path));
    }

    /// The last one.
    fn read_only(&mut self) {
        if let Some(last) = self.mounts.last_mut() {
            last.read_only = Some(true);
        }
    }

    /// `SOURCE:DESTINATION[:OPTIONS]`.
    fn add_configured(&mut self, name: &str, text: &str) {
        let mut parts = text.split(':');
        let (source, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let volume = if source.starts_with('/') {
            let path = source.to_owned();
            Volume {
                host_path: Some(HostPathVolumeSource { path, type_: None }),
                ..Volume::default()
            }
        } else {
            let claim_name = source.to_owned();
            let claim = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
            Volume { persistent_volume_claim: Some(claim), ..Volume::default() }
        };
        self.add(name, path, volume);
        if parts.next() == Some("ro") {
            self.read_only();
        }
    }
}

fn mount(name: &str, path: &str) -> VolumeMount {
    VolumeMount { name: name.to_owned(), mount_path: path.to_owned(), ..VolumeMount::default() }
}

fn files(order: &Order) -> Volume {
    Volume {
        secret: Some(SecretVolumeSource {
            secret_name: Some(order.labels.runner.clone()),
            default_mode: Some(EXECUTABLE),
            items: Some(secret::files(order)),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn on_disk() -> Volume {
    Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

fn in_memory(bytes: Option<u64>) -> Volume {
    Volume {
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: bytes.map(|bytes| Quantity(bytes.to_string())),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    }
}

#[cfg(test)]
mod tests;
