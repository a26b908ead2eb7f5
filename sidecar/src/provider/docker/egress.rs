//! The way out of pools with `egress`: for each, an internal network for its runners, and an Envoy
//! in a container that stands in this network and in the Engine's default one.
//!
//! Both are named by the hosts that the pool permits. Runners that began before the list changed
//! keep the Envoy that they began with.

mod envoy;
mod reports;

use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bollard::{
    errors::Error as Bollard,
    models::{
        ContainerInspectResponse, ContainerStateStatusEnum as Status, Ipam, IpamConfig,
        NetworkConnectRequest, NetworkCreateRequest, NetworkInspect,
    },
    query_parameters::{CreateContainerOptions, InspectNetworkOptions, ListNetworksOptions},
};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tracing::info;

use self::reports::Addresses;
use super::{Docker, body::HttpProxy, error, from_bollard, launch::labels_of, leftovers::Swept};
use crate::provider::{
    error::{Error, ErrorKind},
    order::{Egress, Order},
};

/// Labels of the network and of the container, in place of those of a runner: the installation,
/// and the pool.
const EGRESS: &str = "dev.edgerunner.egress";
const POOL: &str = "dev.edgerunner.pool";
/// Name of the Engine's default network.
const OUTSIDE: &str = "bridge";
/// Keeps the machine itself from having an address in the network: everything that listens on all
/// of its addresses would be open to jobs.
const NO_ADDRESS: &str = "com.docker.network.bridge.inhibit_ipv4";

const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(50);
const LOG_LINES: usize = 200;
/// Envoy logs it once its listeners accept connections.
const READY: &str = "starting main dispatch loop";
/// Others may take the subnet between two calls.
const ATTEMPTS_MAX: u32 = 5;
/// Without runners it is removed after that, and started again for the next one.
const IDLE_LIMIT: Duration = Duration::from_secs(1800);

/// What this process knows of them.
#[derive(Default)]
pub(super) struct WaysOut {
    /// By name. At most one for each list of hosts that a pool had since the last sweeps.
    needed: Mutex<HashMap<String, Need>>,
    addresses: Addresses,
}

#[derive(Clone)]
struct Need {
    /// When a launch needed it last.
    at: Instant,
    /// Held while it is started or removed. One that does not start delays no other pool.
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl WaysOut {
    fn need(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let at = Instant::now();
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        let need =
            needed.entry(name.to_owned()).or_insert_with(|| Need { at, lock: Arc::default() });
        need.at = at;
        Arc::clone(&need.lock)
    }

    /// Names that no launch has needed for a while are forgotten.
    fn is_needed(&self, name: &str) -> bool {
        let mut needed = self.needed.lock().unwrap_or_else(PoisonError::into_inner);
        needed.retain(|_, need| need.at.elapsed() < IDLE_LIMIT);
        needed.contains_key(name)
    }
}

impl Docker {
    /// The proxy of the order's runner, and its network, which exist and are ready when this
    /// returns; `None` if the order has no `egress`.
    pub(super) async fn way_out(&self, order: &Order) -> Result<Option<HttpProxy>, Error> {
        let Some(egress) = &order.egress else { return Ok(None) };
        let name = envoy::name(order, egress);
        let lock = self.ways_out.need(&name);
        let _locked = lock.lock().await;
        let call = format!("start {name}");
        for _ in 0..ATTEMPTS_MAX {
            match self.inspect(&name).await {
                Ok(found)
                    if labels_of(&found).get(EGRESS).is_none_or(|it| **it != *self.instance) =>
                {
                    let what = "a container that is not this installation's has that name: remove \
                                or rename it";
                    return Err(error(ErrorKind::Refused, &call, what));
                }
                Ok(found) => {
                    if let Some(proxy) = proxy_of(&found)
                        && is_running(&found)
                        && self.inspect_network(&proxy.network).await.is_ok()
                    {
                        self.wait_for_envoy(&name).await?;
                        return Ok(Some(proxy));
                    }
                    // Half made, or it ended for good.
                    self.delete_container(&name).await?;
                }
                Err(error) if error.kind == ErrorKind::Gone => {
                    let network = self.egress_network(order, &name).await?;
                    self.start_envoy(order, egress, &name, &network).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Err(error(ErrorKind::Refused, &call, "it ends again and again"))
    }

    /// The same if it is ready. It starts nothing.
    pub(super) async fn running_way_out(&self, order: &Order) -> Result<Option<HttpProxy>, Error> {
        let Some(egress) = &order.egress else { return Ok(None) };
        match self.inspect(&envoy::name(order, egress)).await {
            Ok(found) if is_running(&found) => Ok(proxy_of(&found)),
            Ok(_) => Ok(None),
            Err(error) if error.kind == ErrorKind::Gone => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// For denials of a runner that has started.
    pub(super) async fn note_runner(&self, order: &Order, container: &str, proxy: &HttpProxy) {
        // Without it, the denials of this runner are counted without its name.
        let Ok(found) = self.inspect(container).await else { return };
        let networks = found.network_settings.and_then(|settings| settings.networks);
        let mut endpoints = networks.into_iter().flatten().map(|(_, endpoint)| endpoint);
        let endpoint = endpoints.find(|it| it.network_id.as_ref() == Some(&proxy.network));
        let address = endpoint.and_then(|it| it.ip_address?.parse().ok());
        if let Some(address) = address {
            self.ways_out.addresses.set(&proxy.network, address, &order.labels);
        }
    }

    async fn start_envoy(
        &self,
        order: &Order,
        egress: &Egress,
        name: &str,
        network: &NetworkInspect,
    ) -> Result<(), Error> {
        let call = format!("create container {name} from {}", egress.image);
        let refused = |what: &str| error(ErrorKind::Refused, &call, what);
        let id = network.id.as_deref().ok_or_else(|| refused("its network has no ID"))?;
        let address = subnet(network)
            .and_then(last_address)
            .ok_or_else(|| refused("its network has no subnet of IPv4"))?;
        let labels = self.egress_labels(order);
        let body = envoy::container(order, egress, id, address, labels);
        let options = CreateContainerOptions {
            name: Some(name.to_owned()),
            platform: order.images.platform.clone().unwrap_or_default(),
        };
        match self.bollard.create_container(Some(options), body).await {
            Ok(_) => {}
            // Another launcher on this node was faster: what it started is looked at next.
            Err(Bollard::DockerResponseServerError { status_code: 409, .. }) => {
                sleep(POLL_EVERY).await;
                return Ok(());
            }
            Err(error) => return Err(from_bollard(&call, &error)),
        }
        let outside = NetworkConnectRequest { container: name.to_owned(), ..Default::default() };
        let connected = self.bollard.connect_network(OUTSIDE, outside).await;
        connected.map_err(|error| from_bollard(&format!("connect {name} to {OUTSIDE}"), &error))?;
        self.start(name).await?;
        info!(container = name, pool = order.labels.pool, "the pool's Envoy has started");
        Ok(())
    }

    /// Waits until it accepts connections. One that has been running for a while does, although its
    /// log may no longer show it.
    async fn wait_for_envoy(&self, name: &str) -> Result<(), Error> {
        loop {
            let found = self.inspect(name).await?;
            let log = self.last_log_lines(name, LOG_LINES).await?;
            if log.contains(READY) || age(started_at(&found)) > READY_WITHIN {
                return Ok(());
            }
            // Docker starts it again and again. It may also have worked for long before that.
            let restarts = found.restart_count.unwrap_or_default();
            if restarts > 0 && age(found.created.as_deref()) < 2 * READY_WITHIN {
                let lines: Vec<&str> = log.trim().lines().collect();
                let end = lines[lines.len().saturating_sub(3)..].join(" / ");
                self.delete_container(name).await?;
                let what = format_args!(
                    "Envoy does not start: correct egress_image; its log ends with: {end}"
                );
                return Err(error(ErrorKind::Refused, &format!("start {name}"), what));
            }
            sleep(POLL_EVERY).await;
        }
    }

    /// The network of this name, made if there is none.
    async fn egress_network(&self, order: &Order, name: &str) -> Result<NetworkInspect, Error> {
        let call = format!("create network {name}");
        for _ in 0..ATTEMPTS_MAX {
            if let Some(network) = self.first_network(name).await? {
                return Ok(network);
            }
            // Docker chooses a subnet that is free, but an address can be fixed only in one that was
            // named. So the network is made twice.
            let labels = self.egress_labels(order);
            let mut request = NetworkCreateRequest {
                name: format!("{name}-subnet"),
                internal: Some(true),
                enable_ipv6: Some(false),
                labels: Some(labels),
                options: Some([(NO_ADDRESS.to_owned(), "true".to_owned())].into()),
                ..Default::default()
            };
            let made = match self.bollard.create_network(request.clone()).await {
                Ok(made) => made,
                Err(Bollard::DockerResponseServerError { message, .. })
                    if message.contains("address pool") =>
                {
                    let what = format_args!(
                        "{message}; add default-address-pools to Docker's daemon.json"
                    );
                    return Err(error(ErrorKind::Refused, &call, what));
                }
                Err(error) => return Err(from_bollard(&call, &error)),
            };
            let found = self.inspect_network(&made.id).await?;
            let removed = self.bollard.remove_network(&made.id).await;
            removed.map_err(|error| from_bollard(&format!("remove network {name}"), &error))?;
            name.clone_into(&mut request.name);
            request.ipam = Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: subnet(&found).map(str::to_owned),
                    ..Default::default()
                }]),
                ..Default::default()
            });
            match self.bollard.create_network(request).await {
                Ok(_) => {}
                // Somebody else has taken the subnet.
                Err(Bollard::DockerResponseServerError { message, .. })
                    if message.contains("overlap") => {}
                Err(error) => return Err(from_bollard(&call, &error)),
            }
        }
        Err(error(ErrorKind::Refused, &call, "its subnet is taken again and again"))
    }

    /// Docker lets several networks have one name, if they are made at the same time. All launchers
    /// of a node choose the same one; a sweep removes the others.
    async fn first_network(&self, name: &str) -> Result<Option<NetworkInspect>, Error> {
        let networks = self.egress_networks().await?.into_iter();
        let named = networks.filter(|network| network.name.as_deref() == Some(name));
        Ok(named.min_by(|a, b| a.id.cmp(&b.id)))
    }

    /// Networks of this installation's Envoys, with what is connected to each.
    async fn egress_networks(&self) -> Result<Vec<NetworkInspect>, Error> {
        let call = "list networks";
        let options = ListNetworksOptions { filters: Some([self.egress_filter()].into()) };
        let listed = self.bollard.list_networks(Some(options)).await;
        let listed = listed.map_err(|error| from_bollard(call, &error))?;
        let mut networks = Vec::new();
        for id in listed.into_iter().filter_map(|network| network.id) {
            match self.inspect_network(&id).await {
                Ok(network) => networks.push(network),
                Err(error) if error.kind == ErrorKind::Gone => {}
                Err(error) => return Err(error),
            }
        }
        Ok(networks)
    }

    async fn inspect_network(&self, id: &str) -> Result<NetworkInspect, Error> {
        let call = format!("inspect network {id}");
        match self.bollard.inspect_network(id, None::<InspectNetworkOptions>).await {
            Ok(network) => Ok(network),
            Err(Bollard::DockerResponseServerError { status_code: 404, message }) => {
                Err(error(ErrorKind::Gone, &call, message))
            }
            Err(error) => Err(from_bollard(&call, &error)),
        }
    }

    fn egress_filter(&self) -> (String, Vec<String>) {
        ("label".to_owned(), vec![format!("{EGRESS}={}", self.instance)])
    }

    fn egress_labels(&self, order: &Order) -> HashMap<String, String> {
        HashMap::from([
            (EGRESS.to_owned(), self.instance.to_string()),
            (POOL.to_owned(), order.labels.pool.clone()),
        ])
    }

    /// Removes Envoys, with their networks, that have had no runner for a while.
    pub(super) async fn sweep_ways_out(&self, swept: &mut Swept) {
        let networks = match self.egress_networks().await {
            Ok(networks) => networks,
            Err(error) => return swept.failed.push(error),
        };
        let before = Timestamp::now() - IDLE_LIMIT;
        for network in networks {
            let (Some(name), Some(id)) = (&network.name, &network.id) else { continue };
            let mut connected = network.containers.iter().flatten();
            let is_used = connected.any(|(_, it)| it.name.as_ref() != Some(name));
            let created: Option<Timestamp> =
                network.created.as_ref().and_then(|at| at.parse().ok());
            if is_used || created.is_none_or(|at| at > before) || self.ways_out.is_needed(name) {
                continue;
            }
            info!(network = name, "removing a way out that no runner uses");
            swept.add(self.remove_way_out(name, id).await);
        }
    }

    async fn remove_way_out(&self, name: &str, network: &str) -> Result<(), Error> {
        match self.inspect(name).await {
            // Another network with this name may have it.
            Ok(envoy) if proxy_of(&envoy).is_some_and(|proxy| proxy.network == network) => {
                self.delete_container(name).await?;
            }
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Gone => {}
            Err(error) => return Err(error),
        }
        self.ways_out.addresses.forget(network);
        match self.bollard.remove_network(network).await {
            Ok(()) | Err(Bollard::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(from_bollard(&format!("remove network {name}"), &error)),
        }
    }
}

/// The proxy that runners use; `None` if it does not stand in both networks.
fn proxy_of(envoy: &ContainerInspectResponse) -> Option<HttpProxy> {
    let networks = envoy.network_settings.as_ref()?.networks.as_ref()?;
    let (_, inside) = networks.iter().find(|(name, _)| *name != OUTSIDE)?;
    let address = inside.ipam_config.as_ref()?.ipv4_address.as_ref()?.parse().ok()?;
    let network = inside.network_id.clone().filter(|id| !id.is_empty())?;
    networks.contains_key(OUTSIDE).then_some(HttpProxy { network, address, port: envoy::PORT })
}

fn is_running(envoy: &ContainerInspectResponse) -> bool {
    let status = envoy.state.as_ref().and_then(|state| state.status);
    status == Some(Status::RUNNING)
}

fn started_at(envoy: &ContainerInspectResponse) -> Option<&str> {
    envoy.state.as_ref()?.started_at.as_deref()
}

/// How long ago that was, as Docker writes it; nothing if it cannot be read.
fn age(at: Option<&str>) -> Duration {
    let at = at.and_then(|at| at.parse::<Timestamp>().ok());
    let age = at.map(|at| Timestamp::now().duration_since(at));
    age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default()
}

fn subnet(network: &NetworkInspect) -> Option<&str> {
    let config = network.ipam.as_ref()?.config.as_ref()?;
    config.iter().filter_map(|it| it.subnet.as_deref()).find(|subnet| !subnet.contains(':'))
}

/// The last one that a container can have: Docker gives out the others first.
fn last_address(subnet: &str) -> Option<Ipv4Addr> {
    let (network, length) = subnet.split_once('/')?;
    let (network, length): (Ipv4Addr, u32) = (network.parse().ok()?, length.parse().ok()?);
    // Network, machine, Envoy, a runner, and broadcast.
    let size = 1_u32.checked_shl(32_u32.checked_sub(length)?)?;
    (size >= 8).then(|| Ipv4Addr::from_bits(network.to_bits() + size - 2))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use axum::{
        Json,
        response::{IntoResponse as _, Response},
    };
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        config::Container,
        provider::docker::fake_engine::{Engine, done, log_frame, order, refused, unexpected},
    };

    const NET: &str = "0f";

    fn with_egress() -> Order {
        order(Container { egress: vec!["github.com".into()], ..Container::default() })
    }

    fn name() -> String {
        let order = with_egress();
        envoy::name(&order, order.egress.as_ref().unwrap())
    }

    fn network(name: &str, containers: Value, created: &str) -> Value {
        json!({
            "Name": name, "Id": NET, "Created": created, "Containers": containers,
            "IPAM": { "Config": [{ "Subnet": "172.18.0.0/16" }] },
        })
    }

    fn envoy_container(instance: &str, status: &str) -> Value {
        json!({
            "Id": "id-envoy", "Config": { "Labels": { EGRESS: instance } },
            "State": { "Status": status }, "RestartCount": 0,
            "NetworkSettings": { "Networks": {
                "bridge": { "NetworkID": "b0" },
                "inside": {
                    "NetworkID": NET, "IPAMConfig": { "IPv4Address": "172.18.255.254" },
                },
            } },
        })
    }

    /// An Engine in which nothing exists until it is created.
    async fn engine() -> Engine {
        let (name, made) = (name(), Arc::new(AtomicU32::new(0)));
        Engine::start(move |call| {
            let networks = made.load(Ordering::SeqCst);
            let found = network(&name, json!({}), "2026-01-01T00:00:00Z");
            match call {
                "GET /networks" if networks < 2 => Json(json!([])).into_response(),
                "GET /networks" => Json(json!([found])).into_response(),
                "POST /networks/create" => {
                    made.fetch_add(1, Ordering::SeqCst);
                    Json(json!({ "Id": NET, "Warning": "" })).into_response()
                }
                "GET /networks/0f" => Json(found).into_response(),
                "DELETE /networks/0f" => done(),
                "POST /containers/create" => {
                    made.fetch_add(10, Ordering::SeqCst);
                    Json(json!({ "Id": "id-envoy", "Warnings": [] })).into_response()
                }
                "POST /networks/bridge/connect" => Response::default(),
                call if call == format!("GET /containers/{name}/json") && networks < 10 => {
                    refused(404, &format!("No such container: {name}"))
                }
                call if call == format!("GET /containers/{name}/json") => {
                    Json(envoy_container("edge", "running")).into_response()
                }
                call if call == format!("POST /containers/{name}/start") => done(),
                call if call == format!("GET /containers/{name}/logs") => {
                    log_frame("starting main dispatch loop\n").into_response()
                }
                call => unexpected(call),
            }
        })
        .await
    }

    #[tokio::test]
    async fn a_way_out_is_made_once_and_is_ready_when_a_launch_goes_on() {
        let (engine, name) = (engine().await, name());
        let expected = HttpProxy {
            network: NET.into(),
            address: Ipv4Addr::new(172, 18, 255, 254),
            port: envoy::PORT,
        };
        assert_eq!(engine.docker.way_out(&with_egress()).await.unwrap().unwrap(), expected);
        let calls = engine.calls();
        let at = |call: &str| calls.iter().position(|made| made == call).unwrap();
        assert!(at("POST /containers/create") < at("POST /networks/bridge/connect"));
        let start = format!("POST /containers/{name}/start");
        assert!(at("POST /networks/bridge/connect") < at(&start), "it must never run without it");
        assert!(at(&start) < at(&format!("GET /containers/{name}/logs")));

        assert_eq!(engine.docker.way_out(&with_egress()).await.unwrap().unwrap(), expected);
        let creations = engine.calls().into_iter().filter(|it| it == "POST /containers/create");
        assert_eq!(creations.count(), 1);
        assert!(engine.docker.way_out(&order(Container::default())).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn the_container_of_somebody_else_is_left_alone() {
        let name = name();
        let engine = Engine::start(move |call| match call {
            call if call == format!("GET /containers/{name}/json") => {
                Json(envoy_container("other", "exited")).into_response()
            }
            call => unexpected(call),
        })
        .await;
        let error = engine.docker.way_out(&with_egress()).await.unwrap_err();
        assert!(error.message.contains("not this installation's"), "{error}");
        assert_eq!(engine.calls().len(), 1);
    }

    #[tokio::test]
    async fn only_a_way_out_that_nobody_uses_is_removed() {
        let swept = async |containers: Value, created: &'static str| {
            let name = name();
            let engine = Engine::start(move |call| {
                let found = network(&name, containers.clone(), created);
                match call {
                    "GET /networks" => Json(json!([found])).into_response(),
                    "GET /networks/0f" => Json(found).into_response(),
                    "DELETE /networks/0f" => done(),
                    call if call == format!("GET /containers/{name}/json") => {
                        refused(404, &format!("No such container: {name}"))
                    }
                    call => unexpected(call),
                }
            })
            .await;
            let mut swept = Swept::default();
            engine.docker.sweep_ways_out(&mut swept).await;
            assert!(swept.failed.is_empty(), "{:?}", swept.failed);
            swept.removed
        };
        let (old, young) = ("2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z");
        let envoy = json!({ "e": { "Name": name() } });
        let runner = json!({ "e": { "Name": name() }, "r": { "Name": "edge-1" } });
        assert_eq!(swept(json!({}), old).await, 1);
        assert_eq!(swept(envoy.clone(), old).await, 1);
        assert_eq!(swept(runner, old).await, 0);
        assert_eq!(swept(envoy, young).await, 0);
    }

    #[test]
    fn another_list_of_hosts_has_another_way_out() {
        let named = |hosts: &[&str]| {
            let egress = hosts.iter().map(|host| (*host).to_owned()).collect();
            let order = order(Container { egress, ..Container::default() });
            envoy::name(&order, order.egress.as_ref().unwrap())
        };
        assert_eq!(named(&["github.com"]), name());
        assert_ne!(named(&["github.com", "a.example"]), name());
        assert!(name().starts_with("edge-egress-default-"), "{}", name());
    }

    #[test]
    fn envoy_has_the_last_address_of_its_network() {
        assert_eq!(last_address("172.18.0.0/16"), Some(Ipv4Addr::new(172, 18, 255, 254)));
        assert_eq!(last_address("10.213.0.64/26"), Some(Ipv4Addr::new(10, 213, 0, 126)));
        for wrong in ["10.0.0.0/30", "10.0.0.0/33", "10.0.0.0", "fd00::/64", ""] {
            assert_eq!(last_address(wrong), None, "{wrong}");
        }
    }
}
