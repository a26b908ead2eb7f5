//! The configuration of the Envoy that is the only way out of a pool's network, and the container
//! that runs it.

use std::{collections::HashMap, net::Ipv4Addr};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig,
    NetworkingConfig, RestartPolicy, RestartPolicyNameEnum,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::host_config::{mib_to_bytes, non_empty};
use crate::{
    config::{EgressHost, EgressMode},
    provider::order::{Egress, Order},
};

const ENFORCE: &str = include_str!("../../../../../envoy/egress.yaml");
const OBSERVE: &str = include_str!("../../../../../envoy/egress-observe.yaml");
/// In both files, what the pool's hosts and the address replace.
const HOSTS: &str = "policies: {}";
const ADDRESS: &str = "address: 0.0.0.0\n";
/// In both files.
pub(super) const PORT: u16 = 3128;

const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// `nobody` of most images. It needs no files.
const USER: &str = "65534:65534";
const MEMORY_MIB_MAX: u64 = 512;
const PIDS_MAX: i64 = 256;
const WORKERS: &str = "2";
/// A line of the access log may wait for so long.
const FLUSH_MS: &str = "200";

/// Of a pool whose connections are checked in this way.
pub(super) fn name(order: &Order, egress: &Egress) -> String {
    let shared = &order.settings.shared;
    let all = (egress, &shared.dns, &shared.extra_hosts, policies(egress), text(egress.mode));
    // Always valid JSON, as it has no maps.
    let hash = Sha256::digest(serde_json::to_vec(&all).unwrap_or_default());
    format!("{}-egress-{}-{}", order.labels.instance, order.labels.pool, hex::encode(&hash[..4]))
}

fn text(mode: EgressMode) -> &'static str {
    match mode {
        EgressMode::Enforce => ENFORCE,
        EgressMode::Observe => OBSERVE,
    }
}

/// As YAML.
pub(super) fn configuration(egress: &Egress, address: Ipv4Addr) -> String {
    text(egress.mode).replacen(HOSTS, &format!("policies: {}", policies(egress)), 1).replacen(
        ADDRESS,
        &format!("address: {address}\n"),
        1,
    )
}

/// Those of the filter `hosts`. JSON is YAML.
fn policies(egress: &Egress) -> Value {
    // They were checked when the configuration was loaded.
    let hosts: Vec<EgressHost> =
        egress.hosts.iter().filter_map(|text| EgressHost::parse(text).ok()).collect();
    if hosts.is_empty() {
        return json!({});
    }
    // One expression for all hosts: each permission of its own would be twice as long.
    let authority = |regex: &dyn Fn(&EgressHost) -> String| {
        let regexes: Vec<String> = hosts.iter().map(regex).collect();
        let regex = format!("(?i)(?:{})", regexes.join("|"));
        json!({"header": {"name": ":authority", "string_match": {"safe_regex": {"regex": regex}}}})
    };
    let is_tunnel = json!({"header": {"name": ":method", "string_match": {"exact": "CONNECT"}}});
    let tunnels = [is_tunnel.clone(), authority(&|host| host.regex(HTTPS, false))];
    let requests = [json!({"not_rule": is_tunnel}), authority(&|host| host.regex(HTTP, true))];
    let permissions = [tunnels, requests].map(|rules| json!({"and_rules": {"rules": rules}}));
    json!({"permitted": {"principals": [{"any": true}], "permissions": permissions}})
}

/// `network`: ID of the pool's network, in which Envoy gets `address`.
pub(super) fn container(
    order: &Order,
    egress: &Egress,
    network: &str,
    address: Ipv4Addr,
    labels: HashMap<String, String>,
) -> ContainerCreateBody {
    let shared = &order.settings.shared;
    let command = [
        "--config-yaml",
        &configuration(egress, address),
        "--concurrency",
        WORKERS,
        "--file-flush-interval-msec",
        FLUSH_MS,
        "--log-level",
        "warning",
        "--component-log-level",
        // What shows that it is ready.
        "main:info",
        "--disable-hot-restart",
    ];
    let endpoint = EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(address.to_string()),
            ..Default::default()
        }),
        ..Default::default()
    };
    let strings = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    ContainerCreateBody {
        image: Some(egress.image.clone()),
        entrypoint: Some(strings(&["envoy"])),
        cmd: Some(strings(&command)),
        user: Some(USER.to_owned()),
        labels: Some(labels),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some([(network.to_owned(), endpoint)].into()),
        }),
        host_config: Some(HostConfig {
            network_mode: Some(network.to_owned()),
            dns: non_empty(&shared.dns),
            extra_hosts: non_empty(&shared.extra_hosts),
            cap_drop: Some(strings(&["ALL"])),
            security_opt: Some(strings(&["no-new-privileges:true"])),
            readonly_rootfs: Some(true),
            memory: Some(mib_to_bytes(MEMORY_MIB_MAX)),
            pids_limit: Some(PIDS_MAX),
            // It stands in two networks, and must not be a router between them.
            sysctls: Some(
                [("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.disable_ipv6", "1")]
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            ),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ALWAYS),
                ..Default::default()
            }),
            // The sidecar reads it, whatever the Engine's default is.
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(
                    [("max-size", "10m"), ("max-file", "2")]
                        .map(|(name, value)| (name.to_owned(), value.to_owned()))
                        .into(),
                ),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(hosts: &[&str], mode: EgressMode) -> Egress {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Egress { hosts, mode, image: "envoy:1".into() }
    }

    #[test]
    fn the_shipped_files_have_what_the_pools_hosts_and_the_address_replace_once() {
        for text in [ENFORCE, OBSERVE] {
            assert_eq!(text.matches(HOSTS).count(), 1);
            assert_eq!(text.matches(ADDRESS).count(), 1);
            assert!(text.contains(&format!("port_value: {PORT}\n")));
        }
    }

    #[test]
    fn a_tunnel_and_a_plain_request_have_their_own_ports() {
        let egress = egress(&["*.a.example", "b.example:5000"], EgressMode::Enforce);
        let text = configuration(&egress, Ipv4Addr::new(172, 30, 255, 254));
        assert!(text.contains("address: 172.30.255.254\n"));
        let policies = policies(&egress);
        let permissions = &policies["permitted"]["permissions"];
        let regex = |index: usize| {
            let authority = &permissions[index]["and_rules"]["rules"][1]["header"];
            authority["string_match"]["safe_regex"]["regex"].as_str().unwrap().to_owned()
        };
        let below = r"(?:[a-z0-9_-]+\.)+a\.example";
        assert_eq!(regex(0), format!(r"(?i)(?:{below}(?::443)|b\.example(?::5000))"));
        assert_eq!(regex(1), format!(r"(?i)(?:{below}(?::80)?|b\.example(?::5000))"));
    }

    #[test]
    fn without_hosts_nothing_is_permitted() {
        let nothing = egress(&[], EgressMode::Observe);
        assert_eq!(policies(&nothing), json!({}));
        assert!(configuration(&nothing, Ipv4Addr::LOCALHOST).contains("shadow_rules:"));
    }

    /// All of them are in one argument of a process, which Linux limits to 128 KiB.
    #[test]
    fn as_many_hosts_as_are_permitted_fit() {
        let hosts = vec!["*.a-rather-long-name-of-a-host.example.com:5000"; 300];
        let text = configuration(&egress(&hosts, EgressMode::Enforce), Ipv4Addr::LOCALHOST);
        assert!(text.len() < 128 << 10, "{}", text.len());
    }
}
