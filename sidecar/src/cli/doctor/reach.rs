//! Checks that runners reach GitHub, from the network of each pool.

use std::collections::{BTreeMap, BTreeSet};

use super::report::Report;
use crate::{
    config::{Config, PoolConfig, ProviderName},
    provider::{
        ErrorKind,
        docker::{Docker, Probed},
    },
};

/// What every job needs besides GitHub's API and pages:
/// <https://docs.github.com/en/actions/reference/runners/self-hosted-runners>.
const OF_GITHUB_COM: [&str; 3] = [
    "https://broker.actions.githubusercontent.com/",
    "https://codeload.github.com/",
    "https://results-receiver.actions.githubusercontent.com/",
];
/// Each network takes some seconds.
const NETWORKS_MAX: usize = 5;

pub(super) async fn check(config: &Config, docker: &Docker, report: &mut Report) {
    let urls = urls(config);
    if urls.is_empty() {
        return;
    }
    let networks = networks(&config.pools);
    for pools in networks.iter().take(NETWORKS_MAX) {
        let names: Vec<&str> = pools.iter().map(|pool| pool.name.as_str()).collect();
        let name = format!("GitHub from runners of {}", names.join(", "));
        let probed = docker.probe(pools[0], &urls).await;
        match probed {
            Ok(Probed::Done { failed }) if failed.is_empty() => {
                report.ok(name, format!("{} hosts are reached", urls.len()));
            }
            Ok(Probed::Done { failed }) => report.failed(name, describe(pools[0], &failed)),
            Ok(Probed::NoTool) => {
                report.skipped(
                    name,
                    "the image has no shell, or neither curl nor bash to try it with",
                );
            }
            Ok(Probed::NoWayOut) => {
                report.skipped(name, "the pool's Envoy is started with its first runner");
            }
            Err(error) if error.kind == ErrorKind::Image => {
                report.skipped(name, "the image is not on this machine yet");
            }
            Err(error) => report.skipped(name, error),
        }
    }
    if networks.len() > NETWORKS_MAX {
        let what = format!("only {NETWORKS_MAX} of {} networks are tried", networks.len());
        report.skipped("GitHub from other runners", what);
    }
    let elsewhere = config.pools.iter().filter(|it| it.provider != ProviderName::Docker);
    for pool in elsewhere {
        let what = "tried on a Docker Engine only, not on the nodes of a Swarm";
        report.skipped(format!("GitHub from runners of {}", pool.name), what);
    }
}

/// What a runner connects to on the servers of all credentials.
fn urls(config: &Config) -> Vec<String> {
    let mut urls = BTreeSet::new();
    for credential in &config.credentials {
        let slash = |url: &str| format!("{}/", url.trim_end_matches('/'));
        urls.extend([slash(&credential.api_url), slash(&credential.web_url)]);
        if credential.host().as_str() == "github.com" {
            urls.extend(OF_GITHUB_COM.map(str::to_owned));
        }
    }
    urls.into_iter().collect()
}

/// Pools of the Docker Engine, by what decides over what their runners reach.
fn networks(pools: &[PoolConfig]) -> Vec<Vec<&PoolConfig>> {
    let mut networks: BTreeMap<String, Vec<&PoolConfig>> = BTreeMap::new();
    for pool in pools.iter().filter(|pool| pool.provider == ProviderName::Docker) {
        let it = &pool.container;
        let proxies = it.env.keys().filter(|name| name.to_lowercase().ends_with("_proxy"));
        let proxies: Vec<&String> = proxies.collect();
        // The Envoy of one pool says nothing about that of another.
        let own = if it.has_egress() || !proxies.is_empty() { &*pool.name } else { "" };
        let key = format!(
            "{:?}",
            (&it.runner_image, &it.network, &it.dns, &it.extra_hosts, &it.user, own)
        );
        networks.entry(key).or_default().push(pool);
    }
    networks.into_values().collect()
}

fn describe(pool: &PoolConfig, failed: &[(String, String)]) -> String {
    let hosts: Vec<String> =
        failed.iter().map(|(url, why)| format!("{url} is not reached ({why})")).collect();
    let advice = match (pool.container.has_egress(), &pool.container.network) {
        (true, _) => "add them to the pool's egress: see `edgerunner egress`".to_owned(),
        (false, Some(network)) => {
            format!(
                "check the network {network}, its DNS, firewalls, and proxies in the pool's env"
            )
        }
        (false, None) => {
            "check Docker's network, DNS, firewalls, and proxies in the pool's env".to_owned()
        }
    };
    format!("{}: {advice}", hosts.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("edgerunner.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(Some(&file), &|_| None).unwrap()
    }

    #[test]
    fn a_network_is_tried_once_and_each_way_out_by_itself() {
        let config = config(
            r#"
            [github]
            token = "sesame"
            [[pools]]
            name = "a"
            [[pools]]
            name = "b"
            labels = ["b"]
            [[pools]]
            name = "c"
            network = "other"
            [[pools]]
            name = "d"
            egress = ["github.com"]
            [[pools]]
            name = "e"
            egress = ["github.com"]
            "#,
        );
        let networks = networks(&config.pools);
        let mut names: Vec<Vec<&str>> = networks
            .iter()
            .map(|pools| pools.iter().map(|it| it.name.as_str()).collect())
            .collect();
        names.sort();
        assert_eq!(names, [vec!["a", "b"], vec!["c"], vec!["d"], vec!["e"]]);
        let urls = urls(&config);
        assert_eq!(urls.len(), 5, "{urls:?}");
        assert!(urls.contains(&"https://api.github.com/".to_owned()), "{urls:?}");
    }

    #[test]
    fn a_failure_says_what_to_change() {
        let config = config("[[pools]]\nname = \"a\"\negress = [\"github.com\"]\n");
        let failed = [("https://api.github.com/".to_owned(), "curl: (56) 403".to_owned())];
        let said = describe(&config.pools[0], &failed);
        assert!(
            said.starts_with("https://api.github.com/ is not reached (curl: (56) 403)"),
            "{said}"
        );
        assert!(said.ends_with("add them to the pool's egress: see `edgerunner egress`"), "{said}");
    }

    #[test]
    fn an_enterprise_server_has_no_hosts_of_github_com() {
        let config =
            config("[github]\ntoken = \"sesame\"\napi_url = \"https://ghe.example.com/api/v3\"\n");
        let expected = ["https://ghe.example.com/", "https://ghe.example.com/api/v3/"];
        assert_eq!(urls(&config), expected);
    }
}
