//! The host configuration that a runner and its own Docker Engine have in common.

use bollard::models::{HostConfig, HostConfigLogConfig};

use crate::provider::order::SharedSettings;

pub(super) fn host_config(settings: &SharedSettings) -> HostConfig {
    let SharedSettings {
        cpus,
        memory_mib,
        pids,
        network,
        dns,
        extra_hosts,
        volumes,
        log_driver,
        log_options,
    } = settings;
    HostConfig {
        nano_cpus: cpus.map(|cpus| (cpus * 1e9) as i64),
        memory: memory_mib.map(mib_to_bytes),
        pids_limit: *pids,
        network_mode: network.clone(),
        dns: non_empty(dns),
        extra_hosts: non_empty(extra_hosts),
        binds: non_empty(volumes),
        log_config: (log_driver.is_some() || !log_options.is_empty()).then(|| {
            HostConfigLogConfig {
                typ: log_driver.clone(),
                config: Some(log_options.clone().into_iter().collect()),
            }
        }),
        ..Default::default()
    }
}

/// `None`, which means Docker's default, for an empty list.
pub(super) fn non_empty(list: &[String]) -> Option<Vec<String>> {
    (!list.is_empty()).then(|| list.to_vec())
}

pub(super) fn mib_to_bytes(mib: u64) -> i64 {
    i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}
