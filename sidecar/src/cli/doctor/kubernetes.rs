//! Checks the Kubernetes cluster: what the sidecar may do there, and that nodes suit each pool.

use super::report::Report;
use crate::{
    config::{Config, DockerAccess, PoolConfig, ProviderName},
    provider::kubernetes::access::{Inspection, Offer},
};

const KUBERNETES: &str = "Kubernetes";
/// The first version in which a pod can have the Engine of `docker = "dind"` beside its runner.
const SIDECARS_SINCE: (u32, u32) = (1, 29);

pub(super) async fn check(config: &Config, report: &mut Report) {
    let Some(cluster) = &config.kubernetes else { return };
    let cluster = Inspection::new(cluster);
    let version = match cluster.version().await {
        Ok(version) => version,
        // Everything else would fail for the same reason.
        Err(error) => return report.failed(KUBERNETES, error),
    };
    match cluster.namespace().await {
        Ok(namespace) => {
            report.ok(KUBERNETES, format!("{}, namespace {namespace}", version.git_version));
        }
        Err(error) => return report.failed(KUBERNETES, error),
    }
    let pools = || config.pools.iter().filter(|it| it.provider == ProviderName::Kubernetes);
    for pool in pools().filter(|pool| pool.container.docker == DockerAccess::Dind) {
        if is_older(&version.major, &version.minor) {
            let what = "docker = \"dind\" needs Kubernetes 1.29 or later";
            report.failed(format!("pool {}", pool.name), what);
        }
    }
    match cluster.permissions(&config.scheduler.instance).await {
        Ok(permissions) => {
            for permission in permissions {
                let name = format!("may {}", permission.what);
                match permission.allowed {
                    true => report.ok(name, permission.purpose),
                    false => report.failed(
                        name,
                        format!(
                            "needed {}: apply packaging/kubernetes/runners.yaml, or give its role \
                             to the user of the kubeconfig",
                            permission.purpose
                        ),
                    ),
                }
            }
        }
        Err(error) => report.failed("permissions", error),
    }
    match cluster.nodes().await {
        Ok(nodes) => pools().for_each(|pool| check_pool(pool, &nodes, report)),
        Err(error) => {
            report.skipped("nodes", format!("not checked whether they suit the pools: {error}"));
        }
    }
}

/// Some distributions write `29+`.
fn is_older(major: &str, minor: &str) -> bool {
    let number = |text: &str| text.trim_end_matches('+').parse().ok();
    match (number(major), number(minor)) {
        (Some(major), Some(minor)) => (major, minor) < SIDECARS_SINCE,
        _ => false,
    }
}

/// Nodes may be added when a pod needs them, so nothing here is a failure.
fn check_pool(pool: &PoolConfig, nodes: &[Offer], report: &mut Report) {
    let name = format!("nodes of pool {}", pool.name);
    let container = &pool.container;
    let times = if container.docker == DockerAccess::Dind { 2.0 } else { 1.0 };
    let cpus = container.cpus.unwrap_or_default() * times;
    let memory = container.memory_mib.unwrap_or_default() as f64 * times;
    let suits = |node: &&Offer| {
        node.ready
            && pool.placement.iter().all(|it| node.meets(it))
            && node.cpus >= cpus
            && node.memory_mib >= memory
    };
    let fit = nodes.iter().filter(suits).count();
    if fit == 0 {
        let what = format!(
            "none of {} has {cpus} CPUs, {memory} MiB and what the pool's placement asks for: \
             runners wait until the cluster has one",
            nodes.len()
        );
        return report.warning(name, what);
    }
    if container.cpus.is_none() || container.memory_mib.is_none() {
        let what =
            format!("{fit}; without cpus and memory_mib any number of runners is placed on each");
        return report.warning(name, what);
    }
    report.ok(name, fit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(is_older("1", "28+"));
        assert!(is_older("1", "9"));
        assert!(!is_older("1", "29"));
        assert!(!is_older("1", "30+"));
        assert!(!is_older("2", "0"));
        assert!(!is_older("", ""));
    }
}
