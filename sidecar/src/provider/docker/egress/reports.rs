//! What the Envoys of pools with `egress` have refused, from their logs. The logs of Envoys that
//! exist are read from their beginning, so nothing is lost while no sidecar runs.

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::query_parameters::LogsOptions;
use futures_util::StreamExt as _;
use serde::Deserialize;
use tokio::{sync::mpsc, task::JoinSet, time::sleep};
use tracing::{debug, warn};

use super::{super::Docker, POOL};
use crate::{
    provider::{
        egress::{Denial, DenialReason},
        labels::Labels,
    },
    telemetry::outage::Outage,
};
use edgerunner_scheduler::model::UnixMs;

/// For an Envoy that has just been started, or started again.
const LIST_EVERY: Duration = Duration::from_secs(2);
/// A runner's label may be written a moment after its first connection, by another clock.
const CLOCKS_APART_MS: u64 = 2_000;
const LINE_BYTES_MAX: usize = 8 << 10;

/// Who had an address in a network last.
#[derive(Default)]
pub(super) struct Addresses(Mutex<HashMap<(String, Ipv4Addr), Owner>>);

#[derive(Clone)]
pub(super) struct Owner {
    runner: String,
    launched_unix_ms: UnixMs,
}

impl Addresses {
    pub(super) fn set(&self, network: &str, address: Ipv4Addr, labels: &Labels) {
        let owner =
            Owner { runner: labels.runner.clone(), launched_unix_ms: labels.launched_unix_ms };
        self.locked().insert((network.to_owned(), address), owner);
    }

    /// `None` if it is not known who had the address at that time.
    fn at(&self, network: &str, address: Ipv4Addr, at: UnixMs) -> Option<String> {
        let owner = self.locked().get(&(network.to_owned(), address)).cloned()?;
        (owner.launched_unix_ms <= at.saturating_add(CLOCKS_APART_MS)).then_some(owner.runner)
    }

    pub(super) fn forget(&self, network: &str) {
        self.locked().retain(|(other, _), _| other != network);
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<(String, Ipv4Addr), Owner>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of an Envoy's log.
#[derive(Deserialize)]
struct Line {
    client: Option<Ipv4Addr>,
    host: Option<String>,
    details: Option<String>,
    observed: Option<String>,
    /// Only of a request.
    status: Option<u16>,
    /// Only of a tunnel; `None` within if no TLS or no name was sent.
    #[serde(default, deserialize_with = "present")]
    server_name: Option<Option<String>>,
    /// Seconds.
    time: String,
}

fn present<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Line {
    fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// `None` if nothing was refused.
    fn reason(&self) -> Option<(DenialReason, bool)> {
        let details = self.details.as_deref().unwrap_or_default();
        let is_refused = details.starts_with("rbac_access_denied");
        if is_refused && details.contains("[closed_address]") {
            return Some((DenialReason::Address, false));
        }
        let is_observed = self.observed.as_deref() == Some("denied");
        match &self.server_name {
            Some(name) if is_refused || is_observed => {
                let host = self.host.as_deref().unwrap_or_default().to_ascii_lowercase();
                let host = host.rsplit_once(':').map_or(&*host, |(host, _)| host);
                // The host exists nowhere.
                let is_same = name.as_deref() == Some(host);
                (!is_same).then_some((DenialReason::ServerName, !is_refused))
            }
            None if is_refused || is_observed => Some((DenialReason::Host, !is_refused)),
            None => {
                let is_ours = details != "via_upstream";
                let is_wrong = self.status.is_some_and(|status| (400..500).contains(&status));
                (is_ours && is_wrong).then_some((DenialReason::Request, false))
            }
            Some(_) => None,
        }
    }

    fn at(&self) -> UnixMs {
        let seconds: f64 = self.time.parse().unwrap_or_default();
        (seconds * 1000.0) as UnixMs
    }
}

impl Docker {
    /// Sends each denial. Ends only with the receiver.
    pub(crate) async fn report_denials(self, denials: mpsc::Sender<Denial>) {
        let mut followed: HashMap<String, Arc<Mutex<String>>> = HashMap::new();
        let mut running: HashMap<tokio::task::Id, String> = HashMap::new();
        let mut tasks = JoinSet::new();
        let outage = Outage::new("what the Envoys of pools with egress refuse is not counted");
        while !denials.is_closed() {
            while let Some(ended) = tasks.try_join_next_with_id() {
                let id = match ended {
                    Ok((id, ())) => id,
                    Err(error) => error.id(),
                };
                running.remove(&id);
            }
            let envoys = self.list_filtered(self.egress_filter()).await;
            outage.observe(&envoys);
            for envoy in envoys.into_iter().flatten() {
                if running.values().any(|id| *id == envoy.id) {
                    continue;
                }
                let read = Arc::clone(followed.entry(envoy.id.clone()).or_default());
                let pool = envoy.labels.get(POOL).cloned().unwrap_or_default();
                debug!(container = envoy.id, pool, "reading an Envoy's log");
                let follow = self.clone().follow(envoy.id.clone(), pool, read, denials.clone());
                running.insert(tasks.spawn(follow).id(), envoy.id);
            }
            sleep(LIST_EVERY).await;
        }
    }

    /// Until Envoy or its log ends. `read`: the time of the last line that was read, as Docker writes
    /// it.
    async fn follow(
        self,
        envoy: String,
        pool: String,
        read: Arc<Mutex<String>>,
        denials: mpsc::Sender<Denial>,
    ) {
        let network = match self.inspect(&envoy).await {
            Ok(found) => super::proxy_of(&found).map(|proxy| proxy.network),
            Err(_) => None,
        };
        let Some(network) = network else { return };
        let options =
            LogsOptions { follow: true, stdout: true, timestamps: true, ..Default::default() };
        let mut chunks = std::pin::pin!(self.bollard.logs(&envoy, Some(options)));
        let mut line = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = match chunk {
                Ok(chunk) => chunk.into_bytes(),
                Err(error) => {
                    warn!(container = envoy, %error, "an Envoy's log cannot be read");
                    return;
                }
            };
            for byte in chunk {
                if byte != b'\n' {
                    if line.len() < LINE_BYTES_MAX {
                        line.push(byte);
                    }
                    continue;
                }
                let text = String::from_utf8_lossy(&std::mem::take(&mut line)).into_owned();
                let Some((written_at, text)) = text.split_once(' ') else { continue };
                {
                    let mut last = read.lock().unwrap_or_else(PoisonError::into_inner);
                    // Both have the same length and zone.
                    if *written_at <= **last {
                        continue;
                    }
                    written_at.clone_into(&mut last);
                }
                let Some(found) = Line::read(text) else { continue };
                let Some((reason, observed)) = found.reason() else { continue };
                let at = found.at();
                let runner = match found.client {
                    Some(client) => self.owner_of(&network, client, at).await,
                    None => None,
                };
                let host = found.host.unwrap_or_default();
                let denial = Denial { pool: pool.clone(), runner, host, reason, observed, at };
                if denials.send(denial).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The runner that had this address in a network at that time.
    async fn owner_of(&self, network: &str, address: Ipv4Addr, at: UnixMs) -> Option<String> {
        let known = || self.ways_out.addresses.at(network, address, at);
        if let Some(runner) = known() {
            return Some(runner);
        }
        self.note_addresses(network).await;
        known()
    }

    /// Those of all runners in a network.
    async fn note_addresses(&self, network: &str) {
        let (Ok(network), Ok(containers)) =
            (self.inspect_network(network).await, self.list_containers(None).await)
        else {
            return;
        };
        let Some(id) = &network.id else { return };
        for (container, endpoint) in network.containers.iter().flatten() {
            let address = endpoint.ipv4_address.as_deref().and_then(address_of);
            let listed = containers.iter().find(|listed| listed.id == *container);
            let labels = listed.and_then(|it| Labels::from_map(&it.labels, &self.instance));
            if let (Some(address), Some(labels)) = (address, labels) {
                self.ways_out.addresses.set(id, address, &labels);
            }
        }
    }
}

/// Of `172.18.0.3/16`.
fn address_of(text: &str) -> Option<Ipv4Addr> {
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(line: serde_json::Value) -> Option<(&'static str, bool)> {
        let mut line = line;
        line["time"] = json!("1795971929.463");
        line["client"] = json!("172.18.0.3");
        let line = Line::read(&line.to_string()).unwrap();
        assert_eq!(line.at(), 1_795_971_929_463);
        line.reason().map(|(reason, observed)| (reason.as_str(), observed))
    }

    #[test]
    fn what_envoy_logs_becomes_a_reason() {
        let none = "rbac_access_denied_matched_policy[none]";
        let closed = "rbac_access_denied_matched_policy[closed_address]";
        for (line, expected) in [
            (
                json!({"details": none, "host": "a.example:443", "status": 403}),
                Some(("host", false)),
            ),
            (
                json!({"details": closed, "host": "a.example", "status": 403}),
                Some(("address", false)),
            ),
            (
                json!({"details": closed, "host": "a.example:443", "server_name": "a.example"}),
                Some(("address", false)),
            ),
            (
                json!({"details": none, "host": "A.example:443", "server_name": "b.example"}),
                Some(("server_name", false)),
            ),
            (
                json!({"details": none, "host": "a.example:443", "server_name": null}),
                Some(("server_name", false)),
            ),
            // The host has no address.
            (json!({"details": none, "host": "A.example:443", "server_name": "a.example"}), None),
            (
                json!({"details": "via_upstream", "host": "a.example", "observed": "denied", "status": 200}),
                Some(("host", true)),
            ),
            (
                json!({"details": null, "host": "a.example:22", "server_name": null, "observed": "denied"}),
                Some(("server_name", true)),
            ),
            (
                json!({"details": closed, "host": "a.example", "observed": "allowed", "status": 403}),
                Some(("address", false)),
            ),
            (json!({"details": "via_upstream", "host": "a.example", "status": 404}), None),
            (
                json!({"details": "dns_resolution_failure", "host": "a.example", "status": 503}),
                None,
            ),
            (
                json!({"details": "route_not_found", "host": "a.example", "status": 404}),
                Some(("request", false)),
            ),
        ] {
            assert_eq!(reason(line.clone()), expected, "{line}");
        }
        assert!(Line::read("[warning] starting").is_none());
    }

    #[test]
    fn an_address_belongs_to_the_runner_that_had_it_then() {
        let addresses = Addresses::default();
        let address = Ipv4Addr::new(172, 18, 0, 3);
        let labels = |runner: &str, launched_unix_ms| Labels {
            runner: runner.into(),
            launched_unix_ms,
            ..Labels::default()
        };
        addresses.set("0f", address, &labels("edge-1", 100_000));
        assert_eq!(addresses.at("0f", address, 100_001).as_deref(), Some("edge-1"));
        assert_eq!(addresses.at("0e", address, 100_001), None);
        addresses.set("0f", address, &labels("edge-2", 200_000));
        assert_eq!(addresses.at("0f", address, 200_000).as_deref(), Some("edge-2"));
        // A line of a log that is read late.
        assert_eq!(addresses.at("0f", address, 100_001), None);
        addresses.forget("0f");
        assert_eq!(addresses.at("0f", address, 200_000), None);
    }
}
