//! The host configuration that a runner and its own Docker Engine have in common.

use bollard::models::{DeviceMapping, DeviceRequest, HostConfig, HostConfigLogConfig};

use crate::{
    config::{Device, is_cdi},
    provider::order::SharedSettings,
};

/// As Docker calls the Container Device Interface.
const CDI_DRIVER: &str = "cdi";
/// Makes Docker choose the driver for GPUs.
const GPU: &str = "gpu";
const ALL: &str = "all";

pub(super) fn host_config(settings: &SharedSettings) -> HostConfig {
    let SharedSettings {
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
    } = settings;
    HostConfig {
        nano_cpus: cpus.map(|cpus| (cpus * 1e9) as i64),
        memory: memory_mib.map(mib_to_bytes),
        pids_limit: *pids,
        network_mode: network.clone(),
        dns: non_empty(dns),
        extra_hosts: non_empty(extra_hosts),
        binds: non_empty(volumes),
        devices: some(mappings(devices)),
        device_requests: some(requests(devices, gpus)),
        log_config: (log_driver.is_some() || !log_options.is_empty()).then(|| {
            HostConfigLogConfig {
                typ: log_driver.clone(),
                config: Some(log_options.clone().into_iter().collect()),
            }
        }),
        ..Default::default()
    }
}

fn mappings(devices: &[String]) -> Vec<DeviceMapping> {
    let mapping = |text: &String| match Device::parse(text)? {
        Device::Path { on_host, in_container, permissions } => Some(DeviceMapping {
            path_on_host: Some(on_host.to_owned()),
            path_in_container: Some(in_container.to_owned()),
            cgroup_permissions: Some(permissions.to_owned()),
        }),
        Device::Cdi(_) => None,
    };
    devices.iter().filter_map(mapping).collect()
}

/// CDI names in one request, which needs no driver for GPUs, and other GPUs in another.
fn requests(devices: &[String], gpus: &[String]) -> Vec<DeviceRequest> {
    let (mut cdi, gpus): (Vec<String>, Vec<String>) =
        gpus.iter().cloned().partition(|id| is_cdi(id));
    cdi.splice(..0, devices.iter().filter(|text| is_cdi(text)).cloned());
    let by_cdi = (!cdi.is_empty()).then(|| DeviceRequest {
        driver: Some(CDI_DRIVER.to_owned()),
        device_ids: Some(cdi),
        ..Default::default()
    });
    let gpus = (!gpus.is_empty()).then(|| {
        let all = gpus == [ALL];
        DeviceRequest {
            count: all.then_some(-1),
            device_ids: (!all).then_some(gpus),
            capabilities: Some(vec![vec![GPU.to_owned()]]),
            ..Default::default()
        }
    });
    by_cdi.into_iter().chain(gpus).collect()
}

/// `None`, which means Docker's default, for an empty list.
pub(super) fn non_empty(list: &[String]) -> Option<Vec<String>> {
    some(list.to_vec())
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

pub(super) fn mib_to_bytes(mib: u64) -> i64 {
    i64::try_from(mib.saturating_mul(1 << 20)).unwrap_or(i64::MAX)
}
